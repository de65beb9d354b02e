// See request.h.
#include "impl/rpc/request.h"

#include <utility>

namespace gradferry {

Request::~Request() {
  if (!answered_) (void)Fail(Internal(StrCat("handler ", facts_.name, " gave the request back without an answer")));
}

Status Request::Respond(Result<ValueList> outcome) {
  if (answered_.exchange(true)) {
    return FailedPrecondition(StrCat("this request of worker ", facts_.caller_name, " for ", facts_.name,
                                     " has been answered already"))
        .WithOperation(facts_.name);
  }
  std::vector<std::function<void()>> dropped;
  {
    std::lock_guard lock(mutex_);
    dropped.swap(on_cancel_);
  }
  return respond_(std::move(outcome));
}

void Request::Cancel() {
  std::vector<std::function<void()>> run;
  {
    std::lock_guard lock(mutex_);
    cancelled_ = true;
    run.swap(on_cancel_);
  }
  for (auto& fn : run) fn();
}

void Request::OnCancel(std::function<void()> fn) {
  {
    std::lock_guard lock(mutex_);
    if (!cancelled_) {
      if (!answered_) on_cancel_.push_back(std::move(fn));
      return;
    }
  }
  fn();
}

}  // namespace gradferry
