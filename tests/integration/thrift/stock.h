// A worker for stock clients to call.
#pragma once

#include <string>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {

// Worker "server", id 0, with handlers:
//   "echo"  what it gets
//   "fail"  GF_INVALID_ARGUMENT, "no such luck"
//   "wait"  "waited", when AnswerWaiting is called
class Stock {
 public:
  explicit Stock(const std::string& address, const Settings& more = {}) {
    Settings settings = {{"transport.thrift.address", address}, {"worker.threads", "2"}};
    settings.insert(more.begin(), more.end());
    worker_ = OpenWorker(WorkerConfig("thrift", "", "server", 0, settings));
    HandleDirect(worker_, "echo", [](Request request) { Reply(request, Arguments(request)); });
    HandleDirect(worker_, "fail", [](Request request) { Fail(request, GF_INVALID_ARGUMENT, "no such luck"); });
    HandleQueue(worker_, "wait", waiting_, 0);
  }

  // One call of "wait".
  void AnswerWaiting() const { Reply(Next(waiting_).request, ListOf("waited")); }
  gf_worker* worker() const { return worker_; }
  std::string address() const { return Address(worker_); }

 private:
  const Queue waiting_ = NewQueue();
  Worker worker_;
};

}  // namespace gf
