// Peers in other processes, which are killed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "tests/unit/tensorpipe/test_host.h"

extern char** environ;

namespace gradferry::tp::testing {
namespace {

// A copy of this program that runs Child.DISABLED_Run in a mode. Killed at the end.
class ChildProcess {
 public:
  explicit ChildProcess(const std::string& mode) {
    int fds[2];
    EXPECT_EQ(pipe2(fds, O_CLOEXEC), 0);
    from_ = fds[0];
    std::vector<std::string> words;
    for (char** word = environ; *word != nullptr; ++word) {
      // The parent's report file is not the child's.
      if (std::strncmp(*word, "XML_OUTPUT_FILE=", 16) != 0 && std::strncmp(*word, "TESTBRIDGE", 10) != 0 &&
          std::strncmp(*word, "GTEST_", 6) != 0 && std::strncmp(*word, "TEST_", 5) != 0) {
        words.push_back(*word);
      }
    }
    words.push_back("GF_TEST_CHILD=" + mode);
    std::vector<char*> environment;
    for (std::string& word : words) environment.push_back(word.data());
    environment.push_back(nullptr);
    std::string self = "/proc/self/exe", filter = "--gtest_filter=Child.DISABLED_Run",
                also = "--gtest_also_run_disabled_tests";
    char* arguments[] = {self.data(), filter.data(), also.data(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, fds[1], 3);
    EXPECT_EQ(posix_spawn(&pid_, self.c_str(), &actions, nullptr, arguments, environment.data()), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(fds[1]);
  }

  ~ChildProcess() {
    Kill();
    close(from_);
  }

  // What the child says, up to a newline.
  std::string ReadLine() {
    std::string line;
    char byte = 0;
    while (read(from_, &byte, 1) == 1 && byte != '\n') line += byte;
    return line;
  }

  void Kill() {
    if (pid_ <= 0) return;
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
  int from_ = -1;
};

void Say(const std::string& line) {
  const std::string text = line + "\n";
  EXPECT_EQ(write(3, text.data(), text.size()), static_cast<ssize_t>(text.size()));
}

// From here on process_vm_readv fails in this process, as it does in many containers.
void ForbidReadingOthers() {
  sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_process_vm_readv, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program{sizeof(filter) / sizeof(filter[0]), filter};
  ASSERT_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
  ASSERT_EQ(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), 0);
}

// Serves frames until it is killed: "echo" answers each, "hold" never finishes taking the first that has a segment.
TEST(Child, DISABLED_Run) {
  const char* mode = std::getenv("GF_TEST_CHILD");
  if (mode == nullptr) GTEST_SKIP() << "only as a child of other tests";
  const std::string channels = std::string(mode).find("basic") != std::string::npos ? R"(["basic"])" : R"(["cma"])";
  if (std::string(mode).find("forbidden") != std::string::npos) ForbidReadingOthers();
  Host host(R"({"channels": )" + channels + "}");
  host.prepare = [&](Peer& peer) {
    peer.on_frame = [&](Peer& in) { host.Send(&in, in.frames.back()); };
    if (std::string(mode).find("hold") == std::string::npos) return;
    peer.on_descriptor = [](Peer& in) -> int32_t {
      if (in.incoming->segments.empty()) return GF_OK;
      Say("holding");
      for (;;) pause();
    };
  };
  ASSERT_EQ(host.Listen().code, GF_OK);
  Say(host.address());
  for (;;) pause();
}

// By which way the host sends large segments to the peer, once that is known.
std::string PathTo(Host& host, Peer* peer) {
  const auto limit = std::chrono::steady_clock::now() + kPatience;
  for (;;) {
    const nlohmann::json facts = host.Facts(peer);
    const std::string why = facts.value("path_reason", "");
    if (why.find("not been tried") == std::string::npos) return facts.value("path", "") + " " + why;
    if (std::chrono::steady_clock::now() > limit) return "unknown";
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void ExpectEchoes(Host& host, Peer* peer) {
  const Frame frame{"large", {Bytes(10, 1), Bytes(3 << 20, 2), Bytes(100000, 3), Bytes((1 << 20) + 1, 4)}};
  const size_t before = host.Locked([&] { return peer->frames.size(); });
  for (int i = 0; i < 5; ++i) EXPECT_EQ(host.Send(peer, frame).code, GF_OK);
  ASSERT_TRUE(host.WaitFrames(peer, before + 5));
  for (size_t i = before; i < before + 5; ++i) EXPECT_TRUE(host.Locked([&] { return peer->frames[i]; }) == frame);
  EXPECT_TRUE(host.WaitSent(peer, 5));
}

TEST(Cma, IsUsedBetweenTwoProcessesThatCanReadEachOther) {
  ChildProcess child("echo cma");
  Host host;
  Peer* peer = host.Connect(child.ReadLine());
  EXPECT_EQ(PathTo(host, peer), "cma ");
  ExpectEchoes(host, peer);
}

TEST(Cma, EachDirectionFallsBackForItself) {
  ChildProcess child("echo cma forbidden");
  Host host;
  Peer* peer = host.Connect(child.ReadLine());
  const std::string path = PathTo(host, peer);
  EXPECT_EQ(path.substr(0, 4), "tcp ") << path;
  EXPECT_NE(path.find("process_vm_readv"), std::string::npos) << path;
  EXPECT_NE(path.find("ptrace_scope"), std::string::npos) << path;
  ExpectEchoes(host, peer);  // back by cma, which the child does not read
}

TEST(Cma, AnEndThatHasItNotIsNotRead) {
  ChildProcess child("echo basic");
  Host host;
  Peer* peer = host.Connect(child.ReadLine());
  EXPECT_EQ(PathTo(host, peer), "tcp the other side's transport.tensorpipe.channels has no cma");
  ExpectEchoes(host, peer);
}

class Killed : public ::testing::TestWithParam<const char*> {};

TEST_P(Killed, PeerIsReportedLost) {
  ChildProcess child(std::string("echo ") + GetParam());
  Host host(std::string(R"({"channels": [")") + GetParam() + R"("]})");
  Peer* peer = host.Connect(child.ReadLine());
  const Frame frame{"hello", {Bytes(10, 1), Bytes(1 << 20, 2)}};
  EXPECT_EQ(host.Send(peer, frame).code, GF_OK);
  ASSERT_TRUE(host.WaitFrames(peer, 1));
  EXPECT_TRUE(peer->frames[0] == frame);
  child.Kill();
  ASSERT_TRUE(host.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_PEER_LOST) << peer->closed_text;
}

TEST_P(Killed, PeerFailsTheSendsOnTheirWay) {
  ChildProcess child(std::string("hold ") + GetParam());
  Host host(std::string(R"({"channels": [")") + GetParam() + R"("]})");
  Peer* peer = host.Connect(child.ReadLine());
  PathTo(host, peer);
  EXPECT_EQ(host.Send(peer, {"no segments", {}}).code, GF_OK);
  ASSERT_TRUE(host.WaitFrames(peer, 1));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(host.Send(peer, {"large", {Bytes(16 << 20, i)}}).code, GF_OK);
  ASSERT_EQ(child.ReadLine(), "holding");
  child.Kill();
  ASSERT_TRUE(host.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_PEER_LOST) << peer->closed_text;
  EXPECT_EQ(peer->sent.size(), 5u);
  EXPECT_EQ(peer->outgoing.back().code, GF_PEER_LOST) << peer->outgoing.back().text;
}

INSTANTIATE_TEST_SUITE_P(Tensorpipe, Killed, ::testing::Values("cma", "basic"),
                         [](const auto& info) { return std::string(info.param); });

}  // namespace
}  // namespace gradferry::tp::testing
