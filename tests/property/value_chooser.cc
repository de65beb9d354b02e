// See value_chooser.h.
#include "tests/property/value_chooser.h"

#include <utility>

namespace gradferry::property {
namespace {

constexpr size_t kMaxLeaves = 10;

}  // namespace

Info ValueChooser::Like(Sizes sizes, c10::ScalarType dtype) {
  Info info;
  info.sizes = std::move(sizes);
  info.dtype = dtype;
  return info;
}

int ValueChooser::Add(Draft& draft, Op op, std::vector<int> inputs, std::vector<int64_t> ints,
                      std::vector<Info> outputs, double bound, double scalar) {
  Step step;
  step.op = op;
  step.inputs = std::move(inputs);
  step.ints = std::move(ints);
  step.scalar = scalar;
  --budget_;
  return builder_.Add(draft, std::move(step), std::move(outputs), bound, random_);
}

int ValueChooser::PickFloat(Draft& draft, size_t min_rank) {
  const int value = Pick(draft, [&](const Info& info) { return info.IsFloat() && info.sizes.size() >= min_rank; });
  if (value >= 0) return value;
  Sizes sizes = RandomSizes();
  while (sizes.size() < min_rank) sizes.push_back(random_.Between(1, 4));
  return LeafLike(draft, std::move(sizes), RandomDtype());
}

int ValueChooser::PickBroadcastable(Draft& draft, int with) {
  return Pick(draft, [&](const Info& info) {
    return info.IsFloat() && Broadcast(info.sizes, draft.values[with].sizes).has_value();
  });
}

int ValueChooser::WithDtype(Draft& draft, int value, c10::ScalarType dtype) {
  if (draft.values[value].dtype == dtype) return value;
  return Add(draft, dtype == c10::kFloat ? Op::kToFloat : Op::kToDouble, {value}, {},
             {Like(draft.values[value].sizes, dtype)}, Bound(draft, value));
}

int ValueChooser::Within(Draft& draft, int value, double limit) {
  const double bound = Bound(draft, value);
  if (bound <= limit) return value;
  return Add(draft, Op::kMulScalar, {value}, {}, {Like(draft.values[value].sizes, draft.values[value].dtype)}, limit,
             limit / bound);
}

Sizes ValueChooser::RandomSizes() {
  Sizes sizes(random_.Below(4));
  for (int64_t& size : sizes) size = random_.Between(1, 4);
  return sizes;
}

c10::ScalarType ValueChooser::Promoted(const Draft& draft, int a, int b) {
  const bool both_float = draft.values[a].dtype == c10::kFloat && draft.values[b].dtype == c10::kFloat;
  // A tensor without dimensions does not promote one with dimensions.
  const bool a_decides = !draft.values[a].sizes.empty() && draft.values[b].sizes.empty();
  const bool b_decides = draft.values[a].sizes.empty() && !draft.values[b].sizes.empty();
  if (a_decides) return draft.values[a].dtype;
  if (b_decides) return draft.values[b].dtype;
  return both_float ? c10::kFloat : c10::kDouble;
}

int ValueChooser::UseLeaf(Draft& draft, int leaf) {
  Info info = Like(program_.leaves[leaf].sizes, program_.leaves[leaf].dtype);
  info.table = true;
  return Add(draft, Op::kLeaf, {}, {leaf}, {info}, 1);
}

int ValueChooser::LeafLike(Draft& draft, Sizes sizes, c10::ScalarType dtype) {
  const int worker = FunctionOf(draft).worker;
  std::vector<int> fitting;
  for (size_t i = 0; i < program_.leaves.size(); ++i) {
    const Leaf& leaf = program_.leaves[i];
    if (leaf.worker == worker && leaf.sizes == sizes && leaf.dtype == dtype) fitting.push_back(static_cast<int>(i));
  }
  if (!fitting.empty() && random_.Chance(0.7)) return UseLeaf(draft, fitting[random_.Below(fitting.size())]);
  if (program_.leaves.size() >= kMaxLeaves) {
    Info info = Like(sizes, c10::kDouble);
    return WithDtype(draft, Add(draft, Op::kConstant, {}, sizes, {info}, 1), dtype);
  }
  Leaf leaf;
  leaf.worker = worker;
  leaf.dtype = dtype;
  leaf.sizes = std::move(sizes);
  leaf.requires_grad = !random_.Chance(0.1);
  if (dtype == c10::kFloat) program_.has_float32 = true;
  program_.leaves.push_back(std::move(leaf));
  return UseLeaf(draft, static_cast<int>(program_.leaves.size()) - 1);
}

void ValueChooser::AddSource(Draft& draft) {
  std::vector<int> own;
  for (size_t i = 0; i < program_.leaves.size(); ++i) {
    if (program_.leaves[i].worker == FunctionOf(draft).worker) own.push_back(static_cast<int>(i));
  }
  if (!own.empty() && random_.Chance(0.6)) {
    UseLeaf(draft, own[random_.Below(own.size())]);
  } else if (random_.Chance(0.7)) {
    NewLeaf(draft);
  } else {
    const Sizes sizes = RandomSizes();
    Add(draft, Op::kConstant, {}, sizes, {Like(sizes, c10::kDouble)}, 1);
  }
}

int ValueChooser::IndicesBelow(Draft& draft, int64_t limit) {
  if (random_.Chance(0.5)) {
    const int known = Pick(draft, [&](const Info& info) {
      return info.dtype == c10::kLong && info.sizes.size() == 1 && info.below <= limit;
    });
    if (known >= 0) return known;
  }
  const int64_t count = random_.Between(1, 5);
  Info info = Like({count}, c10::kLong);
  info.below = limit;
  return Add(draft, Op::kIndices, {}, {count, limit}, {info}, 1);
}

}  // namespace gradferry::property
