// What the machine can do, as a subject (subject.h): an echo of 64 bytes, and large data to the peer with a small
// answer, into memory that has been used before.
//
//   raw_main driver|peer FOLDER memcpy|unix|tcp|tls_unix|tls_tcp|vm
//
// memcpy works in the driver alone, over more memory than a cache holds. vm: the peer reads the driver's memory by
// process_vm_readv, told where by a Unix socket.
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/bench/stream.h"
#include "tests/bench/subject.h"

namespace gradferry::bench {
namespace {

enum class Command : uint64_t { kEcho, kStream, kReadMemory, kReadMemoryFresh };

// What the driver sends, and gets back as the answer.
struct Request {
  Command command = Command::kEcho;
  uint64_t length = 0;
  uint64_t address = 0;
  int64_t process = 0;
  std::array<char, 32> padding{};
};
static_assert(sizeof(Request) == 64);

// Memory straight from the kernel.
class Memory {
 public:
  explicit Memory(size_t size) : size_(size) {
    data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
  }
  Memory(const Memory&) = delete;
  ~Memory() { munmap(data_, size_); }
  char* data() const { return static_cast<char*>(data_); }

 private:
  const size_t size_;
  void* data_;
};

// Grows; what it was before is not kept.
class Buffer {
 public:
  char* Of(size_t size) {
    if (memory_.size() < size) memory_.assign(size, 1);
    return memory_.data();
  }

 private:
  std::vector<char> memory_;
};

void ReadMemory(const Request& request, char* to) {
  uint64_t done = 0;
  while (done < request.length) {
    const iovec local{to + done, request.length - done};
    const iovec remote{reinterpret_cast<void*>(request.address + done), request.length - done};
    const ssize_t got = process_vm_readv(static_cast<pid_t>(request.process), &local, 1, &remote, 1, 0);
    if (got <= 0) throw std::system_error(errno, std::generic_category(), "process_vm_readv");
    done += static_cast<uint64_t>(got);
  }
}

void Answer(Stream& stream) {
  Buffer buffer;
  for (;;) {
    Request request;
    stream.Read(&request, sizeof(request));
    switch (request.command) {
      case Command::kEcho:
        break;
      case Command::kStream:
        stream.Read(buffer.Of(request.length), request.length);
        break;
      case Command::kReadMemory:
        ReadMemory(request, buffer.Of(request.length));
        break;
      case Command::kReadMemoryFresh:
        ReadMemory(request, Memory(request.length).data());
        break;
    }
    stream.Write(&request, sizeof(request));
  }
}

std::unique_ptr<Stream> Open(Role role, const std::string& folder, const std::string& kind) {
  if (kind == "unix" || kind == "vm") return OpenUnix(role, folder);
  if (kind == "tcp") return OpenTcp(role, folder);
  if (kind == "tls_unix") return OpenTls(role, folder, /*tcp=*/false);
  if (kind == "tls_tcp") return OpenTls(role, folder, /*tcp=*/true);
  throw std::runtime_error("there is no raw " + kind);
}

class Driver {
 public:
  Driver(const std::string& folder, const std::string& kind) : stream_(Open(Role::kDriver, folder, kind)) {}

  Measurements All(bool memory) {
    Measurements all;
    all["echo"] = [this](int64_t count) { return Time(count, [this] { Ask({}, 0); }); };
    const Command command = memory ? Command::kReadMemory : Command::kStream;
    all["send_64mib"] = [=](int64_t count) { return Send(command, 64 * kMiB, count); };
    all["send_256mib"] = [=](int64_t count) { return Send(command, 256 * kMiB, count); };
    if (memory) {
      all["send_64mib_fresh"] = [=](int64_t count) { return Send(Command::kReadMemoryFresh, 64 * kMiB, count); };
    }
    return all;
  }

 private:
  void Ask(Request request, size_t stream_bytes) {
    stream_->Write(&request, sizeof(request));
    if (stream_bytes != 0) stream_->Write(buffer_.Of(stream_bytes), stream_bytes);
    stream_->Read(&request, sizeof(request));
  }

  Samples Send(Command command, int64_t bytes, int64_t count) {
    Request request;
    request.command = command;
    request.length = static_cast<uint64_t>(bytes);
    request.process = getpid();
    request.address = reinterpret_cast<uintptr_t>(buffer_.Of(request.length));
    return Time(count, [&] { Ask(request, command == Command::kStream ? request.length : 0); });
  }

  const std::unique_ptr<Stream> stream_;
  Buffer buffer_;
};

// 64 MiB from one place of the memory to another, each time others.
Samples Copy(int64_t count) {
  constexpr size_t kBytes = 64 * kMiB;
  constexpr size_t kPlaces = 8;
  static Buffer memory;
  char* const places = memory.Of(kPlaces * kBytes);
  size_t at = 0;
  return Time(count, [&] {
    std::memcpy(places + at * kBytes, places + (at + kPlaces / 2) % kPlaces * kBytes, kBytes);
    at = (at + 1) % kPlaces;
  });
}

void Run(const std::vector<std::string>& arguments) {
  const bool driver = arguments.at(0) == "driver";
  const std::string& folder = arguments.at(1);
  const std::string& kind = arguments.at(2);
  if (kind == "memcpy") {
    if (!driver) Serve();
    Drive({{"send_64mib", Copy}});
  }
  if (driver) Drive(Driver(folder, kind).All(kind == "vm"));
  std::thread([&] {
    try {
      Answer(*Open(Role::kPeer, folder, kind));
    } catch (const std::exception&) {
      // The driver has ended, or says what is wrong.
    }
  }).detach();
  Serve();
}

}  // namespace
}  // namespace gradferry::bench

int main(int count, char** arguments) {
  return gradferry::bench::RunEnd([&] { gradferry::bench::Run({arguments + 1, arguments + count}); });
}
