// See program.h.
#include "tests/property/program.h"

#include <sstream>

namespace gradferry::property {
namespace {

void DescribeSizes(std::ostream& out, const std::vector<int64_t>& sizes) {
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << ']';
}

void DescribeValues(std::ostream& out, const std::vector<int>& values) {
  for (size_t i = 0; i < values.size(); ++i) out << (i ? ", v" : "v") << values[i];
}

void DescribeStep(std::ostream& out, const Step& step) {
  out << "  ";
  DescribeValues(out, step.outputs);
  if (!step.outputs.empty()) out << " = ";
  if (step.op == Op::kCall) {
    out << "call f" << step.function;
  } else {
    out << OpName(step.op);
  }
  out << '(';
  DescribeValues(out, step.inputs);
  out << ')';
  if (!step.ints.empty()) {
    out << ' ';
    DescribeSizes(out, step.ints);
  }
  if (step.scalar != 0) out << " scalar " << step.scalar;
  if (step.worker >= 0) out << " on worker " << step.worker;
  if (step.copy_arguments) out << ", copies arguments";
  if (step.copy_results) out << ", copies results";
  if (step.no_grad) out << ", no grad";
  if (step.in_background) out << ", in the background";
  if (step.fails_first) out << ", fails first";
  if (step.nested_list) out << ", nested list";
  if (step.hook != 0) out << ", hook * " << step.hook;
  if (step.reenters >= 0) out << " and a pass over leaf " << step.reenters;
  if (step.retain_grad) out << ", retain grad";
  out << "  # " << step.number << '\n';
}

}  // namespace

const char* OpName(Op op) {
  switch (op) {
    case Op::kLeaf:
      return "leaf";
    case Op::kConstant:
      return "constant";
    case Op::kIndices:
      return "indices";
    case Op::kMask:
      return "mask";
    case Op::kAdd:
      return "add";
    case Op::kSub:
      return "sub";
    case Op::kMul:
      return "mul";
    case Op::kWhere:
      return "where";
    case Op::kAddScalar:
      return "add_scalar";
    case Op::kMulScalar:
      return "mul_scalar";
    case Op::kNeg:
      return "neg";
    case Op::kSquare:
      return "square";
    case Op::kRelu:
      return "relu";
    case Op::kTanh:
      return "tanh";
    case Op::kSigmoid:
      return "sigmoid";
    case Op::kExp:
      return "exp";
    case Op::kSin:
      return "sin";
    case Op::kMatmul:
      return "matmul";
    case Op::kSum:
      return "sum";
    case Op::kMean:
      return "mean";
    case Op::kSoftmax:
      return "softmax";
    case Op::kLogSumExp:
      return "logsumexp";
    case Op::kCumSum:
      return "cumsum";
    case Op::kMax:
      return "max";
    case Op::kTranspose:
      return "transpose";
    case Op::kNarrow:
      return "narrow";
    case Op::kSelect:
      return "select";
    case Op::kReshape:
      return "reshape";
    case Op::kExpand:
      return "expand";
    case Op::kUnsqueeze:
      return "unsqueeze";
    case Op::kChunk:
      return "chunk";
    case Op::kUnbind:
      return "unbind";
    case Op::kDetach:
      return "detach";
    case Op::kCat:
      return "cat";
    case Op::kStack:
      return "stack";
    case Op::kFlip:
      return "flip";
    case Op::kClone:
      return "clone";
    case Op::kToFloat:
      return "to_float";
    case Op::kToDouble:
      return "to_double";
    case Op::kIndexSelect:
      return "index_select";
    case Op::kEmbedding:
      return "embedding";
    case Op::kSparseEmbedding:
      return "sparse_embedding";
    case Op::kCustomPair:
      return "custom_pair";
    case Op::kCustomHalf:
      return "custom_half";
    case Op::kAddInPlace:
      return "add_";
    case Op::kMulInPlace:
      return "mul_";
    case Op::kMulScalarInPlace:
      return "mul_scalar_";
    case Op::kTanhInPlace:
      return "tanh_";
    case Op::kCopyInPlace:
      return "copy_";
    case Op::kZeroInPlace:
      return "zero_";
    case Op::kCall:
      return "call";
    case Op::kMetric:
      return "metric";
  }
  return "?";
}

std::string Describe(const Program& program) {
  std::ostringstream out;
  out << "program of seed " << program.seed << " on " << program.workers << " workers\n";
  for (size_t i = 0; i < program.leaves.size(); ++i) {
    const Leaf& leaf = program.leaves[i];
    out << "leaf " << i << " of worker " << leaf.worker << ": " << c10::toString(leaf.dtype);
    DescribeSizes(out, leaf.sizes);
    if (!leaf.requires_grad) out << ", does not require grad";
    if (leaf.hook != 0) out << ", hook * " << leaf.hook;
    out << '\n';
  }
  for (size_t i = 0; i < program.functions.size(); ++i) {
    const Function& function = program.functions[i];
    out << "f" << i << " on worker " << function.worker << (function.direct ? " (on its pool)" : "") << ", "
        << function.arguments << " arguments:\n";
    for (const Step& step : function.steps) DescribeStep(out, step);
    out << "  return ";
    DescribeValues(out, function.results);
    out << '\n';
  }
  for (const PassPlan& pass : program.passes) {
    out << "backward from";
    for (const Root& root : pass.roots) out << " v" << root.value << (root.seeded ? " (seeded)" : "");
    for (size_t i = 0; i < pass.inputs.size(); ++i) out << (i == 0 ? " for leaf " : ", ") << pass.inputs[i];
    out << '\n';
  }
  return out.str();
}

}  // namespace gradferry::property
