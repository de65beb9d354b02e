// Runs the functions of a program. How leaves are found and what a call is differs between the uncut and the cut run:
// that is the Environment. What is observed on the way (hooks, retained gradients) is kept in Observations, by the
// number of the step, so that two runs can be compared.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "tests/property/program.h"

namespace gradferry::property {

// Results of a call that may still be under way.
class Pending {
 public:
  virtual ~Pending() = default;
  // Called once.
  virtual std::vector<at::Tensor> Wait() = 0;
};

class Environment {
 public:
  virtual ~Environment() = default;
  virtual at::Tensor Leaf(int index) = 0;
  // A call of a function, an operator call or a metric.
  virtual std::unique_ptr<Pending> Call(const Step& step, std::vector<at::Tensor> arguments) = 0;
};

// How often a hook ran. With an undefined gradient it runs too.
struct HookCount {
  int defined = 0;
  int undefined = 0;
  bool operator==(const HookCount& other) const { return defined == other.defined && undefined == other.undefined; }
};

class Observations {
 public:
  // A hook that counts itself and multiplies. `output`: of the step. With `reenters`, a leaf, it calls Reenter's
  // function for it as well, when it gets a gradient.
  void AddHook(const at::Tensor& tensor, int step, int output, double factor, int reenters = -1);
  // Runs a pass over the sum of the squares of a leaf. Before the first hook.
  void OnReenter(std::function<void(int leaf)> reenter) { reenter_ = std::move(reenter); }
  void AddRetained(const at::Tensor& tensor, int step, int output);

  using Key = std::pair<int, int>;  // step, output
  // To be called when all passes have ended: keeps the gradients of what was retained and lets go of the graph.
  void Settle();
  std::map<Key, HookCount> hooks() const;
  std::map<Key, at::Tensor> retained() const;  // the gradients

 private:
  struct Counts {
    std::mutex mutex;  // guards hooks
    std::map<Key, HookCount> hooks;
  };
  struct Retained {
    std::mutex mutex;  // guards tensors
    std::map<Key, at::Tensor> tensors;
  };
  std::function<void(int)> reenter_;
  // Shared with the hooks, which live as long as the graph; so it must not hold the graph.
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
  std::shared_ptr<Retained> retained_ = std::make_shared<Retained>();
};

// The step number under which the hook of a leaf is counted.
inline int LeafHook(int leaf) { return -1 - leaf; }

// Runs a function on this thread, with the thread's grad mode. Everything that it started has ended when it returns.
std::vector<at::Tensor> RunFunction(const Program& program, int function, std::vector<at::Tensor> arguments,
                                    Environment& environment, Observations& observations);

// Also returns all values of the function, as they are at its end (roots of a pass are among them).
struct Frame {
  std::vector<at::Tensor> values;
  std::vector<at::Tensor> results;
};
Frame RunFrame(const Program& program, int function, std::vector<at::Tensor> arguments, Environment& environment,
               Observations& observations);

}  // namespace gradferry::property
