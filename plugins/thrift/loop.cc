#include "plugins/thrift/loop.h"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "plugins/support/short_slices.h"

namespace gradferry::thrift {
namespace {

constexpr int kEventsPerRound = 64;
constexpr long kSoonNanoseconds = 1000 * 1000;

void Drain(int fd) {
  uint64_t count;
  while (::read(fd, &count, sizeof(count)) > 0) {
  }
}

}  // namespace

Status Loop::Start(std::unique_ptr<Loop>* out) {
  std::unique_ptr<Loop> loop(new Loop);
  loop->epoll_ = FileDescriptor(::epoll_create1(EPOLL_CLOEXEC));
  loop->wake_ = FileDescriptor(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  loop->soon_ = FileDescriptor(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (!loop->epoll_.valid() || !loop->wake_.valid() || !loop->soon_.valid()) {
    return {GF_RESOURCE_EXHAUSTED, "no file descriptors for a thread of I/O: " + Describe(errno)};
  }
  for (const FileDescriptor* fd : {&loop->wake_, &loop->soon_}) {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = fd->get();
    // What is watched for others has a pointer here, which no descriptor looks like.
    if (::epoll_ctl(loop->epoll_.get(), EPOLL_CTL_ADD, fd->get(), &event) != 0) {
      return {GF_RESOURCE_EXHAUSTED, "cannot start a thread of I/O: " + Describe(errno)};
    }
  }
  const plugins::ShortSlices slices;
  loop->thread_ = std::thread([raw = loop.get()] { raw->Run(); });
  *out = std::move(loop);
  return {};
}

Loop::~Loop() {
  stopping_ = true;
  Wake();
  if (thread_.joinable()) thread_.join();
}

// ---- Other threads -----------------------------------------------------------------------------------------------

void Loop::Post(Job job) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    jobs_.push_back(std::move(job));
  }
  if (!OnThisThread()) Wake();
}

void Loop::Defer(std::shared_ptr<Deferred> what, Urgency urgency) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    deferred_.push_back(std::move(what));
  }
  if (OnThisThread()) return;
  if (urgency == Urgency::kNow) return Wake();
  if (soon_set_.exchange(true)) return;
  const itimerspec in_a_moment{{0, 0}, {0, kSoonNanoseconds}};
  ::timerfd_settime(soon_.get(), 0, &in_a_moment, nullptr);
}

void Loop::Wake() {
  if (woken_.exchange(true)) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

Status Loop::Watch(int fd, uint32_t events, Watcher* watcher) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = watcher;
  if (::epoll_ctl(epoll_.get(), EPOLL_CTL_ADD, fd, &event) == 0) return {};
  return {GF_RESOURCE_EXHAUSTED, "cannot wait for a socket: " + Describe(errno)};
}

void Loop::Change(int fd, uint32_t events, Watcher* watcher) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = watcher;
  ::epoll_ctl(epoll_.get(), EPOLL_CTL_MOD, fd, &event);
}

void Loop::Forget(int fd) { ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, fd, nullptr); }

// ---- The thread itself -------------------------------------------------------------------------------------------

Loop::Timer Loop::At(Clock::time_point due, Job job) {
  const Timer timer{due, ++last_timer_};
  timers_.emplace(timer, std::move(job));
  return timer;
}

void Loop::Run() {
  std::array<epoll_event, kEventsPerRound> events;
  for (;;) {
    const int patience = Patience();
    int ready = 0;
    spin_.Begin();
    while (ready == 0 && patience != 0 && spin_.Again()) {
      ready = ::epoll_wait(epoll_.get(), events.data(), kEventsPerRound, 0);
    }
    if (ready == 0) ready = ::epoll_wait(epoll_.get(), events.data(), kEventsPerRound, patience);
    spin_.End();
    for (int i = 0; i < ready; ++i) {
      if (events[i].data.u64 == static_cast<uint64_t>(wake_.get())) {
        Drain(wake_.get());
        woken_ = false;
      } else if (events[i].data.u64 == static_cast<uint64_t>(soon_.get())) {
        Drain(soon_.get());
        soon_set_ = false;
      } else {
        static_cast<Watcher*>(events[i].data.ptr)->OnReady(events[i].events);
      }
    }
    RunDeferred();
    RunJobs();
    RunTimers();
    if (stopping_) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (jobs_.empty() && deferred_.empty()) return;
    }
  }
}

// How long to sleep, in ms; -1: until something happens.
int Loop::Patience() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!jobs_.empty() || !deferred_.empty()) return 0;
  }
  if (timers_.empty()) return -1;
  const auto left = timers_.begin()->first.first - Clock::now();
  const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
  return static_cast<int>(std::clamp<int64_t>(ms, 0, 1000 * 1000));
}

void Loop::RunDeferred() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_deferred_.swap(deferred_);
  }
  for (const auto& deferred : running_deferred_) deferred->RunDeferred();
  running_deferred_.clear();
}

void Loop::RunJobs() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    running_jobs_.swap(jobs_);
  }
  for (const Job& job : running_jobs_) job();
  running_jobs_.clear();
}

void Loop::RunTimers() {
  if (timers_.empty()) return;
  const auto now = Clock::now();
  while (!timers_.empty() && timers_.begin()->first.first <= now) {
    const Job job = std::move(timers_.begin()->second);
    timers_.erase(timers_.begin());
    job();
  }
}

}  // namespace gradferry::thrift
