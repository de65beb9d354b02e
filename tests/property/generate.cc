// See generate.h.
#include "tests/property/generate.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "tests/property/operation_writer.h"

namespace gradferry::property {
namespace {

constexpr int kMaxDepth = 5;
constexpr size_t kMaxFunctions = 14;

class Generator : private OperationWriter {
 public:
  explicit Generator(uint64_t seed) : OperationWriter(seed) {}

  Program Run() {
    const double size = random_.Unit();
    budget_ = static_cast<int>(size < 0.3   ? random_.Between(3, 12)
                               : size < 0.8 ? random_.Between(10, 35)
                                            : random_.Between(30, 90));
    call_share_ = random_.Chance(0.2) ? 0.5 : 0.2;
    Draft main = builder_.NewFunction(Worker(), 0);
    NewLeaf(main);
    while (budget_ > 0) AddStep(main);
    const int loss = random_.Chance(0.7) ? AddLoss(main) : -1;
    for (Leaf& leaf : program_.leaves) {
      if (leaf.requires_grad && random_.Chance(0.05)) {
        leaf.hook = -0.5;
        program_.has_leaf_hooks = true;
      }
    }
    ChooseReentries();
    ChoosePasses(main, loss);
    return std::move(program_);
  }

 private:
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
    AddOperation(draft);
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
      loss = loss < 0 ? term
                      : Add(draft, Op::kAdd, {loss, term}, {}, {Like({}, Promoted(draft, loss, term))},
                            Bound(draft, loss) + Bound(draft, term));
    }
    return loss;
  }

  void ChooseReentries() {
    for (Function& function : program_.functions) {
      for (Step& step : function.steps) {
        if (step.hook == 0 || !random_.Chance(0.15)) continue;
        for (size_t leaf = 0; leaf < program_.leaves.size(); ++leaf) {
          const bool here = program_.leaves[leaf].worker == function.worker && program_.leaves[leaf].requires_grad;
          if (here && random_.Chance(0.5)) step.reenters = static_cast<int>(leaf);
        }
      }
    }
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
      // With leaf hooks the reference must use backward(), which for chosen inputs computes more than those where views
      // were changed in place (libtorch 1.13).
      if (!program_.has_leaf_hooks && random_.Chance(0.3)) {
        for (size_t leaf = 0; leaf < program_.leaves.size(); ++leaf) {
          const bool here = program_.leaves[leaf].worker == program_.functions[0].worker;
          if (here && program_.leaves[leaf].requires_grad && random_.Chance(0.5)) {
            pass.inputs.push_back(static_cast<int>(leaf));
          }
        }
      }
      program_.passes.push_back(std::move(pass));
    }
  }

  double call_share_ = 0.2;
};

}  // namespace

Program Generate(uint64_t seed) { return Generator(seed).Run(); }

}  // namespace gradferry::property
