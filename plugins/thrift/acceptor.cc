#include "plugins/thrift/acceptor.h"

#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <utility>

namespace gradferry::thrift {
namespace {

// In one round of the loop, so that the connections come to their turn.
constexpr int kAcceptsAtOnce = 16;
constexpr std::chrono::milliseconds kPause{100};
constexpr std::chrono::seconds kBetweenComplaints{1};

FileDescriptor OpenSpare() { return FileDescriptor(::open("/dev/null", O_RDONLY | O_CLOEXEC)); }

}  // namespace

Acceptor::Acceptor(Shared* shared, Loop* loop, FileDescriptor listener, std::unique_ptr<LocalSocket> local,
                   Accepted accepted)
    : shared_(shared),
      loop_(loop),
      listener_(std::move(listener)),
      local_(std::move(local)),
      accepted_(std::move(accepted)),
      spare_(OpenSpare()) {}

Status Acceptor::Start() { return loop_->Watch(listener_.get(), EPOLLIN, this); }

void Acceptor::Close(std::function<void()> ended) {
  loop_->Post([this, ended = std::move(ended)] {
    loop_->Forget(listener_.get());
    if (paused_) loop_->Cancel(resume_);
    local_.reset();
    listener_.reset();
    ended();
  });
}

void Acceptor::OnReady(uint32_t) {
  for (int i = 0; i < kAcceptsAtOnce && AcceptOne(); ++i) {
  }
}

bool Acceptor::AcceptOne() {
  FileDescriptor fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
  if (fd.valid()) {
    accepted_(std::move(fd));
    return true;
  }
  switch (errno) {
    case EAGAIN:
      return false;
    case EMFILE:
    case ENFILE:
      SendAwayOne();
      return true;
    case ENOBUFS:
    case ENOMEM:
      Pause();
      return false;
    default:
      // Of the connection that was to be accepted, which has gone; see accept(2).
      return true;
  }
}

// Who connects shall not wait for us without an answer.
void Acceptor::SendAwayOne() {
  const auto now = Loop::Clock::now();
  if (now - complained_ > kBetweenComplaints) {
    complained_ = now;
    shared_->Log(LogLevel::kError, "no file descriptors are left: connections are refused (raise ulimit -n)");
  }
  ++shared_->counters.refused;
  if (!spare_.valid()) return Pause();
  spare_.reset();
  { const FileDescriptor sent_away(::accept4(listener_.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)); }
  spare_ = OpenSpare();
}

void Acceptor::Pause() {
  if (paused_) return;
  paused_ = true;
  loop_->Change(listener_.get(), 0, this);
  resume_ = loop_->At(Loop::Clock::now() + kPause, [this] {
    paused_ = false;
    if (!spare_.valid()) spare_ = OpenSpare();
    loop_->Change(listener_.get(), EPOLLIN, this);
  });
}

}  // namespace gradferry::thrift
