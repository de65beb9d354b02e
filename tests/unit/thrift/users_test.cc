// Unix sockets are for one user: another one is refused at both ends, whatever the permissions of folders and sockets
// say, and a folder that is not this user's alone is not listened in. Only root can be two users; others skip.
#include <grp.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <functional>
#include <string>

#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

constexpr uid_t kNobody = 65534;

#define SKIP_UNLESS_ROOT() \
  if (::geteuid() != 0) GTEST_SKIP() << "only root can be another user for a while"

// A child process that runs as nobody. What it does must be safe after a fork of a process with threads.
class AsNobody {
 public:
  explicit AsNobody(const std::function<int()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    if (::setgroups(0, nullptr) != 0 || ::setgid(kNobody) != 0 || ::setuid(kNobody) != 0) ::_exit(100);
    ::_exit(body());
  }
  ~AsNobody() {
    if (pid_ > 0) Wait();
  }
  int Wait() {
    int status = -1;
    EXPECT_EQ(::waitpid(pid_, &status, 0), pid_);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_;
};

// Open to everybody, and so is what is in it, from now on.
void OpenToAll(const std::string& path) { ASSERT_EQ(::chmod(path.c_str(), 0777), 0); }

SocketAddress Where(const std::string& path) {
  Address address;
  EXPECT_TRUE(ParseAddress("unix://" + path, AddressUse::kConnect, &address).ok());
  return ToSocketAddress(address);
}

TEST(Users, AnotherOneThatConnectsIsRefused) {
  SKIP_UNLESS_ROOT();
  const Folder folder;
  const std::string path = folder.File("socket");
  Host server, client;
  ASSERT_EQ(server.Listen("unix://" + path).code, GF_OK);
  OpenToAll(folder.path());
  OpenToAll(path);
  const SocketAddress where = Where(path);
  AsNobody child([&where] {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    if (::connect(fd, where.get(), where.length) != 0) return 1;  // the kernel lets it in
    char byte;
    return ::recv(fd, &byte, 1, 0) <= 0 ? 0 : 2;  // until we are found out
  });
  EXPECT_EQ(child.Wait(), 0);
  EXPECT_TRUE(server.WaitLog("runs as user 65534, this one as user 0", 1));
  EXPECT_EQ(server.Stats()["connections_refused"], 1);
  // The first one that the host hears of is ours.
  Peer* peer = client.Connect(server.address());
  EXPECT_EQ(client.Send(peer, {"x", {}}).code, GF_OK);
  EXPECT_TRUE(server.WaitFrames(server.Accepted(0), 1));
}

TEST(Users, AnotherOneThatListensIsRefused) {
  SKIP_UNLESS_ROOT();
  const Folder folder;
  OpenToAll(folder.path());
  const std::string path = folder.File("socket");
  const SocketAddress where = Where(path);
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  AsNobody child([&] {
    const int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    if (::bind(fd, where.get(), where.length) != 0 || ::listen(fd, 1) != 0) return 1;
    ::close(ready[1]);
    const int taken = ::accept(fd, nullptr, nullptr);
    char byte;
    return ::recv(taken, &byte, 1, 0) <= 0 ? 0 : 2;  // not a byte of what is to be sent
  });
  ::close(ready[1]);
  char byte;
  EXPECT_EQ(::read(ready[0], &byte, 1), 0);
  ::close(ready[0]);
  Host client;
  Peer* peer = client.Connect("unix://" + path);
  (void)client.Send(peer, {"secret", {}});
  ASSERT_TRUE(client.WaitClosed(peer));
  EXPECT_EQ(peer->closed_code, GF_PERMISSION_DENIED) << peer->closed_text;
  EXPECT_NE(peer->closed_text.find("runs as user 65534"), std::string::npos) << peer->closed_text;
  EXPECT_EQ(child.Wait(), 0);
}

// XDG_RUNTIME_DIR, in which the plugin makes its folder, is this while it lives.
class RuntimeFolder {
 public:
  RuntimeFolder() : before_(std::getenv("XDG_RUNTIME_DIR") != nullptr ? std::getenv("XDG_RUNTIME_DIR") : "") {
    ::setenv("XDG_RUNTIME_DIR", folder_.path().c_str(), 1);
    EXPECT_EQ(::mkdir(own().c_str(), 0700), 0);
  }
  ~RuntimeFolder() {
    if (before_.empty()) {
      ::unsetenv("XDG_RUNTIME_DIR");
    } else {
      ::setenv("XDG_RUNTIME_DIR", before_.c_str(), 1);
    }
  }
  std::string own() const { return folder_.File("gradferry"); }

 private:
  const Folder folder_;
  const std::string before_;
};

void ExpectRefusedFolder(const std::string& folder) {
  Host host;
  const Result result = host.Listen("unix://");
  EXPECT_EQ(result.code, GF_PERMISSION_DENIED) << result;
  EXPECT_NE(result.text.find(folder), std::string::npos) << result;
  EXPECT_NE(result.text.find("0700"), std::string::npos) << result;
}

TEST(Users, AFolderThatOthersMayEnterIsNotListenedIn) {
  const RuntimeFolder folder;
  for (const mode_t mode : {0710, 0701, 0750, 0777, 01777}) {
    ASSERT_EQ(::chmod(folder.own().c_str(), mode), 0);
    ExpectRefusedFolder(folder.own());
  }
  ASSERT_EQ(::chmod(folder.own().c_str(), 0700), 0);
  Host host;
  EXPECT_EQ(host.Listen("unix://").code, GF_OK);
  EXPECT_EQ(host.address().rfind("unix://" + folder.own() + "/", 0), 0u) << host.address();
}

TEST(Users, AFolderOfAnotherOneIsNotListenedIn) {
  SKIP_UNLESS_ROOT();
  const RuntimeFolder folder;
  ASSERT_EQ(::chown(folder.own().c_str(), kNobody, kNobody), 0);
  ExpectRefusedFolder(folder.own());
}

TEST(Users, ALinkToAFolderIsNotListenedIn) {
  const RuntimeFolder folder;
  const Folder elsewhere;
  ASSERT_EQ(::rmdir(folder.own().c_str()), 0);
  ASSERT_EQ(::symlink(elsewhere.path().c_str(), folder.own().c_str()), 0);
  ExpectRefusedFolder(folder.own());
  ASSERT_EQ(::unlink(folder.own().c_str()), 0);
}

}  // namespace
}  // namespace gradferry::thrift::testing
