// See scrape.h.
#include "tools/gradferry/scrape.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <sstream>

#include "tools/gradferry/interrupt.h"
#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

constexpr size_t kMostBytes = 64 << 20;

class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  Socket(const Socket&) = delete;
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }

 private:
  const int fd_;
};

using Clock = std::chrono::steady_clock;

// Until the socket is ready for this; "" or why not.
std::string Wait(const Socket& socket, short events, Clock::time_point deadline) {
  pollfd looks[] = {{socket.get(), events, 0}, {InterruptFd(), POLLIN, 0}};
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
    if (left <= 0) return "no answer in time";
    const int ready = poll(looks, 2, static_cast<int>(left));
    if (ready < 0 && errno != EINTR) return strerror(errno);
    if (ready <= 0) continue;
    return looks[1].revents != 0 ? "interrupted" : "";
  }
}

// A connection, or none and why not.
std::string Connect(const Socket& socket, const addrinfo& to, Clock::time_point deadline) {
  if (socket.get() < 0) return strerror(errno);
  if (connect(socket.get(), to.ai_addr, to.ai_addrlen) == 0) return "";
  if (errno != EINPROGRESS) return strerror(errno);
  if (const std::string failed = Wait(socket, POLLOUT, deadline); !failed.empty()) return failed;
  int error = 0;
  socklen_t length = sizeof(error);
  getsockopt(socket.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  return error == 0 ? "" : strerror(error);
}

std::string Get(const std::string& host, const std::string& port, double timeout_s) {
  const auto failure = [&](const std::string& why) {
    return Failure("the metrics at " + host + ":" + port + " cannot be read: " + why);
  };
  const auto deadline =
      Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(timeout_s));
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int failed = getaddrinfo(host.c_str(), port.c_str(), &hints, &found); failed != 0) {
    throw failure(gai_strerror(failed));
  }
  const Socket socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const std::string refused = Connect(socket, *found, deadline);
  freeaddrinfo(found);
  if (!refused.empty()) throw failure(refused);
  const std::string request = "GET /metrics HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n";
  // It fits into the empty buffer of a new connection.
  if (send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) < 0) throw failure(strerror(errno));
  std::string answer;
  char bytes[16384];
  for (;;) {
    if (const std::string failed = Wait(socket, POLLIN, deadline); !failed.empty()) throw failure(failed);
    const ssize_t count = recv(socket.get(), bytes, sizeof(bytes), 0);
    if (count < 0 && errno == EAGAIN) continue;
    if (count < 0) throw failure(strerror(errno));
    if (count == 0) break;
    answer.append(bytes, static_cast<size_t>(count));
    if (answer.size() > kMostBytes) throw failure("the answer is too long");
  }
  const size_t body = answer.find("\r\n\r\n");
  if (answer.rfind("HTTP/1.1 200", 0) != 0 || body == std::string::npos) {
    throw failure("the answer begins with \"" + answer.substr(0, answer.find_first_of("\r\n")).substr(0, 60) + "\"");
  }
  return answer.substr(body + 4);
}

// The labels from behind the brace; where the text goes on.
size_t ReadLabels(const std::string& line, size_t at, std::map<std::string, std::string>& labels) {
  while (at < line.size() && line[at] != '}') {
    const size_t equals = line.find("=\"", at);
    if (equals == std::string::npos) return line.size();
    const std::string name = line.substr(at, equals - at);
    std::string value;
    for (at = equals + 2; at < line.size() && line[at] != '"'; ++at) {
      if (line[at] == '\\' && at + 1 < line.size()) ++at;
      value += line[at];
    }
    labels[name] = value;
    if (++at < line.size() && line[at] == ',') ++at;
  }
  return at + 1;
}

}  // namespace

std::vector<Sample> ParseSamples(const std::string& text) {
  std::vector<Sample> samples;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.empty() || line[0] == '#') continue;
    Sample sample;
    size_t at = line.find_first_of("{ ");
    if (at == std::string::npos) continue;
    sample.name = line.substr(0, at);
    if (line[at] == '{') at = ReadLabels(line, at + 1, sample.labels);
    if (at >= line.size()) continue;
    sample.value = std::strtod(line.c_str() + at, nullptr);
    samples.push_back(std::move(sample));
  }
  return samples;
}

std::vector<Sample> Scrape(const std::string& target, double timeout_s) {
  std::string rest = target;
  if (rest.rfind("http://", 0) == 0) rest = rest.substr(7);
  rest = rest.substr(0, rest.find('/'));
  const size_t colon = rest.rfind(':');
  if (colon == std::string::npos || colon + 1 == rest.size()) {
    throw Failure("the worker's metrics are wanted as HOST:PORT (its metrics.listen); got " + target);
  }
  std::string host = rest.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  auto samples = ParseSamples(Get(host, rest.substr(colon + 1), timeout_s));
  for (const Sample& sample : samples) {
    if (sample.name == "gradferry_worker_info") return samples;
  }
  throw Failure("at " + target + " there are no metrics of a Gradferry worker");
}

}  // namespace gradferry::command
