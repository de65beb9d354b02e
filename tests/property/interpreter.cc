// See interpreter.h.
#include "tests/property/interpreter.h"

#include <stdexcept>
#include <utility>

#include "tests/property/operations.h"

namespace gradferry::property {

using at::Tensor;

void Observations::AddHook(const Tensor& tensor, int step, int output, double factor, int reenters) {
  const Key key(step, output);
  {
    std::lock_guard lock(counts_->mutex);
    counts_->hooks[key];
  }
  auto reenter = reenters < 0 ? nullptr : reenter_;
  tensor.register_hook([counts = counts_, key, factor, reenters, reenter](Tensor gradient) -> Tensor {
    {
      std::lock_guard lock(counts->mutex);
      HookCount& count = counts->hooks[key];
      ++(gradient.defined() ? count.defined : count.undefined);
    }
    if (gradient.defined() && reenter) reenter(reenters);
    return gradient.defined() ? gradient.mul(factor) : gradient;
  });
}

void Observations::AddRetained(const Tensor& tensor, int step, int output) {
  tensor.retain_grad();
  std::lock_guard lock(retained_->mutex);
  retained_->tensors[Key(step, output)] = tensor;
}

void Observations::Settle() {
  std::map<Key, Tensor> graph;  // freed after the lock
  std::lock_guard lock(retained_->mutex);
  for (auto& [key, tensor] : retained_->tensors) graph[key] = std::exchange(tensor, tensor.grad());
}

std::map<Observations::Key, HookCount> Observations::hooks() const {
  std::lock_guard lock(counts_->mutex);
  return counts_->hooks;
}

std::map<Observations::Key, Tensor> Observations::retained() const {
  std::lock_guard lock(retained_->mutex);
  return retained_->tensors;
}

namespace {

bool ChangesInPlace(Op op) {
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

class Runner {
 public:
  Runner(const Program& program, Environment& environment, Observations& observations)
      : program_(program), environment_(environment), observations_(observations) {}

  Frame Run(const Function& function, std::vector<Tensor> arguments) {
    if (arguments.size() != static_cast<size_t>(function.arguments)) {
      throw std::logic_error("a function was called with the wrong number of arguments");
    }
    frame_.values = std::move(arguments);
    frame_.values.resize(function.values);
    pending_.resize(function.values);
    for (const Step& step : function.steps) RunStep(step);
    WaitForAll();
    for (int value : function.results) frame_.results.push_back(frame_.values[value]);
    return std::move(frame_);
  }

 private:
  struct Started {
    const Step* step;
    std::unique_ptr<Pending> pending;
  };

  void RunStep(const Step& step) {
    // A message may still be reading the tensors that it was made of.
    if (ChangesInPlace(step.op)) WaitForAll();
    std::vector<Tensor> inputs;
    for (int value : step.inputs) inputs.push_back(ValueOf(value));
    if (step.op == Op::kLeaf) {
      Finish(step, {environment_.Leaf(static_cast<int>(step.ints[0]))});
    } else if (step.op == Op::kCall || step.op == Op::kMetric || step.worker >= 0) {
      auto started = std::make_shared<Started>(Started{&step, environment_.Call(step, std::move(inputs))});
      for (int value : step.outputs) pending_[value] = started;
      all_.push_back(started);
      if (!step.in_background) WaitFor(*started);
    } else {
      Finish(step, Apply(program_, step, inputs));
    }
  }

  const Tensor& ValueOf(int value) {
    if (pending_[value]) WaitFor(*pending_[value]);
    return frame_.values[value];
  }

  void WaitFor(Started& started) {
    if (auto pending = std::exchange(started.pending, nullptr)) Finish(*started.step, pending->Wait());
  }

  void WaitForAll() {
    for (const auto& started : all_) WaitFor(*started);
    all_.clear();
  }

  void Finish(const Step& step, std::vector<Tensor> outputs) {
    if (outputs.size() != step.outputs.size()) {
      throw std::logic_error("a step has another number of outputs than the program says");
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].defined() && outputs[i].requires_grad() && step.op != Op::kLeaf) {
        if (step.hook != 0)
          observations_.AddHook(outputs[i], step.number, static_cast<int>(i), step.hook, step.reenters);
        if (step.retain_grad) observations_.AddRetained(outputs[i], step.number, static_cast<int>(i));
      }
      frame_.values[step.outputs[i]] = std::move(outputs[i]);
    }
  }

  const Program& program_;
  Environment& environment_;
  Observations& observations_;
  Frame frame_;
  std::vector<std::shared_ptr<Started>> pending_;  // by value
  std::vector<std::shared_ptr<Started>> all_;
};

}  // namespace

Frame RunFrame(const Program& program, int function, std::vector<Tensor> arguments, Environment& environment,
               Observations& observations) {
  return Runner(program, environment, observations).Run(program.functions[function], std::move(arguments));
}

std::vector<Tensor> RunFunction(const Program& program, int function, std::vector<Tensor> arguments,
                                Environment& environment, Observations& observations) {
  return RunFrame(program, function, std::move(arguments), environment, observations).results;
}

}  // namespace gradferry::property
