// See generate.h.
#include "tests/property/generate.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/property/builder.h"

namespace gradferry::property {
namespace {

constexpr int kMaxDepth = 5;
constexpr size_t kMaxFunctions = 14;
constexpr size_t kMaxLeaves = 10;

class Generator {
 public:
  explicit Generator(uint64_t seed)
      : random_(seed), builder_(seed, 2 + static_cast<int>(random_.Below(4))), program_(builder_.program()) {}

  Program Run() {
    const double size = random_.Unit();
    budget_ = static_cast<int>(size < 0.3 ? random_.Between(3, 12) : size < 0.8 ? random_.Between(10, 35)
                                                                                  : random_.Between(30, 90));
    call_share_ = random_.Chance(0.2) ? 0.5 : 0.2;
    Draft main = builder_.NewFunction(Worker(), 0);
    NewLeaf(main);
    while (budget_ > 0) AddStep(main);
    const int loss = random_.Chance(0.7) ? AddLoss(main) : -1;
    ChoosePasses(main, loss);
    for (Leaf& leaf : program_.leaves) {
      if (leaf.requires_grad && random_.Chance(0.05)) {
        leaf.hook = -0.5;
        program_.has_leaf_hooks = true;
      }
    }
    return std::move(program_);
  }

 private:
  int Worker() { return static_cast<int>(random_.Below(program_.workers)); }
  const Function& FunctionOf(const Draft& draft) const { return program_.functions[draft.function]; }

  static Info Like(Sizes sizes, c10::ScalarType dtype) {
    Info info;
    info.sizes = std::move(sizes);
    info.dtype = dtype;
    return info;
  }

  int Add(Draft& draft, Op op, std::vector<int> inputs, std::vector<int64_t> ints, std::vector<Info> outputs,
          double bound, double scalar = 0) {
    Step step;
    step.op = op;
    step.inputs = std::move(inputs);
    step.ints = std::move(ints);
    step.scalar = scalar;
    --budget_;
    return builder_.Add(draft, std::move(step), std::move(outputs), bound, random_);
  }

  // ---- Picking values ----------------------------------------------------------------------------------------

  template <class Predicate>
  int Pick(const Draft& draft, Predicate fits) {
    std::vector<int> found, unused;
    for (size_t i = 0; i < draft.values.size(); ++i) {
      if (!fits(draft.values[i])) continue;
      found.push_back(static_cast<int>(i));
      if (!draft.values[i].used) unused.push_back(static_cast<int>(i));
    }
    if (found.empty()) return -1;
    // What nobody has used yet more often, so that much of a program leads to its roots.
    if (!unused.empty() && random_.Chance(0.7)) found.swap(unused);
    // Late ones more often, so that programs grow deep as well as wide.
    const int64_t count = static_cast<int64_t>(found.size());
    return found[std::max(random_.Below(count), random_.Below(count))];
  }

  int PickFloat(Draft& draft, size_t min_rank = 0) {
    const int value = Pick(draft, [&](const Info& info) { return info.IsFloat() && info.sizes.size() >= min_rank; });
    if (value >= 0) return value;
    Sizes sizes = RandomSizes();
    while (sizes.size() < min_rank) sizes.push_back(random_.Between(1, 4));
    return LeafLike(draft, std::move(sizes), RandomDtype());
  }

  int PickBroadcastable(Draft& draft, int with) {
    return Pick(draft, [&](const Info& info) {
      return info.IsFloat() && Broadcast(info.sizes, draft.values[with].sizes).has_value();
    });
  }

  int WithDtype(Draft& draft, int value, c10::ScalarType dtype) {
    if (draft.values[value].dtype == dtype) return value;
    return Add(draft, dtype == c10::kFloat ? Op::kToFloat : Op::kToDouble, {value}, {},
               {Like(draft.values[value].sizes, dtype)}, Bound(draft, value));
  }

  double Bound(const Draft& draft, int value) { return builder_.MemoryOf(draft, value).bound; }

  // The value, scaled down if it may be larger than `limit`.
  int Within(Draft& draft, int value, double limit) {
    const double bound = Bound(draft, value);
    if (bound <= limit) return value;
    return Add(draft, Op::kMulScalar, {value}, {}, {Like(draft.values[value].sizes, draft.values[value].dtype)}, limit,
               limit / bound);
  }

  c10::ScalarType RandomDtype() { return random_.Chance(0.3) ? c10::kFloat : c10::kDouble; }

  Sizes RandomSizes() {
    Sizes sizes(random_.Below(4));
    for (int64_t& size : sizes) size = random_.Between(1, 4);
    return sizes;
  }

  c10::ScalarType Promoted(const Draft& draft, int a, int b) {
    const bool both_float = draft.values[a].dtype == c10::kFloat && draft.values[b].dtype == c10::kFloat;
    // A tensor without dimensions does not promote one with dimensions.
    const bool a_decides = !draft.values[a].sizes.empty() && draft.values[b].sizes.empty();
    const bool b_decides = draft.values[a].sizes.empty() && !draft.values[b].sizes.empty();
    if (a_decides) return draft.values[a].dtype;
    if (b_decides) return draft.values[b].dtype;
    return both_float ? c10::kFloat : c10::kDouble;
  }

  // ---- Sources -----------------------------------------------------------------------------------------------

  int UseLeaf(Draft& draft, int leaf) {
    Info info = Like(program_.leaves[leaf].sizes, program_.leaves[leaf].dtype);
    info.table = true;
    return Add(draft, Op::kLeaf, {}, {leaf}, {info}, 1);
  }

  int LeafLike(Draft& draft, Sizes sizes, c10::ScalarType dtype) {
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

  int NewLeaf(Draft& draft) { return LeafLike(draft, RandomSizes(), RandomDtype()); }

  void AddSource(Draft& draft) {
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

  // Indices below this, an existing vector of them where there is one.
  int IndicesBelow(Draft& draft, int64_t limit) {
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

  // ---- Operations --------------------------------------------------------------------------------------------

  void AddElementwise(Draft& draft) {
    const int a = PickFloat(draft);
    const int b = PickBroadcastable(draft, a);
    const Sizes sizes = *Broadcast(draft.values[a].sizes, draft.values[b].sizes);
    const Info info = Like(sizes, Promoted(draft, a, b));
    const double x = Bound(draft, a), y = Bound(draft, b);
    switch (random_.Below(8)) {
      case 0: case 1: Add(draft, Op::kAdd, {a, b}, {}, {info}, x + y); break;
      case 2: Add(draft, Op::kSub, {a, b}, {}, {info}, x + y); break;
      case 3: case 4: Add(draft, Op::kMul, {a, b}, {}, {info}, x * y); break;
      case 5: return AddCustomHalf(draft, a);
      case 6: Add(draft, Op::kCustomPair, {a, b}, {}, {info, info}, std::max(x * y, x + y)); break;
      case 7: {
        const int same = WithDtype(draft, b, draft.values[a].dtype);
        const int mask = Add(draft, Op::kMask, {}, sizes, {Like(sizes, c10::kBool)}, 1);
        Add(draft, Op::kWhere, {mask, a, same}, {}, {Like(sizes, draft.values[a].dtype)}, std::max(x, y));
        break;
      }
    }
  }

  // The second input gets an undefined gradient. libtorch fails when that reaches a hook, so there must be none behind.
  void AddCustomHalf(Draft& draft, int a) {
    int b = Pick(draft, [&](const Info& info) {
      return info.table && Broadcast(info.sizes, draft.values[a].sizes).has_value();
    });
    if (b < 0 || builder_.MemoryOf(draft, b).changes > 0) b = LeafLike(draft, {}, RandomDtype());
    const Sizes sizes = *Broadcast(draft.values[a].sizes, draft.values[b].sizes);
    Add(draft, Op::kCustomHalf, {a, b}, {}, {Like(sizes, Promoted(draft, a, b))},
        Bound(draft, a) + 2 * Bound(draft, b));
  }

  void AddUnary(Draft& draft) {
    const int a = PickFloat(draft);
    const double x = Bound(draft, a);
    auto add = [&](Op op, int value, double bound, double scalar = 0) {
      Add(draft, op, {value}, {}, {Like(draft.values[value].sizes, draft.values[value].dtype)}, bound, scalar);
    };
    switch (random_.Below(12)) {
      case 0: return add(Op::kNeg, a, x);
      case 1: return add(Op::kSquare, a, x * x);
      case 2: return add(Op::kRelu, a, x);
      case 3: return add(Op::kTanh, a, 1);
      case 4: return add(Op::kSigmoid, a, 1);
      case 5: return add(Op::kExp, Within(draft, a, 2), 8);
      case 6: return add(Op::kSin, a, 1);
      case 7: return add(Op::kAddScalar, a, x + 0.5, 0.5);
      case 8: return add(Op::kMulScalar, a, x * 1.5, -1.5);
      case 9: return add(Op::kClone, a, x);
      case 10: {
        const int ranked = PickFloat(draft, 1);
        const int64_t dim = random_.Below(draft.values[ranked].sizes.size());
        Add(draft, random_.Chance(0.5) ? Op::kFlip : Op::kSoftmax, {ranked}, {dim},
            {Like(draft.values[ranked].sizes, draft.values[ranked].dtype)}, std::max(1.0, Bound(draft, ranked)));
        return;
      }
      default:
        WithDtype(draft, a, draft.values[a].dtype == c10::kFloat ? c10::kDouble : c10::kFloat);
        return;
    }
  }

  void AddMatmul(Draft& draft) {
    const int a = PickFloat(draft, 1);
    const Sizes left = draft.values[a].sizes;
    const int64_t inner = left.back();
    if (inner * 4 > kMaxElements) return;
    int b = Pick(draft, [&](const Info& info) {
      return info.IsFloat() && (info.sizes.size() == 1 || info.sizes.size() == 2) && info.sizes[0] == inner;
    });
    if (b < 0) b = LeafLike(draft, {inner, random_.Between(1, 4)}, draft.values[a].dtype);
    b = WithDtype(draft, b, draft.values[a].dtype);
    Sizes sizes(left.begin(), left.end() - 1);
    if (draft.values[b].sizes.size() == 2) sizes.push_back(draft.values[b].sizes[1]);
    if (Elements(sizes) > kMaxElements) return;
    Add(draft, Op::kMatmul, {a, b}, {}, {Like(sizes, draft.values[a].dtype)},
        static_cast<double>(inner) * Bound(draft, a) * Bound(draft, b));
  }

  void AddReduction(Draft& draft) {
    const int a = PickFloat(draft, random_.Chance(0.2) ? 0 : 1);
    const Info info = draft.values[a];
    const double x = Bound(draft, a);
    const int64_t rank = static_cast<int64_t>(info.sizes.size());
    if (rank > 0 && random_.Chance(0.3)) {
      const int64_t dim = random_.Below(rank);
      if (random_.Chance(0.5)) {
        Add(draft, Op::kCumSum, {a}, {dim}, {Like(info.sizes, info.dtype)}, x * 4);
        return;
      }
      Sizes sizes = info.sizes;
      sizes.erase(sizes.begin() + dim);
      Info indices = Like(sizes, c10::kLong);
      indices.below = info.sizes[dim];
      Add(draft, Op::kMax, {a}, {dim}, {Like(sizes, info.dtype), indices}, x);
      return;
    }
    std::vector<int64_t> ints;
    Sizes sizes;
    const bool keep = random_.Chance(0.3);
    int64_t count = 1;
    for (int64_t dim = 0; dim < rank; ++dim) {
      if (random_.Chance(0.6)) {
        ints.push_back(dim);
        count *= info.sizes[dim];
        if (keep) sizes.push_back(1);
      } else {
        sizes.push_back(info.sizes[dim]);
      }
    }
    if (ints.empty()) {  // to libtorch no dimensions are all
      count = Elements(info.sizes);
      sizes.assign(keep ? rank : 0, 1);
      for (int64_t dim = 0; dim < rank; ++dim) ints.push_back(dim);
    }
    ints.push_back(keep);
    const Op op = random_.Chance(0.5) ? Op::kSum : random_.Chance(0.6) ? Op::kMean : Op::kLogSumExp;
    Add(draft, op, {a}, ints, {Like(sizes, info.dtype)}, op == Op::kSum ? x * static_cast<double>(count) : x + 4);
  }

  void AddView(Draft& draft) {
    const int a = PickFloat(draft, random_.Chance(0.1) ? 0 : 1);
    const Info info = draft.values[a];
    Sizes sizes = info.sizes;
    const int64_t rank = static_cast<int64_t>(sizes.size());
    auto add = [&](Op op, std::vector<int64_t> ints, Sizes result) {
      Add(draft, op, {a}, std::move(ints), {Like(std::move(result), info.dtype)}, 1);
    };
    if (rank == 0) return add(Op::kUnsqueeze, {0}, {1});
    const int64_t dim = random_.Below(rank);
    switch (random_.Below(8)) {
      case 0: {
        const int64_t other = random_.Below(rank);
        std::swap(sizes[dim], sizes[other]);
        return add(Op::kTranspose, {dim, other}, sizes);
      }
      case 1: case 2: {
        const int64_t start = random_.Below(sizes[dim]);
        sizes[dim] = random_.Between(1, sizes[dim] - start);
        return add(Op::kNarrow, {dim, start, sizes[dim]}, sizes);
      }
      case 3: case 4: {
        const int64_t index = random_.Below(sizes[dim]);
        sizes.erase(sizes.begin() + dim);
        return add(Op::kSelect, {dim, index}, sizes);
      }
      case 5: {
        const int64_t first = sizes[0];
        Sizes result = random_.Chance(0.5) ? Sizes{Elements(sizes)} : Sizes{Elements(sizes) / first, first};
        return add(Op::kReshape, result, result);
      }
      case 6: {
        Sizes result = sizes;
        for (int64_t& size : result) {
          if (size == 1) size = random_.Between(1, 3);
        }
        if (result.size() < 3 && random_.Chance(0.7)) result.insert(result.begin(), random_.Between(1, 3));
        if (Elements(result) > kMaxElements) result = sizes;
        return add(Op::kExpand, result, result);
      }
      default:
        if (rank >= 3) return;
        sizes.insert(sizes.begin() + dim, 1);
        return add(Op::kUnsqueeze, {dim}, sizes);
    }
  }

  // Lists of views, of which later steps may use some.
  void AddSplit(Draft& draft) {
    const int a = PickFloat(draft, 1);
    const Info info = draft.values[a];
    const int64_t dim = random_.Below(info.sizes.size());
    const int64_t size = info.sizes[dim];
    std::vector<Info> outputs;
    if (random_.Chance(0.5)) {
      Sizes sizes = info.sizes;
      sizes.erase(sizes.begin() + dim);
      outputs.assign(size, Like(sizes, info.dtype));
      Add(draft, Op::kUnbind, {a}, {dim}, outputs, 1);
      return;
    }
    const int64_t chunks = random_.Between(1, 3);
    const int64_t step = (size + chunks - 1) / chunks;
    for (int64_t start = 0; start < size; start += step) {
      Sizes sizes = info.sizes;
      sizes[dim] = std::min(step, size - start);
      outputs.push_back(Like(sizes, info.dtype));
    }
    Add(draft, Op::kChunk, {a}, {chunks, dim}, outputs, 1);
  }

  void AddJoin(Draft& draft) {
    const int a = PickFloat(draft, 1);
    const Info info = draft.values[a];
    const int count = static_cast<int>(random_.Between(1, 3));
    std::vector<int> inputs = {a};
    double bound = Bound(draft, a);
    for (int i = 1; i < count; ++i) {
      inputs.push_back(Pick(draft, [&](const Info& other) {
        return other.dtype == info.dtype && other.sizes == info.sizes;
      }));
      bound = std::max(bound, Bound(draft, inputs.back()));
    }
    Sizes sizes = info.sizes;
    const int64_t dim = random_.Below(sizes.size());
    if (Elements(sizes) * count > kMaxElements) return;
    if (sizes.size() < 3 && random_.Chance(0.5)) {
      sizes.insert(sizes.begin() + dim, count);
      Add(draft, Op::kStack, inputs, {dim}, {Like(sizes, info.dtype)}, bound);
    } else {
      sizes[dim] *= count;
      Add(draft, Op::kCat, inputs, {dim}, {Like(sizes, info.dtype)}, bound);
    }
  }

  void AddIndexSelect(Draft& draft) {
    const int a = PickFloat(draft, 1);
    const Info info = draft.values[a];
    const int64_t dim = random_.Below(info.sizes.size());
    const int indices = IndicesBelow(draft, info.sizes[dim]);
    Sizes sizes = info.sizes;
    sizes[dim] = draft.values[indices].sizes[0];
    if (Elements(sizes) > kMaxElements) return;
    Add(draft, Op::kIndexSelect, {a, indices}, {dim}, {Like(sizes, info.dtype)}, Bound(draft, a));
  }

  void AddEmbedding(Draft& draft) {
    const bool sparse = random_.Chance(0.7);
    auto fits = [&](const Info& info) {
      return info.IsFloat() && info.sizes.size() == 2 && (!sparse || info.table);
    };
    int table = Pick(draft, fits);
    if (table < 0 || (sparse && builder_.MemoryOf(draft, table).changes > 0)) {
      table = LeafLike(draft, {random_.Between(2, 4), random_.Between(1, 3)}, RandomDtype());
    }
    const Info info = draft.values[table];
    const int indices = IndicesBelow(draft, info.sizes[0]);
    if (draft.values[indices].sizes[0] * info.sizes[1] > kMaxElements) return;
    const Op op = sparse && info.table ? Op::kSparseEmbedding : Op::kEmbedding;
    Add(draft, op, {table, indices}, {}, {Like({draft.values[indices].sizes[0], info.sizes[1]}, info.dtype)},
        Bound(draft, table));
  }

  void AddInPlace(Draft& draft) {
    const int self = Pick(draft, [&](const Info& info) {
      return info.IsFloat() && info.sizes.size() > 0 && builder_.MayChangeInPlace(info);
    });
    if (self < 0) return;
    const Info info = draft.values[self];
    const double x = Bound(draft, self);
    const int other = Pick(draft, [&](const Info& candidate) {
      const auto sizes = Broadcast(candidate.sizes, info.sizes);
      return candidate.IsFloat() && candidate.memory != info.memory && sizes && *sizes == info.sizes;
    });
    const double y = other < 0 ? 0 : Bound(draft, other);
    switch (random_.Below(7)) {
      case 0: case 1:
        if (other >= 0 && x + y <= 16) Add(draft, Op::kAddInPlace, {self, other}, {}, {}, x + y);
        return;
      case 2:
        if (other >= 0 && x * y <= 16) Add(draft, Op::kMulInPlace, {self, other}, {}, {}, x * y);
        return;
      case 3:
        if (other >= 0) Add(draft, Op::kCopyInPlace, {self, other}, {}, {}, y);
        return;
      case 4: Add(draft, Op::kMulScalarInPlace, {self}, {}, {}, x, -0.75); return;
      case 5: Add(draft, Op::kTanhInPlace, {self}, {}, {}, 1); return;
      default:
        if (random_.Chance(0.3)) Add(draft, Op::kZeroInPlace, {self}, {}, {}, 0);
        return;
    }
  }

  void AddDetach(Draft& draft) {
    const int a = PickFloat(draft);
    Add(draft, Op::kDetach, {a}, {}, {Like(draft.values[a].sizes, draft.values[a].dtype)}, 1);
  }

  // ---- Calls -------------------------------------------------------------------------------------------------

  void AddMetric(Draft& draft) {
    Step step;
    step.op = Op::kMetric;
    for (int64_t count = random_.Between(1, 3); count > 0; --count) step.inputs.push_back(PickFloat(draft));
    step.worker = Worker();
    step.in_background = random_.Chance(0.3);
    Info info = Like({}, c10::kDouble);
    info.memory = builder_.NewMemory({});
    --budget_;
    builder_.AddCall(draft, step, {info});
  }

  void AddCall(Draft& draft) {
    if (draft.depth >= kMaxDepth || program_.functions.size() >= kMaxFunctions) return;
    Step step;
    step.op = Op::kCall;
    step.copy_arguments = random_.Chance(0.3);
    step.copy_results = random_.Chance(0.3);
    step.no_grad = random_.Chance(0.06);
    step.in_background = random_.Chance(0.3);
    step.fails_first = !step.in_background && random_.Chance(0.06);
    step.nested_list = random_.Chance(0.2);
    if (step.copy_results && random_.Chance(0.3)) step.hook = 2;

    // Own worker and the caller's caller included: calls back and to oneself.
    Draft callee = builder_.NewFunction(Worker(), draft.depth + 1);
    step.function = callee.function;
    for (int64_t count = draft.values.empty() ? 0 : random_.Below(5); count > 0; --count) {
      const int argument = Pick(draft, [](const Info&) { return true; });
      step.inputs.push_back(argument);
      Info info = draft.values[argument];
      if (step.copy_arguments) {
        Memory copy = builder_.MemoryOf(draft, argument);
        copy.frozen = false;
        info.view = false;
        info.memory = builder_.NewMemory(copy);
      } else {
        builder_.MemoryOf(draft, argument).frozen = true;
      }
      info.grad = info.grad && !step.no_grad;
      info.used = false;
      callee.values.push_back(std::move(info));
    }
    WriteBody(callee, static_cast<int>(step.inputs.size()));
    std::vector<Info> results;
    for (int result : FunctionOf(callee).results) {
      results.push_back(callee.values[result]);
      if (step.hook != 0) results.back().table = false;
    }
    --budget_;
    builder_.AddCall(draft, std::move(step), std::move(results));
  }

  void WriteBody(Draft& draft, int arguments) {
    {
      Function& function = program_.functions[draft.function];
      function.arguments = arguments;
      function.values = arguments;
      function.direct = random_.Chance(0.25);
    }
    for (int64_t steps = random_.Between(1, 8); steps > 0 && budget_ > 0; --steps) AddStep(draft);
    if (draft.values.empty()) NewLeaf(draft);
    std::vector<int> results;
    const bool all = random_.Chance(0.5);
    for (int64_t count = all ? 6 : random_.Between(1, 4); count > 0; --count) {
      auto open_end = [](const Info& info) { return info.grad && !info.used; };
      int result = all || random_.Chance(0.5) ? Pick(draft, open_end) : -1;
      if (all && result < 0 && !results.empty()) break;
      if (result < 0) result = Pick(draft, [](const Info&) { return true; });
      draft.values[result].used = true;
      results.push_back(result);
    }
    if (random_.Chance(0.05)) results.clear();
    program_.functions[draft.function].results = std::move(results);
  }

  void AddStep(Draft& draft) {
    const bool may_call = !FunctionOf(draft).direct;
    if (may_call && random_.Chance(call_share_)) return AddCall(draft);
    if (may_call && random_.Chance(0.03)) return AddMetric(draft);
    const int64_t kind = random_.Below(100);
    if (kind < 10) return AddSource(draft);
    if (kind < 30) return AddElementwise(draft);
    if (kind < 42) return AddUnary(draft);
    if (kind < 49) return AddMatmul(draft);
    if (kind < 56) return AddReduction(draft);
    if (kind < 69) return AddView(draft);
    if (kind < 75) return AddSplit(draft);
    if (kind < 80) return AddJoin(draft);
    if (kind < 83) return AddIndexSelect(draft);
    if (kind < 88) return AddEmbedding(draft);
    if (kind < 98) return AddInPlace(draft);
    return AddDetach(draft);
  }

  // ---- Roots -------------------------------------------------------------------------------------------------

  // A number that many values go into which nothing else has used; -1 when there are none.
  int AddLoss(Draft& draft) {
    std::vector<int> values;
    for (size_t i = 0; i < draft.values.size(); ++i) {
      if (draft.values[i].grad && !draft.values[i].used) values.push_back(static_cast<int>(i));
    }
    int loss = -1;
    for (const int value : values) {
      if (random_.Chance(0.2)) continue;
      std::vector<int64_t> ints(draft.values[value].sizes.size() + 1, 0);
      std::iota(ints.begin(), ints.end(), 0);
      ints.back() = 0;
      const int term = Add(draft, Op::kMean, {value}, ints, {Like({}, draft.values[value].dtype)}, Bound(draft, value));
      loss = loss < 0 ? term : Add(draft, Op::kAdd, {loss, term}, {}, {Like({}, Promoted(draft, loss, term))},
                                   Bound(draft, loss) + Bound(draft, term));
    }
    return loss;
  }

  void ChoosePasses(Draft& draft, int loss) {
    const int64_t passes = random_.Chance(0.75) ? 1 : random_.Between(2, 3);
    for (int64_t p = 0; p < passes; ++p) {
      PassPlan pass;
      for (int64_t count = random_.Chance(0.5) ? 1 : random_.Between(1, 4); count > 0; --count) {
        Root root;
        root.value = random_.Chance(0.9) ? Pick(draft, [](const Info& info) { return info.grad; }) : PickFloat(draft);
        if (root.value < 0) root.value = PickFloat(draft);
        if (loss >= 0 && random_.Chance(0.5)) root.value = loss;
        root.seeded = Elements(draft.values[root.value].sizes) != 1 || random_.Chance(0.3);
        pass.roots.push_back(root);
      }
      program_.passes.push_back(std::move(pass));
    }
  }

  Random random_;
  Builder builder_;
  Program& program_;
  int budget_ = 0;
  double call_share_ = 0.2;
};

}  // namespace

Program Generate(uint64_t seed) { return Generator(seed).Run(); }

}  // namespace gradferry::property
