// See group.h.
#include "tests/property/group.h"

#include <atomic>
#include <chrono>
#include <utility>

namespace gradferry::property {
namespace {

// Far above what a pass takes under a sanitizer on a busy machine, far below the test's own limit.
std::atomic<std::chrono::seconds> stuck_after{std::chrono::seconds(60)};

std::string NextNetworkName() {
  static std::atomic<int> next{0};
  return StrCat("property-", next.fetch_add(1));
}

}  // namespace

Threads::~Threads() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void Threads::Run(std::function<void()> task) {
  std::lock_guard lock(mutex_);
  tasks_.push_back(std::move(task));
  if (idle_ < tasks_.size()) threads_.emplace_back([this] { Work(); });
  wake_.notify_one();
}

void Threads::Work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    ++idle_;
    wake_.wait(lock, [this] { return !tasks_.empty() || stopping_; });
    --idle_;
    if (tasks_.empty()) return;
    auto task = std::move(tasks_.front());
    tasks_.pop_front();
    lock.unlock();
    task();
    task = nullptr;
    lock.lock();
  }
}

Group::Group(const GroupOptions& options) {
  const std::string network = NextNetworkName();
  std::string peers;
  for (int i = 0; i < options.workers; ++i) {
    peers +=
        StrCat(i ? ", " : "", "{ id = ", i, ", name = \"w", i, "\", address = \"sim://", network, "/", i + 1, "\" }");
  }
  for (int i = 0; i < options.workers; ++i) {
    Config config;
    const std::string text =
        StrCat("[worker]\nname = \"w", i, "\"\nthreads = ", options.threads[i], "\nlisten = \"sim://", network, "/",
               i + 1, "\"\n[group]\npeers = [", peers, "]\n[transport]\nname = \"sim\"\n[transport.sim]\nnetwork = \"",
               network, "\"\nseed = ", options.seed % 1000000, "\ntime = \"", options.virtual_time ? "virtual" : "real",
               "\"\nlatency_max_us = ", options.latency_max_us, "\n");
    Status status = config.LoadText(text);
    const auto of_this = options.of_one.find(i);
    for (const auto* settings : {&options.settings, of_this == options.of_one.end() ? nullptr : &of_this->second}) {
      if (settings == nullptr) continue;
      for (const auto& [key, value] : *settings) {
        if (status.ok()) status = config.Set(key, value);
      }
    }
    if (!status.ok()) throw std::runtime_error(status.ToString());
    auto worker = Worker::Open(config);
    if (!worker.ok()) throw std::runtime_error(worker.status().ToString());
    workers_.push_back(*std::move(worker));
  }
}

Group::~Group() {
  for (auto& worker : workers_) worker->Abort();
  for (auto& worker : workers_) worker->WaitUntilEnded();
}

void SetStuckAfter(std::chrono::seconds time) { stuck_after = time; }

Future::Outcome Await(Clock& clock, Future& future, const std::string& what) {
  struct State {
    std::mutex mutex;
    std::condition_variable wake;
    bool done = false;
  };
  auto state = std::make_shared<State>();
  future.WhenDone([&clock, state](const Future::Outcome&) {
    clock.Hold(+1);
    {
      std::lock_guard lock(state->mutex);
      state->done = true;
    }
    state->wake.notify_one();
  });
  clock.Hold(-1);
  std::unique_lock lock(state->mutex);
  if (!state->wake.wait_for(lock, stuck_after.load(), [&] { return state->done; })) throw Stuck(what);
  return future.outcome();
}

void AwaitCondition(const std::function<bool()>& condition, const std::string& what) {
  const auto until = std::chrono::steady_clock::now() + stuck_after.load();
  while (!condition()) {
    if (std::chrono::steady_clock::now() > until) throw Stuck(what);
    std::this_thread::yield();
  }
}

}  // namespace gradferry::property
