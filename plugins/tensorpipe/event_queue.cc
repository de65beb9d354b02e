#include "plugins/tensorpipe/event_queue.h"

namespace gradferry::tp {

thread_local int HostCall::depth_ = 0;

EventQueue::EventQueue() : dispatcher_([this] { Run(); }) {}

EventQueue::~EventQueue() { Stop(); }

void EventQueue::Post(Job job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  waiting_.fetch_add(1, std::memory_order_relaxed);
  jobs_.push_back(std::move(job));
  changed_.notify_one();
}

void EventQueue::PostAt(Time due, Job job) {
  const std::lock_guard<std::mutex> lock(mutex_);
  timed_.emplace(due, std::move(job));
  changed_.notify_one();
}

void EventQueue::Stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (dispatcher_.joinable()) dispatcher_.join();
}

// The event within Deliver has run.
void EventQueue::EndHere() {
  if (waiting_.fetch_sub(kHere + 1) == kHere + 1) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  changed_.notify_one();
}

void EventQueue::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    if (RunOne(lock)) continue;
    if (stopping_ && jobs_.empty()) return;
    if (timed_.empty()) {
      changed_.wait(lock);
    } else {
      changed_.wait_until(lock, timed_.begin()->first);
    }
  }
}

// Runs the next job, if there is one, without the lock.
bool EventQueue::RunOne(std::unique_lock<std::mutex>& lock) {
  Job job;
  const bool is_event = !jobs_.empty() && (waiting_.load() & kHere) == 0;
  if (is_event) {
    job = std::move(jobs_.front());
    jobs_.pop_front();
  } else if (!stopping_ && !timed_.empty() && timed_.begin()->first <= std::chrono::steady_clock::now()) {
    job = std::move(timed_.begin()->second);
    timed_.erase(timed_.begin());
  } else {
    return false;
  }
  lock.unlock();
  job();
  job = nullptr;  // what it holds goes before it stops to count
  if (is_event) waiting_.fetch_sub(1, std::memory_order_release);
  lock.lock();
  return true;
}

}  // namespace gradferry::tp
