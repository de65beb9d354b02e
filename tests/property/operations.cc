// See operations.h.
#include "tests/property/operations.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/chunk.h>
#include <ATen/ops/cumsum.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/flip.h>
#include <ATen/ops/full.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/max.h>
#include <ATen/ops/mean.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/narrow.h>
#include <ATen/ops/neg.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/reshape.h>
#include <ATen/ops/select.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/sin.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/square.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sub.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/tanh.h>
#include <ATen/ops/transpose.h>
#include <ATen/ops/unbind.h>
#include <ATen/ops/unsqueeze.h>
#include <ATen/ops/where.h>
#include <torch/csrc/autograd/custom_function.h>

#include <stdexcept>

#include "tests/property/random.h"

namespace gradferry::property {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

enum Purpose : uint64_t { kLeafData = 1, kConstantData, kIndexData, kMaskData, kSeedData };

class CustomPair : public torch::autograd::Function<CustomPair> {
 public:
  static variable_list forward(AutogradContext* context, const Tensor& x, const Tensor& y) {
    context->save_for_backward({x, y});
    return {x * y, x - y};
  }
  // Zeros have been made of undefined gradients.
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const auto saved = context->get_saved_variables();
    return {gradients[0] * saved[1] + gradients[1], gradients[0] * saved[0] - gradients[1]};
  }
};

class CustomHalf : public torch::autograd::Function<CustomHalf> {
 public:
  static Tensor forward(AutogradContext*, const Tensor& x, const Tensor& y) { return x + y * 2; }
  static variable_list backward(AutogradContext*, variable_list gradients) { return {gradients[0], Tensor()}; }
};

// The dimensions of a reduction; the last number is keepdim.
std::vector<int64_t> Dimensions(const Step& step) { return {step.ints.begin(), step.ints.end() - 1}; }

template <class T>
Tensor Filled(Random random, c10::ScalarType dtype, const std::vector<int64_t>& sizes, T draw) {
  Tensor tensor = at::empty(sizes, at::TensorOptions(at::kDouble));
  auto* data = tensor.data_ptr<double>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = draw(random);
  return tensor.to(dtype);
}

}  // namespace

Tensor RandomTensor(uint64_t seed, uint64_t purpose, uint64_t index, c10::ScalarType dtype,
                    const std::vector<int64_t>& sizes) {
  // Multiples of 2^-20 are exact in float32 too, so that both dtypes begin with the same numbers.
  return Filled(Random(seed, purpose, index), dtype, sizes,
                [](Random& random) { return static_cast<double>(random.Between(-(1 << 20), 1 << 20)) / (1 << 20); });
}

Tensor MakeLeaf(const Program& program, int index) {
  const Leaf& leaf = program.leaves[index];
  return RandomTensor(program.seed, kLeafData, index, leaf.dtype, leaf.sizes).set_requires_grad(leaf.requires_grad);
}

Tensor MakeSeed(const Program& program, int pass, int root, const Tensor& like) {
  return RandomTensor(program.seed, kSeedData, pass * 1000 + root, like.scalar_type(), like.sizes().vec());
}

int64_t Metric(const std::vector<Tensor>& arguments) {
  int64_t metric = 1;
  for (const Tensor& argument : arguments) metric += argument.numel();
  return metric;
}

Tensor MetricTensor(int64_t metric) { return at::full({}, 1.0 / static_cast<double>(metric), at::kDouble); }

std::vector<Tensor> Apply(const Program& program, const Step& step, const std::vector<Tensor>& in) {
  const auto& ints = step.ints;
  switch (step.op) {
    case Op::kConstant:
      return {RandomTensor(program.seed, kConstantData, step.number, at::kDouble, ints)};
    case Op::kIndices:
      return {Filled(Random(program.seed, kIndexData, step.number), at::kLong, {ints[0]},
                     [&](Random& random) { return static_cast<double>(random.Below(ints[1])); })};
    case Op::kMask:
      return {Filled(Random(program.seed, kMaskData, step.number), at::kBool, ints,
                     [](Random& random) { return static_cast<double>(random.Below(2)); })};
    case Op::kAdd:
      return {at::add(in[0], in[1])};
    case Op::kSub:
      return {at::sub(in[0], in[1])};
    case Op::kMul:
      return {at::mul(in[0], in[1])};
    case Op::kWhere:
      return {at::where(in[0], in[1], in[2])};
    case Op::kAddScalar:
      return {at::add(in[0], step.scalar)};
    case Op::kMulScalar:
      return {at::mul(in[0], step.scalar)};
    case Op::kNeg:
      return {at::neg(in[0])};
    case Op::kSquare:
      return {at::square(in[0])};
    case Op::kRelu:
      return {at::relu(in[0])};
    case Op::kTanh:
      return {at::tanh(in[0])};
    case Op::kSigmoid:
      return {at::sigmoid(in[0])};
    case Op::kExp:
      return {at::exp(in[0])};
    case Op::kSin:
      return {at::sin(in[0])};
    case Op::kMatmul:
      return {at::matmul(in[0], in[1])};
    case Op::kSum:
      return {at::sum(in[0], Dimensions(step), ints.back() != 0)};
    case Op::kMean:
      return {at::mean(in[0], Dimensions(step), ints.back() != 0)};
    case Op::kSoftmax:
      return {at::softmax(in[0], ints[0])};
    case Op::kLogSumExp:
      return {at::logsumexp(in[0], Dimensions(step), ints.back() != 0)};
    case Op::kCumSum:
      return {at::cumsum(in[0], ints[0])};
    case Op::kMax: {
      auto [values, indices] = at::max(in[0], ints[0], /*keepdim=*/false);
      return {values, indices};
    }
    case Op::kTranspose:
      return {at::transpose(in[0], ints[0], ints[1])};
    case Op::kNarrow:
      return {at::narrow(in[0], ints[0], ints[1], ints[2])};
    case Op::kSelect:
      return {at::select(in[0], ints[0], ints[1])};
    case Op::kReshape:
      return {at::reshape(in[0], ints)};
    case Op::kExpand:
      return {in[0].expand(ints)};
    case Op::kUnsqueeze:
      return {at::unsqueeze(in[0], ints[0])};
    case Op::kChunk:
      return at::chunk(in[0], ints[0], ints[1]);
    case Op::kUnbind:
      return at::unbind(in[0], ints[0]);
    case Op::kDetach:
      return {in[0].detach()};
    case Op::kCat:
      return {at::cat(in, ints[0])};
    case Op::kStack:
      return {at::stack(in, ints[0])};
    case Op::kFlip:
      return {at::flip(in[0], ints[0])};
    case Op::kClone:
      return {in[0].clone()};
    case Op::kToFloat:
      return {in[0].to(at::kFloat)};
    case Op::kToDouble:
      return {in[0].to(at::kDouble)};
    case Op::kIndexSelect:
      return {at::index_select(in[0], ints[0], in[1])};
    case Op::kEmbedding:
      return {at::embedding(in[0], in[1])};
    case Op::kSparseEmbedding:
      return {at::embedding(in[0], in[1], /*padding_idx=*/-1, false, /*sparse=*/true)};
    case Op::kCustomPair:
      return CustomPair::apply(in[0], in[1]);
    case Op::kCustomHalf:
      return {CustomHalf::apply(in[0], in[1])};
    case Op::kAddInPlace:
      in[0].add_(in[1]);
      return {};
    case Op::kMulInPlace:
      in[0].mul_(in[1]);
      return {};
    case Op::kMulScalarInPlace:
      in[0].mul_(step.scalar);
      return {};
    case Op::kTanhInPlace:
      in[0].tanh_();
      return {};
    case Op::kCopyInPlace:
      in[0].copy_(in[1]);
      return {};
    case Op::kZeroInPlace:
      in[0].zero_();
      return {};
    case Op::kLeaf:
    case Op::kCall:
    case Op::kMetric:
      break;
  }
  throw std::logic_error("Apply was asked for a leaf or a call");
}

namespace {

ValueList List(const std::vector<int64_t>& ints) { return ValueList(ints.begin(), ints.end()); }
ValueList List(const std::vector<Tensor>& tensors) { return ValueList(tensors.begin(), tensors.end()); }
int64_t Number(c10::ScalarType dtype) { return static_cast<int64_t>(dtype); }

}  // namespace

bool HasOperator(Op op) {
  switch (op) {
    case Op::kLeaf:
    case Op::kConstant:
    case Op::kIndices:
    case Op::kMask:
    case Op::kCustomPair:
    case Op::kCustomHalf:
    case Op::kAddInPlace:
    case Op::kMulInPlace:
    case Op::kMulScalarInPlace:
    case Op::kTanhInPlace:
    case Op::kCopyInPlace:
    case Op::kZeroInPlace:
    case Op::kCall:
    case Op::kMetric:
      return false;
    default:
      return true;
  }
}

OperatorCall MakeOperatorCall(const Step& step, const std::vector<Tensor>& in) {
  const auto& ints = step.ints;
  auto keep = [&] { return ints.back() != 0; };
  switch (step.op) {
    case Op::kAdd:
      return {"aten::add", "Tensor", {in[0], in[1]}};
    case Op::kSub:
      return {"aten::sub", "Tensor", {in[0], in[1]}};
    case Op::kMul:
      return {"aten::mul", "Tensor", {in[0], in[1]}};
    case Op::kWhere:
      return {"aten::where", "self", {in[0], in[1], in[2]}};
    case Op::kAddScalar:
      return {"aten::add", "Scalar", {in[0], step.scalar, int64_t{1}}};
    case Op::kMulScalar:
      return {"aten::mul", "Scalar", {in[0], step.scalar}};
    case Op::kNeg:
      return {"aten::neg", "", {in[0]}};
    case Op::kSquare:
      return {"aten::square", "", {in[0]}};
    case Op::kRelu:
      return {"aten::relu", "", {in[0]}};
    case Op::kTanh:
      return {"aten::tanh", "", {in[0]}};
    case Op::kSigmoid:
      return {"aten::sigmoid", "", {in[0]}};
    case Op::kExp:
      return {"aten::exp", "", {in[0]}};
    case Op::kSin:
      return {"aten::sin", "", {in[0]}};
    case Op::kMatmul:
      return {"aten::matmul", "", {in[0], in[1]}};
    case Op::kSum:
      return {"aten::sum", "dim_IntList", {in[0], List(Dimensions(step)), keep()}};
    case Op::kMean:
      return {"aten::mean", "dim", {in[0], List(Dimensions(step)), keep()}};
    case Op::kSoftmax:
      return {"aten::softmax", "int", {in[0], ints[0]}};
    case Op::kLogSumExp:
      return {"aten::logsumexp", "", {in[0], List(Dimensions(step)), keep()}};
    case Op::kCumSum:
      return {"aten::cumsum", "", {in[0], ints[0], None{}}};
    case Op::kMax:
      return {"aten::max", "dim", {in[0], ints[0]}};
    case Op::kTranspose:
      return {"aten::transpose", "int", {in[0], ints[0], ints[1]}};
    case Op::kNarrow:
      return {"aten::narrow", "", {in[0], ints[0], ints[1], ints[2]}};
    case Op::kSelect:
      return {"aten::select", "int", {in[0], ints[0], ints[1]}};
    case Op::kReshape:
      return {"aten::reshape", "", {in[0], List(ints)}};
    case Op::kExpand:
      return {"aten::expand", "", {in[0], List(ints), false}};
    case Op::kUnsqueeze:
      return {"aten::unsqueeze", "", {in[0], ints[0]}};
    case Op::kChunk:
      return {"aten::chunk", "", {in[0], ints[0], ints[1]}};
    case Op::kUnbind:
      return {"aten::unbind", "int", {in[0], ints[0]}};
    case Op::kDetach:
      return {"aten::detach", "", {in[0]}};
    case Op::kCat:
      return {"aten::cat", "", {List(in), ints[0]}};
    case Op::kStack:
      return {"aten::stack", "", {List(in), ints[0]}};
    case Op::kFlip:
      return {"aten::flip", "", {in[0], List(std::vector<int64_t>{ints[0]})}};
    case Op::kClone:
      return {"aten::clone", "", {in[0]}};
    case Op::kToFloat:
      return {"aten::to", "dtype", {in[0], Number(at::kFloat), false, false, None{}}};
    case Op::kToDouble:
      return {"aten::to", "dtype", {in[0], Number(at::kDouble)}};
    case Op::kIndexSelect:
      return {"aten::index_select", "", {in[0], ints[0], in[1]}};
    case Op::kEmbedding:
      return {"aten::embedding", "", {in[0], in[1]}};
    case Op::kSparseEmbedding:
      return {"aten::embedding", "", {in[0], in[1], int64_t{-1}, false, true}};
    default:
      throw std::logic_error("this operation has no operator call");
  }
}

}  // namespace gradferry::property
