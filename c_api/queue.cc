// Queues and futures: gf_queue_*, gf_future_*.
#include "c_api/queue.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"
#include "impl/base/executor.h"
#include "impl/base/no_waiting.h"

namespace gradferry {

CompletionQueue::~CompletionQueue() {
  if (fd_ >= 0) close(fd_);
}

void CompletionQueue::Signal() {
  if (fd_ < 0) return;
  const uint64_t one = 1;
  // It cannot fail but by overflow after 2^64 - 2 signals, and then it is readable.
  [[maybe_unused]] ssize_t written = write(fd_, &one, sizeof(one));
}

void CompletionQueue::Push(QueueEntry entry) {
  {
    std::lock_guard lock(mutex_);
    if (entries_.empty()) Signal();
    entries_.push_back(std::move(entry));
  }
  filled_.notify_one();
}

std::vector<QueueEntry> CompletionQueue::Next(size_t capacity, int64_t timeout) {
  std::vector<QueueEntry> taken;
  std::unique_lock lock(mutex_);
  auto filled = [this] { return !entries_.empty(); };
  if (timeout == kNever) {
    filled_.wait(lock, filled);
  } else if (timeout > 0) {
    constexpr int64_t kYear = int64_t{365} * 24 * 3600 * 1000000000;
    filled_.wait_for(lock, std::chrono::nanoseconds(std::min(timeout, kYear)), filled);
  }
  while (!entries_.empty() && taken.size() < capacity) {
    taken.push_back(std::move(entries_.front()));
    entries_.pop_front();
  }
  if (entries_.empty() && fd_ >= 0) {
    uint64_t count;
    [[maybe_unused]] ssize_t got = read(fd_, &count, sizeof(count));  // EAGAIN when it was not signalled
  }
  return taken;
}

Result<int> CompletionQueue::Fd() {
  std::lock_guard lock(mutex_);
  if (fd_ < 0) {
    fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd_ < 0) {
      return Status(Code::kResourceExhausted, StrCat("no eventfd could be made: ", std::strerror(errno)));
    }
    if (!entries_.empty()) Signal();
  }
  return fd_;
}

Status CheckMayBlock(const char* function) {
  if (!Executor::OnPoolThread() && !NoWaitingScope::OnThisThread()) return OkStatus();
  return Status(Code::kReentrant, StrCat(function, " blocks and was called within a direct callback"));
}

Status CheckMayWait(const char* function) {
  if (!NoWaitingScope::OnThisThread()) return OkStatus();
  return Status(Code::kReentrant,
                StrCat(function, " waits and was called within an inline handler (GF_DIRECT_INLINE)"));
}

Result<bool> WaitFor(const Future& future, int64_t timeout) {
  if (future.done()) return true;
  Executor::BlockingScope scope;
  GF_RETURN_IF_ERROR(scope.status());
  return future.Wait(timeout, scope.held_clock());
}

Status CheckTime(int64_t time, const char* what) {
  return time >= 0 ? OkStatus() : InvalidArgument(StrCat(what, " is ", time, " ns; it must not be negative"));
}

Result<std::shared_ptr<CompletionQueue>> OptionalQueue(gf_queue* queue, bool wants_future, const char* function) {
  if (queue == nullptr) {
    if (wants_future) return std::shared_ptr<CompletionQueue>();
    return InvalidArgument(StrCat(function, " was given neither a queue nor a place for the future"));
  }
  GF_ASSIGN_OR_RETURN(QueueObject * object, Get(queue));
  return object->queue;
}

Status HandOver(const std::shared_ptr<Future>& future, std::shared_ptr<CompletionQueue> queue, uintptr_t token,
                gf_future** out) {
  if (out != nullptr) *out = MakeHandle<gf_future>(FutureObject{future});
  if (queue == nullptr) return OkStatus();
  // The future may outlive the caller's handle of the queue, so it holds the queue.
  future->WhenDone([queue = std::move(queue), token](const Future::Outcome& outcome) {
    QueueEntry entry;
    entry.token = token;
    entry.kind = GF_ENTRY_COMPLETION;
    entry.status = outcome.status();
    if (outcome.ok()) entry.results = *outcome;
    queue->Push(std::move(entry));
  });
  return OkStatus();
}

Status TakeOutcome(const Future& future, gf_list** results) {
  const Future::Outcome& outcome = future.outcome();
  if (!outcome.ok()) return outcome.status();
  if (results != nullptr) *results = MakeHandle<gf_list>(ListObject{*outcome});
  return OkStatus();
}

namespace {

// An entry as the caller sees it; what it owns is handed over.
gf_entry ToCaller(QueueEntry entry) {
  gf_entry out{};
  out.token = entry.token;
  out.kind = entry.kind;
  out.code = static_cast<int32_t>(entry.status.code());
  if (entry.request) out.request = MakeHandle<gf_request>(RequestObject{std::move(entry.request), entry.worker.lock()});
  if (!entry.status.ok()) {
    out.error = NewError(entry.status);
  } else if (entry.kind == GF_ENTRY_COMPLETION) {
    out.results = MakeHandle<gf_list>(ListObject{std::move(entry.results)});
  }
  return out;
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_queue_new(gf_queue** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    *out = MakeHandle<gf_queue>(QueueObject{std::make_shared<CompletionQueue>()});
    return OkStatus();
  });
}

gf_queue* gf_queue_ref(gf_queue* queue) { return RefHandle(queue); }
void gf_queue_unref(gf_queue* queue) { UnrefHandle(queue); }

int32_t gf_queue_next(gf_queue* queue, gf_entry* entries, size_t capacity, int64_t timeout, size_t* count,
                      gf_error** error) {
  return AtBoundary(error, Outs(count), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(QueueObject * object, Get(queue));
    if (entries == nullptr || capacity == 0) return InvalidArgument("there is no room for an entry");
    GF_RETURN_IF_ERROR(CheckTime(timeout, "the timeout"));
    if (timeout > 0) GF_RETURN_IF_ERROR(CheckMayBlock("gf_queue_next"));
    const std::shared_ptr<CompletionQueue> held = object->queue;
    std::vector<QueueEntry> taken = held->Next(capacity, timeout);
    for (QueueEntry& entry : taken) entries[(*count)++] = ToCaller(std::move(entry));
    return OkStatus();
  });
}

int32_t gf_queue_fd(gf_queue* queue, int32_t* out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(QueueObject * object, Get(queue));
    GF_ASSIGN_OR_RETURN(*out, object->queue->Fd());
    return OkStatus();
  });
}

int32_t gf_queue_wake(gf_queue* queue, uintptr_t token, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(QueueObject * object, Get(queue));
    QueueEntry entry;
    entry.token = token;
    entry.kind = GF_ENTRY_WAKE;
    object->queue->Push(std::move(entry));
    return OkStatus();
  });
}

gf_future* gf_future_ref(gf_future* future) { return RefHandle(future); }
void gf_future_unref(gf_future* future) { UnrefHandle(future); }

int32_t gf_future_is_done(gf_future* future) {
  return OrElse(0, [&] {
    const FutureObject* object = Peek(future);
    return object != nullptr && object->future->done() ? 1 : 0;
  });
}

int32_t gf_future_wait(gf_future* future, int64_t timeout, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(FutureObject * object, Get(future));
    GF_RETURN_IF_ERROR(CheckTime(timeout, "the timeout"));
    const std::shared_ptr<Future> held = object->future;
    if (held->done()) return OkStatus();
    if (timeout > 0) GF_RETURN_IF_ERROR(CheckMayWait("gf_future_wait"));
    GF_ASSIGN_OR_RETURN(const bool done, WaitFor(*held, timeout));
    if (done) return OkStatus();
    return Status(Code::kDeadlineExceeded, StrCat("the call had not ended after ", timeout / 1000000.0, " ms"));
  });
}

int32_t gf_future_cancel(gf_future* future, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(FutureObject * object, Get(future));
    object->future->Cancel();
    return OkStatus();
  });
}

int32_t gf_future_profile(gf_future* future, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(FutureObject * object, Get(future));
    if (!object->future->done()) return FailedPrecondition("the call has not ended yet");
    const std::optional<std::string> profile = object->future->Profile();
    if (!profile) return NotFound("the call has no profile: gf_call.profile was not 1, or it was cancelled here");
    return TextOut(*profile, buffer, capacity, length);
  });
}

int32_t gf_future_take(gf_future* future, gf_list** results, gf_error** error) {
  if (results != nullptr) *results = nullptr;
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(FutureObject * object, Get(future));
    if (!object->future->done()) return FailedPrecondition("the call has not ended yet");
    return TakeOutcome(*object->future, results);
  });
}
