// The uncut run of a program: one thread, plain libtorch, torch::autograd::grad.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "tests/property/interpreter.h"
#include "tests/property/program.h"

namespace gradferry::property {

// What a run of a program comes to.
struct Outcome {
  std::vector<at::Tensor> roots;      // the values of all roots, pass after pass, detached
  std::vector<at::Tensor> gradients;  // by leaf, summed over the passes; undefined where there is none
  Observations observations;
};

// The roots of a pass that require grad: the others cannot be roots, in either run.
std::vector<Root> UsableRoots(const PassPlan& pass, const std::vector<at::Tensor>& values);

Outcome RunUncut(const Program& program);

}  // namespace gradferry::property
