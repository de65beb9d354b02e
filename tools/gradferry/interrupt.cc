// See interrupt.h. The handler writes to an eventfd, so that a signal between a look and a wait is not missed,
// whichever thread it comes to.
#include "tools/gradferry/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <initializer_list>

namespace gradferry::command {
namespace {

int event_fd = -1;  // set before the handler is installed

void OnSignal(int) {
  const int before = errno;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_fd, &one, sizeof(one));
  errno = before;
}

}  // namespace

int InterruptFd() {
  static const int fd = [] {
    event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct sigaction action {};
    action.sa_handler = OnSignal;
    action.sa_flags = SA_RESTART;  // who waits polls the eventfd
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaction(signal, &action, nullptr);
    return event_fd;
  }();
  return fd;
}

bool Interrupted() {
  pollfd look{InterruptFd(), POLLIN, 0};
  return poll(&look, 1, 0) == 1;
}

void SleepUnlessInterrupted(double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto until = Clock::now() + std::chrono::duration<double>(seconds);
  pollfd look{InterruptFd(), POLLIN, 0};
  for (;;) {
    const double left = std::chrono::duration<double, std::milli>(until - Clock::now()).count();
    if (left <= 0) return;
    if (poll(&look, 1, static_cast<int>(std::ceil(left))) == 1) return;
  }
}

}  // namespace gradferry::command
