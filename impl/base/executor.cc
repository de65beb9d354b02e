// See executor.h.
#include "impl/base/executor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "impl/base/log.h"

namespace gradferry {
namespace {

// Not state of the ABI: they only tell blocking functions where they were called.
thread_local Executor* pool_of_thread = nullptr;

int64_t NowNs() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Executor::Executor(int threads, Clock* clock) : clock_(clock), wanted_(static_cast<size_t>(threads)) {
  std::lock_guard lock(mutex_);
  for (int i = 0; i < threads; ++i) StartThread();
}

Executor::~Executor() { Stop(); }

void Executor::StartThread() {
  ++alive_;
  threads_.emplace_back([this] { Run(); });
}

void Executor::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    // While it stops, tasks may still post what they have to finish.
    if (alive_ > 0 && !(stopping_ && tasks_.empty() && running_ == 0)) {
      if (clock_) clock_->Hold(+1);
      tasks_.push_back({std::move(task), NowNs()});
      task = nullptr;
    }
  }
  wake_.notify_one();
}

void Executor::Stop() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (;;) {
    std::thread thread;
    {
      std::lock_guard lock(mutex_);  // a thread that runs may still start another
      std::vector<std::thread>& from = finished_.empty() ? threads_ : finished_;
      if (from.empty()) return;
      thread = std::move(from.back());
      from.pop_back();
    }
    thread.join();
  }
}

Executor::Load Executor::load() const {
  std::lock_guard lock(mutex_);
  // Who waits runs a task, too.
  return {alive_ - blocked_, running_ - std::min(running_, blocked_), blocked_, tasks_.size()};
}

bool Executor::OnPoolThread() { return pool_of_thread != nullptr; }

Executor::BlockingScope::BlockingScope() : executor_(pool_of_thread) {
  if (executor_ == nullptr) return;
  std::lock_guard lock(executor_->mutex_);
  if (executor_->blocked_ >= kMaxBlocked) {
    status_ = Status(Code::kResourceExhausted, StrCat(kMaxBlocked, " threads of a worker's pool wait already"));
    executor_ = nullptr;
    return;
  }
  ++executor_->blocked_;
  if (executor_->alive_ - executor_->blocked_ < executor_->wanted_) {
    try {
      executor_->StartThread();
    } catch (const std::exception& e) {
      --executor_->blocked_;
      --executor_->alive_;
      status_ = Status(Code::kResourceExhausted, StrCat("no thread could be started: ", e.what()));
      executor_ = nullptr;
      return;
    }
  }
}

Executor::BlockingScope::~BlockingScope() {
  if (executor_ == nullptr) return;
  std::lock_guard lock(executor_->mutex_);
  --executor_->blocked_;
  // One too many now: it leaves when it has nothing to do.
  executor_->wake_.notify_one();
}

void Executor::Run() {
  pool_of_thread = this;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return !tasks_.empty() || (stopping_ && running_ == 0) || alive_ - blocked_ > wanted_; });
    if (alive_ - blocked_ > wanted_ || tasks_.empty()) break;
    std::function<void()> task = std::move(tasks_.front().run);
    const int64_t posted = tasks_.front().posted;
    tasks_.pop_front();
    ++running_;
    lock.unlock();
    waits_.Record(NowNs() - posted);
    try {
      task();
    } catch (...) {
      Log(LogLevel::kError, "a task threw: ", StatusFromCurrentException().ToString());
    }
    task = nullptr;
    if (clock_) clock_->Hold(-1);
    lock.lock();
    --running_;
  }
  --alive_;
  // Joined by Stop, or by the next thread that leaves.
  std::vector<std::thread> left = std::exchange(finished_, {});
  auto self = std::find_if(threads_.begin(), threads_.end(),
                           [](const std::thread& t) { return t.get_id() == std::this_thread::get_id(); });
  if (self != threads_.end()) {
    finished_.push_back(std::move(*self));
    threads_.erase(self);
  }
  wake_.notify_all();  // others may be waiting for running_ to fall to 0, or for a place
  lock.unlock();
  for (std::thread& thread : left) thread.join();
}

}  // namespace gradferry
