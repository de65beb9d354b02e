#include "plugins/thrift/linger.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <cerrno>
#include <chrono>
#include <memory>

namespace gradferry::thrift {
namespace {

constexpr std::chrono::milliseconds kPatience{250};
constexpr size_t kMostBytes = 4 * 1024 * 1024;

// Lives in its timer's job.
class Lingering final : public Loop::Watcher, public std::enable_shared_from_this<Lingering> {
 public:
  Lingering(Loop* loop, FileDescriptor fd) : loop_(loop), fd_(std::move(fd)) {}

  void Start() {
    if (!loop_->Watch(fd_.get(), EPOLLIN, this).ok()) return;
    timer_ = loop_->At(Loop::Clock::now() + kPatience,
                       [self = shared_from_this()] { self->loop_->Forget(self->fd_.get()); });
  }

  void OnReady(uint32_t) override {
    char bytes[16 * 1024];
    for (;;) {
      const ssize_t got = ::recv(fd_.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
      if (got > 0 && (bytes_ += static_cast<size_t>(got)) < kMostBytes) continue;
      const auto self = shared_from_this();
      loop_->Forget(fd_.get());
      loop_->Cancel(timer_);
      return;
    }
  }

 private:
  Loop* const loop_;
  const FileDescriptor fd_;
  Loop::Timer timer_;
  size_t bytes_ = 0;
};

}  // namespace

void Linger(Loop* loop, FileDescriptor fd) { std::make_shared<Lingering>(loop, std::move(fd))->Start(); }

}  // namespace gradferry::thrift
