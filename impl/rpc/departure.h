// A call on its way out, for as long as it may have to wait for room (windows.h). Whoever has the right to end it has
// it from Windows: either it is granted room, or taken back. Its future's cancel and its deadline hold it weakly.
#pragma once

#include <memory>
#include <mutex>
#include <utility>

#include "impl/autograd/context.h"
#include "impl/rpc/future.h"
#include "impl/rpc/link.h"
#include "impl/rpc/metrics.h"
#include "impl/rpc/windows.h"

namespace gradferry {

struct Departure {
  Departure(WorkerId peer, OutRequest out, AnswerCallback callback)
      : to(peer), request(std::move(out)), done(std::move(callback)) {}
  Departure(const Departure&) = delete;
  ~Departure() {
    if (done) Fail(Status(Code::kClosed, "the worker was closed before there was room for the call"));
  }

  // It was never sent, and its caller does not wait for it any more.
  void Drop() {
    if (context) context->RemoveSendFunctions({message_id});
    done = nullptr;
  }
  void Fail(const Status& why) {
    const AnswerCallback callback = std::exchange(done, nullptr);
    if (context) context->RemoveSendFunctions({message_id});
    callback(why);
  }

  const WorkerId to;
  OutRequest request;
  AnswerCallback done;  // null once it is sent or has failed
  std::weak_ptr<Future> future;
  CallKind kind = CallKind::kOther;
  int64_t began = 0;
  std::shared_ptr<DistAutogradContext> context;  // null: it has no send function
  int64_t message_id = 0;
  uint64_t ticket = 0;  // while it waits

  std::mutex mutex;  // guards the rest; a leaf
  bool cancelled = false;
  bool departed = false;
  TimerId timer = 0;
};

}  // namespace gradferry
