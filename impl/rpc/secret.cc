// See secret.h.
#include "impl/rpc/secret.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>

namespace gradferry {
namespace {

// Whoever connects gets a proof to try guesses on, as many as he likes.
constexpr size_t kShortest = 16;
constexpr size_t kLongest = 4096;

constexpr char kKey[] = "security.secret";
constexpr char kFileKey[] = "security.secret_file";

class File {
 public:
  explicit File(const std::string& path) : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
  File(const File&) = delete;
  ~File() {
    if (fd_ >= 0) close(fd_);
  }
  int fd() const { return fd_; }

 private:
  const int fd_;
};

Result<std::string> ReadSecretFile(const std::string& path) {
  const auto failed = [&](Code code, const std::string& why) {
    return Status(code, StrCat(kFileKey, ": the file ", path, " ", why));
  };
  const File file(path);
  struct stat facts {};
  if (file.fd() < 0 || fstat(file.fd(), &facts) != 0) {
    return failed(errno == ENOENT ? Code::kNotFound : Code::kFailedPrecondition,
                  StrCat("cannot be read: ", strerror(errno)));
  }
  if (!S_ISREG(facts.st_mode)) return failed(Code::kInvalidArgument, "is no ordinary file");
  if ((facts.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    char mode[8];
    std::snprintf(mode, sizeof(mode), "%04o", facts.st_mode & 07777);
    return failed(Code::kFailedPrecondition,
                  StrCat("has mode ", mode, ", which gives rights to others than its owner: chmod 600 ", path));
  }
  std::string text(kLongest + 1, '\0');
  size_t length = 0;
  while (length < text.size()) {
    const ssize_t got = read(file.fd(), text.data() + length, text.size() - length);
    if (got < 0) return failed(Code::kFailedPrecondition, StrCat("cannot be read: ", strerror(errno)));
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  if (length > kLongest) return failed(Code::kInvalidArgument, StrCat("has more than ", kLongest, " bytes"));
  text.resize(length);
  while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
  return text;
}

}  // namespace

Result<std::string> ReadSecret(const Config& config) {
  std::string secret = config.GetString(kKey);
  const std::string path = config.GetString(kFileKey);
  if (secret.empty() && path.empty()) return secret;
  if (!secret.empty() && !path.empty()) return InvalidArgument(StrCat(kKey, " and ", kFileKey, " are both set"));
  if (!path.empty()) {
    GF_ASSIGN_OR_RETURN(secret, ReadSecretFile(path));
  }
  if (secret.size() < kShortest) {
    return InvalidArgument(StrCat(path.empty() ? kKey : kFileKey, " is shorter than ", kShortest,
                                  " bytes and could be guessed; `openssl rand -hex 32` makes a good one"));
  }
  return secret;
}

}  // namespace gradferry
