// An inbound call of a handler: the arguments and the duty to answer exactly once, later, from any thread. Whoever
// holds it may answer; when the last holder lets go of it unanswered, it answers with an error by itself.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "impl/autograd/context.h"
#include "impl/base/clock.h"
#include "impl/base/status.h"
#include "impl/tensor/value.h"
#include "impl/trace/profile.h"
#include "impl/wire/messages.h"

namespace gradferry {

class Request {
 public:
  // What the answer needs; called exactly once, on any thread.
  using Responder = std::function<Status(Result<ValueList>)>;

  struct Facts {
    std::string name;
    WorkerId caller = 0;
    std::string caller_name;
    std::shared_ptr<DistAutogradContext> context;  // null: none
    bool record = true;
    int64_t deadline = kNever;                  // on the worker's clock
    std::shared_ptr<ProfileRecorder> recorder;  // null: the call is not profiled
  };

  Request(Facts facts, ValueList arguments, Responder respond)
      : facts_(std::move(facts)), arguments_(std::move(arguments)), respond_(std::move(respond)) {}
  ~Request();

  const Facts& facts() const { return facts_; }
  const ValueList& arguments() const { return arguments_; }

  // kFailedPrecondition when it has been answered already. A result that cannot be sent is an error here, and what the
  // caller gets instead.
  Status Reply(ValueList results) { return Respond(std::move(results)); }
  Status Fail(Status status) { return Respond(std::move(status)); }
  bool answered() const { return answered_; }

  // Nobody waits for the answer any more. Runs what OnCancel left.
  void Cancel();
  bool cancelled() const { return cancelled_; }
  // fn runs when the request is cancelled, at once if it was; dropped when it is answered.
  void OnCancel(std::function<void()> fn);

 private:
  Status Respond(Result<ValueList> outcome);

  const Facts facts_;
  const ValueList arguments_;
  const Responder respond_;
  std::atomic<bool> answered_{false};
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;  // guards on_cancel_; a leaf lock
  std::vector<std::function<void()>> on_cancel_;
};

}  // namespace gradferry
