// `gradferry top`: its table, and the terminal, which is as it was when it ends, whatever ends it.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <future>
#include <thread>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/tools/run_command.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kOtherScreen[] = "\033[?1049h\033[?25l";
constexpr char kBack[] = "\033[?25h\033[?1049l";

int Lines(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

TEST(TopTest, ShowsThePeersOfAWorker) {
  Group group("sim", {"a", "b"}, {{"metrics.listen", "127.0.0.1:0"}});
  RemoteOp(group[0], "b", {}, "aten::neg", Floats({}, {3}));
  const std::string port = Info(group[0])["metrics_address"];
  std::atomic<bool> done{false};
  std::thread caller([&] {
    while (!done) RemoteOp(group[0], "b", {}, "aten::neg", Floats({}, {3}));
  });
  const Ran ran = RunGradferry("top " + port + " --once -i 0.2");
  const Ran two = RunGradferry("top " + port + " -n 2 -i 0.1");
  done = true;
  caller.join();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(StartsWith("worker a of group default, open: "), HasSubstr("IN FLIGHT")));
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("b +connected +sim +[1-9][0-9]* "));
  EXPECT_THAT(ran.out, Not(HasSubstr("\033")));  // no terminal
  EXPECT_EQ(Lines(ran.out), 4);
  EXPECT_EQ(Lines(two.out), 8);
}

TEST(TopTest, SaysWhenThereIsNoWorker) {
  const auto error = [](const std::string& arguments) {
    const Ran ran = RunGradferry("top " + arguments);
    EXPECT_EQ(ran.status, 1);
    EXPECT_EQ(Lines(ran.err), 1) << ran.err;
    return ran.err;
  };
  EXPECT_THAT(error("127.0.0.1:1"), HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(error("nowhere"), HasSubstr("HOST:PORT"));
}

// A worker's port that answers so often, and then takes connections without a word.
class FakeWorker {
 public:
  explicit FakeWorker(int answers) : answers_(answers), socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof(address);
    if (bind(socket_, reinterpret_cast<sockaddr*>(&address), length) != 0 || listen(socket_, 8) != 0) std::abort();
    getsockname(socket_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    thread_ = std::thread([this] { Serve(); });
  }
  ~FakeWorker() { Die(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  // Until somebody waits for an answer that does not come.
  void WaitUntilAskedInVain() { in_vain_.get_future().wait(); }
  // Its connections are reset, nobody listens any more.
  void Die() {
    if (!thread_.joinable()) return;
    shutdown(socket_, SHUT_RDWR);
    thread_.join();
    close(socket_);
    for (const int fd : held_) close(fd);
  }

 private:
  void Serve() {
    for (int fd; (fd = accept(socket_, nullptr, nullptr)) >= 0;) {
      if (answers_-- <= 0) {
        held_.push_back(fd);
        if (held_.size() == 1) in_vain_.set_value();
        continue;
      }
      std::string request;
      char byte;
      while (request.find("\r\n\r\n") == std::string::npos && recv(fd, &byte, 1, 0) == 1) request += byte;
      static constexpr char kAnswer[] =
          "HTTP/1.1 200 OK\r\n\r\ngradferry_worker_info{worker=\"w\",group=\"g\",state=\"open\"} 1\n";
      send(fd, kAnswer, sizeof(kAnswer) - 1, MSG_NOSIGNAL);
      close(fd);
    }
  }

  int answers_;  // the thread's, as is held_ until it has ended
  std::vector<int> held_;
  std::promise<void> in_vain_;
  const int socket_;
  int port_ = 0;
  std::thread thread_;
};

// The command on a terminal of its own, whose session it leads.
class Terminal {
 public:
  explicit Terminal(const std::string& target, const char* interval = "0.05") {
    pid_ = forkpty(&master_, nullptr, nullptr, nullptr);
    if (pid_ != 0) return;
    execl("tools/gradferry/gradferry", "gradferry", "top", target.c_str(), "-i", interval, "-t", "60", nullptr);
    _exit(127);
  }
  Terminal(const Terminal&) = delete;
  ~Terminal() {
    if (pid_ > 0) kill(pid_, SIGKILL), waitpid(pid_, nullptr, 0);
    if (master_ >= 0) close(master_);
  }
  pid_t pid() const { return pid_; }
  // All that came, once this text is in it.
  const std::string& ReadUntil(const std::string& text) {
    while (shown_.find(text) == std::string::npos && ReadSome()) {
    }
    EXPECT_THAT(shown_, HasSubstr(text));
    return shown_;
  }
  void Type(const std::string& keys) {
    EXPECT_EQ(write(master_, keys.data(), keys.size()), static_cast<ssize_t>(keys.size()));
  }
  void Hang() { close(std::exchange(master_, -1)); }
  // All that came until it ended; the status of its exit, or 128 + the signal.
  std::string ReadToTheEnd(int* status) {
    while (master_ >= 0 && ReadSome()) {
    }
    *status = -1;
    Eventually([&] { return waitpid(pid_, status, WNOHANG) != 0; });
    if (*status == -1) return shown_;  // killed by the destructor
    pid_ = -1;
    *status = WIFEXITED(*status) ? WEXITSTATUS(*status) : 128 + WTERMSIG(*status);
    return shown_;
  }

 private:
  bool ReadSome() {
    pollfd look{master_, POLLIN, 0};
    char bytes[4096];
    if (poll(&look, 1, static_cast<int>(kPatience / 1000000)) != 1) return false;
    const ssize_t count = read(master_, bytes, sizeof(bytes));
    if (count > 0) shown_.append(bytes, static_cast<size_t>(count));
    return count > 0;  // EIO: nobody has the other side open any more
  }

  int master_ = -1;
  pid_t pid_ = -1;
  std::string shown_;
};

int Times(const std::string& text, const std::string& part) {
  int times = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++times;
  return times;
}

// Ended without a complaint, and the terminal has its screen and its cursor back.
void ExpectRestored(Terminal& terminal) {
  int status = 0;
  const std::string shown = terminal.ReadToTheEnd(&status);
  EXPECT_EQ(status, 0) << shown;
  EXPECT_EQ(Times(shown, kOtherScreen), 1) << shown;
  EXPECT_EQ(Times(shown, kBack), 1) << shown;
  EXPECT_THAT(shown, EndsWith(kBack));
}

TEST(TopOnATerminalTest, CtrlCAndSigtermGiveItBack) {
  FakeWorker worker(1000000);
  // Before the first table, while it sleeps for an hour; and between tables.
  for (const char* interval : {"3600", "0.05"}) {
    const char* const moment = interval[0] == '3' ? kOtherScreen : "IN FLIGHT";
    Terminal typed(worker.address(), interval);
    typed.ReadUntil(moment);
    typed.Type("\003");
    ExpectRestored(typed);
    Terminal killed(worker.address(), interval);
    killed.ReadUntil(moment);
    EXPECT_EQ(kill(killed.pid(), SIGTERM), 0);
    ExpectRestored(killed);
  }
}

TEST(TopOnATerminalTest, CtrlCGivesItBackWhileTheWorkerIsSilent) {
  FakeWorker worker(1);
  Terminal terminal(worker.address());
  terminal.ReadUntil(kOtherScreen);
  worker.WaitUntilAskedInVain();
  terminal.Type("\003");
  ExpectRestored(terminal);
}

TEST(TopOnATerminalTest, TheDeathOfTheWorkerGivesItBackAndIsTold) {
  for (const int answers : {1000000, 1}) {
    FakeWorker worker(answers);
    Terminal terminal(worker.address());
    terminal.ReadUntil(answers == 1 ? kOtherScreen : "IN FLIGHT");
    if (answers == 1) worker.WaitUntilAskedInVain();
    worker.Die();
    int status = 0;
    const std::string shown = terminal.ReadToTheEnd(&status);
    EXPECT_EQ(status, 1) << shown;
    EXPECT_EQ(Times(shown, kBack), 1) << shown;
    const std::string after = shown.substr(shown.find(kBack) + sizeof(kBack) - 1);
    EXPECT_THAT(after, StartsWith("gradferry: the metrics at " + worker.address()));
    EXPECT_EQ(Lines(after), 1) << after;
  }
}

TEST(TopOnATerminalTest, ATerminalThatIsClosedEndsIt) {
  FakeWorker worker(1000000);
  Terminal terminal(worker.address());
  terminal.ReadUntil("IN FLIGHT");
  terminal.Hang();
  int status = -1;
  terminal.ReadToTheEnd(&status);
  EXPECT_EQ(status, 0);
}

TEST(TopTest, AClosedOutputEndsItWithoutAComplaint) {
  FakeWorker worker(1000000);
  const TemporaryFolder folder;
  const std::string errors = folder.File("errors");
  FILE* pipe =
      popen(("timeout 60 tools/gradferry/gradferry top -i 0.05 " + worker.address() + " 2>" + errors).c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  char line[1024];
  EXPECT_NE(fgets(line, sizeof(line), pipe), nullptr);
  const int status = pclose(pipe);
  EXPECT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(access(errors.c_str(), F_OK), 0);
  EXPECT_EQ(RunGradferry("top -n 1 -i 0.05 " + worker.address() + " >/dev/full").status, 1);
}

}  // namespace
}  // namespace gf
