// See reference.h.
#include "tests/property/reference.h"

#include <ATen/ops/add.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <utility>

#include "tests/property/operations.h"

namespace gradferry::property {

using at::Tensor;

namespace {

class Ready : public Pending {
 public:
  explicit Ready(std::vector<Tensor> results) : results_(std::move(results)) {}
  std::vector<Tensor> Wait() override { return std::move(results_); }

 private:
  std::vector<Tensor> results_;
};

std::vector<Tensor> Cloned(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> copies;
  for (const Tensor& tensor : tensors) copies.push_back(tensor.clone());
  return copies;
}

std::vector<Tensor> Detached(const std::vector<Tensor>& tensors) {
  std::vector<Tensor> detached;
  for (const Tensor& tensor : tensors) detached.push_back(tensor.detach());
  return detached;
}

class Uncut : public Environment {
 public:
  Uncut(const Program& program, std::vector<Tensor> leaves, Observations& observations)
      : program_(program), leaves_(std::move(leaves)), observations_(observations) {}

  Tensor Leaf(int index) override { return leaves_[index]; }

  std::unique_ptr<Pending> Call(const Step& step, std::vector<Tensor> arguments) override {
    if (step.op == Op::kMetric) {
      return std::make_unique<Ready>(std::vector<Tensor>{MetricTensor(Metric(arguments))});
    }
    if (step.no_grad || !c10::GradMode::is_enabled()) arguments = Detached(arguments);
    if (step.copy_arguments) arguments = Cloned(arguments);
    std::vector<Tensor> results;
    {
      c10::AutoGradMode mode(c10::GradMode::is_enabled() && !step.no_grad);
      results = step.op == Op::kCall ? RunFunction(program_, step.function, std::move(arguments), *this, observations_)
                                     : Apply(program_, step, arguments);
      if (!c10::GradMode::is_enabled()) results = Detached(results);  // a leaf, for one, requires grad nonetheless
    }
    if (step.copy_results) results = Cloned(results);
    return std::make_unique<Ready>(std::move(results));
  }

 private:
  const Program& program_;
  const std::vector<Tensor> leaves_;
  Observations& observations_;
};

void Accumulate(Tensor& sum, const Tensor& gradient) {
  if (!gradient.defined()) return;
  if (!sum.defined()) {
    sum = gradient.clone();
  } else {
    // libtorch adds sparse to dense, not the other way round.
    sum = sum.is_sparse() ? at::add(gradient, sum) : at::add(sum, gradient);
  }
}

}  // namespace

std::vector<Root> UsableRoots(const PassPlan& pass, const std::vector<Tensor>& values) {
  std::vector<Root> usable;
  for (const Root& root : pass.roots) {
    if (values[root.value].requires_grad()) usable.push_back(root);
  }
  return usable;
}

Outcome RunUncut(const Program& program) {
  Outcome outcome;
  std::vector<Tensor> leaves;
  for (size_t i = 0; i < program.leaves.size(); ++i) {
    leaves.push_back(MakeLeaf(program, static_cast<int>(i)));
    if (program.leaves[i].hook != 0) {
      outcome.observations.AddHook(leaves[i], LeafHook(static_cast<int>(i)), 0, program.leaves[i].hook);
    }
  }
  std::vector<Tensor> sums(leaves.size());
  outcome.observations.OnReenter([&](int leaf) {
    c10::AutoGradMode recording(true);
    const Tensor root = leaves[leaf].mul(leaves[leaf]).sum();
    if (program.has_leaf_hooks) return torch::autograd::backward({root});
    Accumulate(sums[leaf], torch::autograd::grad({root}, {leaves[leaf]})[0]);
  });
  Uncut environment(program, leaves, outcome.observations);
  const Frame frame = RunFrame(program, 0, {}, environment, outcome.observations);

  for (size_t p = 0; p < program.passes.size(); ++p) {
    const auto usable = UsableRoots(program.passes[p], frame.values);
    if (usable.empty()) continue;
    std::vector<Tensor> roots, seeds;
    for (size_t r = 0; r < usable.size(); ++r) {
      roots.push_back(frame.values[usable[r].value]);
      seeds.push_back(usable[r].seeded ? MakeSeed(program, static_cast<int>(p), static_cast<int>(r), roots[r])
                                       : Tensor());
      outcome.roots.push_back(roots[r].detach());
    }
    const bool retain = p + 1 < program.passes.size();
    if (program.has_leaf_hooks) {
      // grad() takes a leaf's gradient before its hooks; only backward() runs them.
      torch::autograd::backward(roots, seeds, retain);
      continue;
    }
    std::vector<int> wanted = program.passes[p].inputs;  // leaves
    for (size_t leaf = 0; program.passes[p].inputs.empty() && leaf < leaves.size(); ++leaf) {
      if (leaves[leaf].requires_grad()) wanted.push_back(static_cast<int>(leaf));
    }
    std::vector<Tensor> inputs;
    for (const int leaf : wanted) inputs.push_back(leaves[leaf]);
    const auto gradients = torch::autograd::grad(roots, inputs, seeds, retain, /*create_graph=*/false,
                                                 /*allow_unused=*/true);
    for (size_t i = 0; i < wanted.size(); ++i) Accumulate(sums[wanted[i]], gradients[i]);
  }
  for (size_t i = 0; i < leaves.size(); ++i) {
    outcome.gradients.push_back(program.has_leaf_hooks ? leaves[i].grad() : sums[i]);
  }
  outcome.observations.Settle();
  return outcome;
}

}  // namespace gradferry::property
