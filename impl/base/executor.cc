// See executor.h.
#include "impl/base/executor.h"

#include "impl/base/log.h"
#include "impl/base/status.h"

namespace gradferry {
namespace {

// Not state of the ABI: it only tells blocking functions that they were called within a direct callback.
thread_local bool on_pool_thread = false;

}  // namespace

Executor::Executor(int threads, Clock* clock) : clock_(clock) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Executor::~Executor() { Stop(); }

void Executor::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    // While it stops, tasks may still post what they have to finish.
    if (!threads_.empty() && !(stopping_ && tasks_.empty() && running_ == 0)) {
      if (clock_) clock_->Hold(+1);
      tasks_.push_back(std::move(task));
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
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

bool Executor::OnPoolThread() { return on_pool_thread; }

void Executor::Run() {
  on_pool_thread = true;
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return !tasks_.empty() || (stopping_ && running_ == 0); });
    if (tasks_.empty()) break;
    std::function<void()> task = std::move(tasks_.front());
    tasks_.pop_front();
    ++running_;
    lock.unlock();
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
  wake_.notify_all();  // others may be waiting for running_ to fall to 0
}

}  // namespace gradferry
