// See builder.h.
#include "tests/property/builder.h"

#include <algorithm>
#include <stdexcept>
#include <utility>

#include "tests/property/operations.h"

namespace gradferry::property {
namespace {

constexpr double kMaxBound = 16;

bool IsView(Op op) {
  switch (op) {
    case Op::kTranspose:
    case Op::kNarrow:
    case Op::kSelect:
    case Op::kReshape:  // or a copy, depending on strides
    case Op::kExpand:
    case Op::kUnsqueeze:
    case Op::kChunk:
    case Op::kUnbind:
    case Op::kDetach:
      return true;
    default:
      return false;
  }
}

// Views after which libtorch refuses changes in place, or both runs need not agree on what shares memory.
bool FreezesMemory(Op op) {
  return op == Op::kReshape || op == Op::kExpand || op == Op::kChunk || op == Op::kUnbind || op == Op::kDetach;
}

bool InPlace(Op op) {
  switch (op) {
    case Op::kAddInPlace:
    case Op::kMulInPlace:
    case Op::kMulScalarInPlace:
    case Op::kTanhInPlace:
    case Op::kCopyInPlace:
    case Op::kZeroInPlace:
      return true;
    default:
      return false;
  }
}

// Operations whose backward needs neither their inputs nor their outputs.
bool SavesNothing(Op op) {
  switch (op) {
    case Op::kConstant:
    case Op::kAdd:
    case Op::kSub:
    case Op::kAddScalar:
    case Op::kMulScalar:
    case Op::kNeg:
    case Op::kSum:
    case Op::kCat:
    case Op::kStack:
    case Op::kFlip:
    case Op::kClone:
    case Op::kToFloat:
    case Op::kToDouble:
    case Op::kCustomHalf:
    case Op::kAddInPlace:
    case Op::kMulScalarInPlace:
    case Op::kCopyInPlace:
    case Op::kZeroInPlace:
      return true;
    default:
      return false;
  }
}

// The memory that must stay as it is after a step in place.
bool SavesOther(Op op) { return op == Op::kMulInPlace; }
bool SavesSelf(Op op) { return op == Op::kTanhInPlace; }

bool MayCarryHooks(const Step& step, const std::vector<Info>& outputs) {
  // The uncut run shows the hook what the cut run shows it only if the tensor is the step's own in both.
  const bool own = step.op != Op::kLeaf && (step.worker < 0 || step.copy_results);
  // libtorch fails when it shows a hook an undefined gradient, as it does for unused outputs of one node.
  const bool one_node = step.worker < 0 && outputs.size() > 1;
  return own && !one_node && !outputs.empty() && outputs[0].IsFloat();
}

}  // namespace

int64_t Elements(const Sizes& sizes) {
  int64_t elements = 1;
  for (int64_t size : sizes) elements *= size;
  return elements;
}

std::optional<Sizes> Broadcast(const Sizes& a, const Sizes& b) {
  Sizes result(std::max(a.size(), b.size()));
  for (size_t i = 0; i < result.size(); ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    if (x != y && x != 1 && y != 1) return std::nullopt;
    result[result.size() - 1 - i] = std::max(x, y);
  }
  if (Elements(result) > kMaxElements) return std::nullopt;
  return result;
}

Builder::Builder(uint64_t seed, int workers) {
  program_.seed = seed;
  program_.workers = workers;
}

int Builder::NewMemory(Memory memory) {
  memories_.push_back(memory);
  return static_cast<int>(memories_.size()) - 1;
}

bool Builder::MayChangeInPlace(const Info& info) const {
  const Memory& memory = memories_[info.memory];
  // libtorch refuses to change a view that did not require grad when it was made, if its base does so since.
  const bool stale = info.view && info.changes != memory.changes;
  return !memory.frozen && !memory.expanded && !stale;
}

Draft Builder::NewFunction(int worker, int depth) {
  Draft draft;
  draft.function = static_cast<int>(program_.functions.size());
  draft.depth = depth;
  program_.functions.emplace_back();
  program_.functions.back().worker = worker;
  return draft;
}

void Builder::Emit(Draft& draft, Step& step, std::vector<Info> outputs) {
  step.number = program_.steps++;
  bool grad = step.op == Op::kLeaf && program_.leaves[step.ints[0]].requires_grad;
  for (int input : step.inputs) {
    if (input < 0) throw std::logic_error("the generator used a value that is not there");
    draft.values[input].used = true;
    grad = grad || draft.values[input].grad;
  }
  if (step.op == Op::kDetach || step.no_grad) grad = false;
  if (InPlace(step.op)) draft.values[step.inputs[0]].grad = grad;
  for (Info& output : outputs) {
    if (Elements(output.sizes) > kMaxElements) throw std::logic_error("the generator made too large a tensor");
    if (output.dtype == c10::kFloat) program_.has_float32 = true;
    if (step.op != Op::kCall) output.grad = grad && output.IsFloat();
    output.used = false;
    step.outputs.push_back(static_cast<int>(draft.values.size()));
    draft.values.push_back(std::move(output));
  }
  Function& function = program_.functions[draft.function];
  function.values = static_cast<int>(draft.values.size());
  function.steps.push_back(step);
}

void Builder::MakeLocalMemory(Draft& draft, const Step& step, std::vector<Info>& outputs, double bound) {
  if (InPlace(step.op)) {
    Memory& self = MemoryOf(draft, step.inputs[0]);
    self.bound = std::max(self.bound, bound);
    draft.values[step.inputs[0]].changes = ++self.changes;
    self.frozen = SavesSelf(step.op);
    if (SavesOther(step.op)) MemoryOf(draft, step.inputs[1]).frozen = true;
    return;
  }
  if (IsView(step.op)) {
    Memory& base = MemoryOf(draft, step.inputs[0]);
    base.frozen = base.frozen || FreezesMemory(step.op);
    base.expanded = base.expanded || step.op == Op::kExpand;
    for (Info& output : outputs) {
      output.memory = draft.values[step.inputs[0]].memory;
      output.view = true;
      output.changes = base.changes;
    }
    return;
  }
  const bool saves = !SavesNothing(step.op);
  if (saves) {
    for (int input : step.inputs) MemoryOf(draft, input).frozen = true;
  }
  for (Info& output : outputs) {
    Memory memory;
    memory.bound = bound;
    memory.frozen = saves || step.op == Op::kLeaf;
    output.memory = NewMemory(memory);
  }
}

void Builder::MakeRemoteMemory(Draft& draft, const Step& step, std::vector<Info>& outputs, double bound) {
  bool expanded = step.op == Op::kExpand;
  for (int input : step.inputs) {
    Memory& memory = MemoryOf(draft, input);
    if (!step.copy_arguments) memory.frozen = true;
    if (IsView(step.op) && memory.expanded) expanded = true;
  }
  for (Info& output : outputs) {
    Memory memory;
    memory.bound = bound;
    memory.expanded = expanded;
    memory.frozen = !step.copy_results;
    output.memory = NewMemory(memory);
  }
}

int Builder::Add(Draft& draft, Step step, std::vector<Info> outputs, double bound, Random& random) {
  if (IsView(step.op)) bound = MemoryOf(draft, step.inputs[0]).bound;
  const bool may_call = !program_.functions[draft.function].direct;
  if (may_call && HasOperator(step.op) && random.Chance(0.15)) {
    step.worker = static_cast<int>(random.Below(program_.workers));
    step.copy_arguments = random.Chance(0.3);
    step.copy_results = random.Chance(0.3);
    step.no_grad = random.Chance(0.05);
    step.in_background = random.Chance(0.3);
    MakeRemoteMemory(draft, step, outputs, bound);
  } else {
    MakeLocalMemory(draft, step, outputs, bound);
  }
  if (MayCarryHooks(step, outputs)) {
    if (random.Chance(0.12)) step.hook = random.Chance(0.5) ? 0.5 : -1.5;
    if (random.Chance(0.05)) step.retain_grad = true;
  }
  Emit(draft, step, outputs);
  if (step.outputs.empty()) return -1;
  const int first = step.outputs[0];
  const Info info = draft.values[first];
  const double actual = MemoryOf(draft, first).bound;
  if (!info.IsFloat() || actual <= kMaxBound) return first;
  Step scale;
  scale.op = Op::kMulScalar;
  scale.inputs = {first};
  scale.scalar = 4 / actual;
  Info scaled;
  scaled.sizes = info.sizes;
  scaled.dtype = info.dtype;
  return Add(draft, scale, {scaled}, 4, random);
}

void Builder::AddCall(Draft& draft, Step step, std::vector<Info> outputs) {
  if (!step.copy_arguments) {
    for (int input : step.inputs) MemoryOf(draft, input).frozen = true;
  }
  for (Info& output : outputs) {
    Memory memory;
    memory.bound = memories_[output.memory].bound;
    memory.expanded = memories_[output.memory].expanded;
    memory.changes = memories_[output.memory].changes;
    memory.frozen = !step.copy_results;
    output.memory = NewMemory(memory);
    output.grad = output.grad && !step.no_grad;
    output.view = false;
  }
  Emit(draft, step, std::move(outputs));
}

}  // namespace gradferry::property
