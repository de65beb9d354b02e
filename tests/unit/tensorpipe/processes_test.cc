// Peers in other processes, which are killed.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

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

// Serves frames until it is killed: "echo" answers each, "hold" never finishes taking the first that has a segment.
TEST(Child, DISABLED_Run) {
  const char* mode = std::getenv("GF_TEST_CHILD");
  if (mode == nullptr) GTEST_SKIP() << "only as a child of other tests";
  const std::string channels = std::string(mode).find("basic") != std::string::npos ? R"(["basic"])" : R"(["cma"])";
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
