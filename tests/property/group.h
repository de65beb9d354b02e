// Workers in one simulated network, for the cut runs, and the threads on which their handlers may block. A handler here
// waits for the calls that it makes, so it runs on a thread of its own, not on its worker's pool (unless it makes
// none).
//
// Simulated time must not jump to deadlines while such a thread works: it holds the clock, except while it waits.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "impl/rpc/worker.h"

namespace gradferry::property {

// Threads that are made when one is needed and kept.
class Threads {
 public:
  ~Threads();
  void Run(std::function<void()> task);

 private:
  void Work();

  std::mutex mutex_;  // guards the rest
  std::condition_variable wake_;
  std::deque<std::function<void()>> tasks_;
  size_t idle_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

struct GroupOptions {
  int workers = 2;
  std::vector<int> threads;  // of each worker's pool
  uint64_t seed = 0;         // of the network
  bool virtual_time = false;
  int latency_max_us = 0;
  std::map<std::string, std::string> settings;               // besides these, of all workers
  std::map<int, std::map<std::string, std::string>> of_one;  // of some
};

class Group {
 public:
  explicit Group(const GroupOptions& options);
  // Closes the workers and waits for their ends.
  ~Group();

  int size() const { return static_cast<int>(workers_.size()); }
  Worker& worker(int index) { return *workers_[index]; }
  Threads& threads() { return threads_; }

 private:
  std::vector<std::shared_ptr<Worker>> workers_;
  Threads threads_;
};

// Holds the clock while it lives.
class Holding {
 public:
  explicit Holding(Clock& clock) : clock_(clock) { clock_.Hold(+1); }
  ~Holding() { clock_.Hold(-1); }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;

 private:
  Clock& clock_;
};

// A call or a pass failed.
struct Failed : std::runtime_error {
  Failed(const std::string& what, Status failed)
      : std::runtime_error(what + ": " + failed.ToString()), status(std::move(failed)) {}
  const Status status;
};

// Something did not end for long (real time).
struct Stuck : std::runtime_error {
  explicit Stuck(const std::string& what) : std::runtime_error(what + " did not end") {}
};

// How long that is; a minute unless this is called.
void SetStuckAfter(std::chrono::seconds time);

// Waits for a future on a thread that holds this clock.
Future::Outcome Await(Clock& clock, Future& future, const std::string& what);

// Looks until it is so.
void AwaitCondition(const std::function<bool()>& condition, const std::string& what);

}  // namespace gradferry::property
