// What each operation of a program does: on the spot with libtorch's own functions, and as the operator call that asks
// another worker for the same. Both runs of a program use Apply, so that they differ only in what is cut.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "impl/tensor/value.h"
#include "tests/property/program.h"

namespace gradferry::property {

// Elements from the seed, within -1 and 1.
at::Tensor RandomTensor(uint64_t seed, uint64_t purpose, uint64_t index, c10::ScalarType dtype,
                        const std::vector<int64_t>& sizes);

// Leaf `index` of a program: the same elements each time, a new tensor.
at::Tensor MakeLeaf(const Program& program, int index);
// The seed gradient of a root.
at::Tensor MakeSeed(const Program& program, int pass, int root, const at::Tensor& like);

// Runs a step that is neither a leaf nor a call. Results in the order of its outputs; none for operations in place.
std::vector<at::Tensor> Apply(const Program& program, const Step& step, const std::vector<at::Tensor>& inputs);

struct OperatorCall {
  std::string name;
  std::string overload;
  ValueList arguments;
};

// The operator call that does the same. Only for operations for which HasOperator.
bool HasOperator(Op op);
OperatorCall MakeOperatorCall(const Step& step, const std::vector<at::Tensor>& inputs);

// What the handler of kMetric answers.
int64_t Metric(const std::vector<at::Tensor>& arguments);
// What the caller makes of it.
at::Tensor MetricTensor(int64_t metric);

}  // namespace gradferry::property
