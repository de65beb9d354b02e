// The objects behind the handles that belong to a worker: queues, futures, requests, workers and contexts.
#pragma once

#include <memory>

#include "c_api/handle.h"
#include "c_api/queue.h"
#include "impl/rpc/future.h"
#include "impl/rpc/request.h"
#include "impl/rpc/worker.h"

namespace gradferry {

// A worker that is aborted when the last handle which needs it is given back: of the worker itself, of its contexts.
class OpenWorker {
 public:
  explicit OpenWorker(std::shared_ptr<Worker> worker) : worker_(std::move(worker)) {}
  OpenWorker(const OpenWorker&) = delete;
  ~OpenWorker() { worker_->Abort(); }
  const std::shared_ptr<Worker>& get() const { return worker_; }

 private:
  const std::shared_ptr<Worker> worker_;
};

// A context that is released when the last handle from gf_context_new is given back.
class OwnedContext {
 public:
  OwnedContext(std::shared_ptr<Worker> worker, int64_t id) : worker_(std::move(worker)), id_(id) {}
  OwnedContext(const OwnedContext&) = delete;
  ~OwnedContext() { (void)worker_->ReleaseContext(id_); }  // it may have been released already

 private:
  const std::shared_ptr<Worker> worker_;
  const int64_t id_;
};

struct QueueObject {
  std::shared_ptr<CompletionQueue> queue;
};
struct FutureObject {
  std::shared_ptr<Future> future;
};
struct RequestObject {
  std::shared_ptr<Request> request;
  std::shared_ptr<Worker> worker;
};
struct WorkerObject {
  std::shared_ptr<OpenWorker> open;
};
struct ContextObject {
  std::shared_ptr<Worker> worker;
  std::shared_ptr<DistAutogradContext> context;
  std::shared_ptr<OpenWorker> open;     // null for handles that came with a request
  std::shared_ptr<OwnedContext> owned;  // null but for gf_context_new
};

template <>
struct HandleTraits<gf_queue> {
  using Object = QueueObject;
  static constexpr LiveKind kKind = LiveKind::kQueues;
};
template <>
struct HandleTraits<gf_future> {
  using Object = FutureObject;
  static constexpr LiveKind kKind = LiveKind::kFutures;
};
template <>
struct HandleTraits<gf_request> {
  using Object = RequestObject;
  static constexpr LiveKind kKind = LiveKind::kRequests;
};
template <>
struct HandleTraits<gf_worker> {
  using Object = WorkerObject;
  static constexpr LiveKind kKind = LiveKind::kWorkers;
};
template <>
struct HandleTraits<gf_context> {
  using Object = ContextObject;
  static constexpr LiveKind kKind = LiveKind::kContexts;
};

// kReentrant on a thread of the library, where waiting could be for oneself.
Status CheckMayBlock(const char* function);
// kReentrant in an inline handler, where no other thread could take this one's place either.
Status CheckMayWait(const char* function);

// Waits for a future as Future::Wait does; on a thread of a worker's pool another one takes its place meanwhile.
Result<bool> WaitFor(const Future& future, int64_t timeout);

// kInvalidArgument for negative times.
Status CheckTime(int64_t time, const char* what);

// Hands a started call or pass to whoever wants it: its completion to the queue, its future to `out`; at least one of
// the two must be given.
Status HandOver(const std::shared_ptr<Future>& future, std::shared_ptr<CompletionQueue> queue, uintptr_t token,
                gf_future** out);

// The queue behind a handle that may be NULL; kInvalidArgument when there is neither queue nor future to deliver to.
Result<std::shared_ptr<CompletionQueue>> OptionalQueue(gf_queue* queue, bool wants_future, const char* function);

// What came out of a completed future.
Status TakeOutcome(const Future& future, gf_list** results);

}  // namespace gradferry
