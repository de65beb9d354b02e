#include "plugins/tensorpipe/cma.h"

#include <sys/random.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace gradferry::tp {
namespace {

constexpr uint64_t kMagic = 0x616d632d66676d65ull;
// The kernel's own limit for one call, less a page.
constexpr uint64_t kMostAtOnce = 0x7ffff000ull - 4096;

std::string Advice(int error) {
  if (error != EPERM) return "";
  return " (another user's, a container's, or kernel.yama.ptrace_scope forbids it)";
}

Status ReadMemory(int64_t pid, uint64_t from, void* to, uint64_t length) {
  auto* at = static_cast<char*>(to);
  while (length > 0) {
    const size_t part = static_cast<size_t>(std::min(length, kMostAtOnce));
    iovec local{at, part};
    iovec remote{reinterpret_cast<void*>(from), part};  // NOLINT: another process's
    const ssize_t got = process_vm_readv(static_cast<pid_t>(pid), &local, 1, &remote, 1, 0);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      const int error = got == 0 ? EFAULT : errno;
      return {error == ESRCH ? GF_PEER_LOST : GF_FAILED_PRECONDITION,
              "process_vm_readv: " + std::generic_category().message(error) + Advice(error)};
    }
    at += got;
    from += static_cast<uint64_t>(got);
    length -= static_cast<uint64_t>(got);
  }
  return {};
}

}  // namespace

Challenge NewChallenge() {
  Challenge challenge{};
  if (getrandom(challenge.data(), challenge.size(), 0) != static_cast<ssize_t>(challenge.size())) challenge = {};
  return challenge;
}

CmaRecord::CmaRecord(End end, const std::string& address) : bytes_{} {
  bytes_.end = static_cast<uint32_t>(end);
  bytes_.address_length = static_cast<uint32_t>(std::min(address.size(), sizeof(bytes_.address)));
  std::memcpy(bytes_.address, address.data(), bytes_.address_length);
}

void CmaRecord::Write(const Challenge& challenge) {
  bytes_.challenge = challenge;
  bytes_.magic = kMagic;
}

void CmaRecord::Invalidate() {
  volatile uint64_t* magic = &bytes_.magic;
  *magic = 0;
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

CmaReader::CmaReader(int64_t pid, uint64_t location, const Challenge& challenge, End end, const std::string& address)
    : pid_(pid), location_(location) {
  CmaRecord record(end, address);
  record.Write(challenge);
  expected_ = record.bytes_;
}

Status CmaReader::Test() const {
  if (expected_.challenge == Challenge{}) return {GF_FAILED_PRECONDITION, "no random numbers are to be had"};
  // The kernel may let us read processes of other users as well; no connection is a reason for that.
  struct stat process {};
  if (stat(("/proc/" + std::to_string(pid_)).c_str(), &process) != 0) {
    return {GF_FAILED_PRECONDITION,
            "there is no process " + std::to_string(pid_) + " here: another machine or container"};
  }
  if (process.st_uid != geteuid()) return {GF_FAILED_PRECONDITION, "it is another user's process"};
  return ReadRecord();
}

Status CmaReader::ReadRecord() const {
  CmaRecord::Bytes got{};
  if (Status status = ReadMemory(pid_, location_, &got, sizeof(got)); !status.ok()) return status;
  if (std::memcmp(&got, &expected_, sizeof(got)) == 0) return {};
  return {GF_FAILED_PRECONDITION,
          "process " + std::to_string(pid_) + " is not the one at the other end, or has closed it"};
}

Status CmaReader::Read(const std::vector<uint64_t>& from, const std::vector<gf_transport_segment>& to) const {
  for (size_t i = 0; i < to.size(); ++i) {
    if (Status status = ReadMemory(pid_, from[i], to[i].data, to[i].length); !status.ok()) return status;
  }
  return ReadRecord();
}

}  // namespace gradferry::tp
