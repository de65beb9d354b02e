#include "plugins/thrift/local_socket.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <memory>
#include <thread>

namespace gradferry::thrift {
namespace {

constexpr int kFlags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

Status Failed(const Address& address) {
  const int32_t code = errno == EACCES || errno == EPERM || errno == EROFS ? GF_PERMISSION_DENIED
                       : errno == EMFILE || errno == ENFILE                ? GF_RESOURCE_EXHAUSTED
                       : errno == ENOENT || errno == ENOTDIR               ? GF_INVALID_ARGUMENT
                       : errno == EADDRINUSE                               ? GF_ALREADY_EXISTS
                                                                           : GF_UNAVAILABLE;
  return {code, "cannot listen at " + address.text + ": " + Describe(errno)};
}

// A folder of this user's that nobody else may enter. Others could have made one of this name first; then it is not
// used.
Status OwnFolder(std::string* out) {
  const char* runtime = std::getenv("XDG_RUNTIME_DIR");
  const std::string folder = runtime != nullptr && runtime[0] == '/' ? std::string(runtime) + "/gradferry"
                                                                     : "/tmp/gradferry-" + std::to_string(::geteuid());
  struct stat found {};
  if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) {
    return {GF_UNAVAILABLE, "cannot make the folder " + folder + ": " + Describe(errno)};
  }
  if (::lstat(folder.c_str(), &found) != 0 || !S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() ||
      (found.st_mode & 077) != 0) {
    return {GF_PERMISSION_DENIED, folder + " is not a folder of this user's that nobody else may enter (mode 0700)"};
  }
  *out = folder;
  return {};
}

// Nobody who respects it makes or takes away sockets in the folder meanwhile. Who holds it for long is not waited for.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder) : fd_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    for (int attempt = 0; fd_.valid() && attempt < 20; ++attempt) {
      if (::flock(fd_.get(), LOCK_EX | LOCK_NB) == 0) return;
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  }

 private:
  const FileDescriptor fd_;
};

// Whether it is a socket that nobody listens at.
bool IsDead(const std::string& path) {
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0 || !S_ISSOCK(found.st_mode)) return false;
  Address address;
  if (!ParseAddress("unix://" + path, AddressUse::kConnect, &address).ok()) return false;
  const SocketAddress where = ToSocketAddress(address);
  const FileDescriptor fd(::socket(AF_UNIX, kFlags, 0));
  return fd.valid() && ::connect(fd.get(), where.get(), where.length) != 0 && errno == ECONNREFUSED;
}

// Of processes that were killed.
void TakeAwayDeadSockets(const std::string& folder) {
  const std::unique_ptr<DIR, int (*)(DIR*)> entries(::opendir(folder.c_str()), ::closedir);
  if (entries == nullptr) return;
  while (const dirent* entry = ::readdir(entries.get())) {
    if (entry->d_type != DT_SOCK) continue;
    const std::string path = folder + "/" + entry->d_name;
    if (IsDead(path)) ::unlink(path.c_str());
  }
}

}  // namespace

LocalSocket::~LocalSocket() {
  struct stat found {};
  if (path_.empty() || ::lstat(path_.c_str(), &found) != 0) return;
  if (found.st_dev == device_ && found.st_ino == inode_) ::unlink(path_.c_str());
}

Status LocalSocket::Listen(Address* address, FileDescriptor* out) {
  static std::atomic<uint64_t> number{0};
  std::string folder;
  const bool own = address->path.empty();
  if (own) {
    if (Status status = OwnFolder(&folder); !status.ok()) return status;
  } else {
    folder = address->path.substr(0, address->path.rfind('/') + 1);
  }
  const FolderLock lock(folder);
  if (own) TakeAwayDeadSockets(folder);
  struct stat found {};
  // Processes of other containers may share the folder and the number.
  while (own && (address->path.empty() || ::lstat(address->path.c_str(), &found) == 0)) {
    const std::string path = folder + "/" + std::to_string(::getpid()) + "." + std::to_string(++number);
    if (Status status = ParseAddress("unix://" + path, AddressUse::kListen, address); !status.ok()) return status;
  }
  if (IsDead(address->path)) ::unlink(address->path.c_str());
  const SocketAddress where = ToSocketAddress(*address);
  FileDescriptor fd(::socket(AF_UNIX, kFlags, 0));
  if (!fd.valid() || ::bind(fd.get(), where.get(), where.length) != 0) return Failed(*address);
  struct stat made {};
  if (::lstat(address->path.c_str(), &made) != 0 || ::listen(fd.get(), SOMAXCONN) != 0) return Failed(*address);
  path_ = address->path;
  device_ = made.st_dev;
  inode_ = made.st_ino;
  *out = std::move(fd);
  return {};
}

}  // namespace gradferry::thrift
