// A small training over three workers, w0 to w2, in virtual time: what the fault matrix is run on. One step goes
// forward through calls within calls, backward, and cleans up; between them it sends every message that workers know.
//
//   w0: a, unused = w1.stage(x)        in a context
//       w1: y = x * p1;  z = w2.stage(y);  return z, 2 y
//           w2: return y * p2 + p2
//       b = w2 aten::mul(a, x)         an operator
//       w1.metric(3)                   in no context
//       backward from sum(b);  gradients of x (w0), p1 (w1), p2 (w2)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/property/group.h"

namespace gradferry::faults {

constexpr int64_t kCallTimeout = int64_t{5} * 1000000000;  // of virtual time, as all times here
constexpr int64_t kPassTimeout = int64_t{20} * 1000000000;
// What an error may come later than its deadline.
constexpr int64_t kLate = int64_t{100} * 1000000;

// How a step went.
struct Outcome {
  Status status;                      // of the first thing that failed
  std::string what;                   // "forward", "backward", ...
  int64_t late = 0;                   // ns after its deadline, of what was latest; not positive: in time
  std::vector<at::Tensor> gradients;  // of x, p1, p2, when all went well; undefined where there is none
};

// What a step does besides.
struct StepOptions {
  bool hook_fails = false;            // the pass fails on w2
  bool call_is_cancelled = false;     // a call of w1 that nobody answers runs out of time
  bool chosen_inputs = false;         // the pass is for x only
  bool transfer_is_given_up = false;  // a call of w1 with a large tensor runs out of time before that has gone
  bool pass_of_w1 = false;            // w1 runs a pass of its own in the context, from sum(p1)
  bool calls_are_profiled = false;
  bool context_is_kept = false;  // for the next step, which goes on in it
};

class Training {
 public:
  // settings: of one worker each, besides what is the same for all.
  explicit Training(const std::map<int, std::map<std::string, std::string>>& settings, uint64_t seed = 1);
  ~Training();

  Outcome Step(const StepOptions& options = {});
  // Releases the context that was kept.
  void Release();
  // The same, of one that a lease may have ended.
  void ReleaseIfThere();
  // Closes the workers in order, and says what went wrong with that.
  std::string Close();
  // What is left of contexts, graphs, passes and calls although there should be nothing: waits for it to go.
  std::string LeftBehind();
  // How often the faults of this worker's transport have struck.
  int64_t Struck(int worker);

 private:
  void AddHandlers(int worker);
  void Forward(const StepOptions& options, Outcome* outcome);
  void Backward(const StepOptions& options, Outcome* outcome);

  at::Tensor x_, p1_, p2_;
  bool hook_fails_ = false;
  std::shared_ptr<DistAutogradContext> context_;
  at::Tensor loss_;
  property::Group group_;  // last: its threads use all of the above
};

}  // namespace gradferry::faults
