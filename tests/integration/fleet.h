// A group whose first worker is this process and whose others are processes of their own (peer_main), which find each
// other by a file.
#pragma once

#include <gtest/gtest.h>
#include <signal.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/process.h"
#include "tests/support/c_abi/ways.h"

namespace gf {

class Fleet {
 public:
  // Workers worker0 (here), worker1, ... (there), all with these settings.
  explicit Fleet(int size, const std::string& way = "tensorpipe", const Settings& more = {}) {
    // What the processes inherit is there before they start.
    const Config config = NewConfig();
    UseWay(config, way, "worker0");
    Settings common = {{"group.rendezvous", "file://" + folder_.File("rendezvous")},
                       {"group.world_size", std::to_string(size)},
                       {"group.join_timeout", "60s"}};
    common.insert(more.begin(), more.end());
    for (int rank = 1; rank < size; ++rank) {
      std::vector<std::string> arguments = {way, "worker" + std::to_string(rank), "group.rank=" + std::to_string(rank)};
      for (const auto& [key, value] : common) arguments.push_back(key + "=" + value);
      processes_.push_back(std::make_unique<Process>("peer_main", arguments));
    }
    for (const auto& [key, value] : common) Set(config, key, value);
    Set(config, "worker.name", "worker0");
    Set(config, "group.rank", "0");
    worker_ = OpenWorker(config);
    server_ = std::make_unique<Server>(worker_, 4);
    RegisterHandlers(*server_);
    for (int rank = 1; rank < size; ++rank) WaitUntilReady(worker_, "worker" + std::to_string(rank));
  }
  Fleet(const Fleet&) = delete;

  // All end well and leave nothing behind, but those that were killed.
  ~Fleet() {
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (processes_[i]) processes_[i]->CloseInput();
    }
    const Error closed = ErrorOf([&] { Call(gf_worker_close, worker_, kPatience); });
    EXPECT_EQ(closed.code, GF_OK) << closed.description;
    for (size_t i = 0; i < processes_.size(); ++i) {
      if (!processes_[i]) continue;
      EXPECT_EQ(processes_[i]->Wait(2 * kPatience), 0) << "worker" << i + 1;
    }
    server_.reset();
  }

  gf_worker* worker() const { return worker_; }
  Process& process(int rank) { return *processes_.at(static_cast<size_t>(rank - 1)); }

  // Stops a process so that nothing comes from it any more.
  void Stop(int rank) {
    process(rank).Signal(SIGSTOP);
    process(rank).WaitUntilStopped();
  }
  // Kills it and forgets it.
  void Kill(int rank) {
    process(rank).Signal(SIGKILL);
    EXPECT_EQ(process(rank).Wait(), -SIGKILL);
    processes_.at(static_cast<size_t>(rank - 1)).reset();
  }

  // gf_context_describe over there.
  nlohmann::json DescribeAt(int rank, const Context& context) {
    const List text = CallWorker(worker_, "worker" + std::to_string(rank), "describe", ListOf(gf_context_id(context)));
    return nlohmann::json::parse(StringAt(text, 0));
  }
  int64_t ContextsAt(int rank) {
    return IntAt(CallWorker(worker_, "worker" + std::to_string(rank), "contexts", NewList()), 0);
  }

 private:
  const TemporaryFolder folder_;
  std::vector<std::unique_ptr<Process>> processes_;
  Worker worker_;
  std::unique_ptr<Server> server_;
};

}  // namespace gf
