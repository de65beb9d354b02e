// A library to be loaded first (LD_PRELOAD): its memcpy and memmove count the bytes of large copies, in the first eight
// bytes of the file that BENCH_COPIES_FILE names, which all processes with that variable share. What the kernel
// copies is not counted, nor what a compiler has put in line, which is small.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace {

constexpr size_t kLarge = 4096;

std::atomic<uint64_t>* counter = nullptr;

__attribute__((constructor)) void Open() {
  const char* file = getenv("BENCH_COPIES_FILE");
  if (file == nullptr) return;
  const int fd = open(file, O_RDWR | O_CLOEXEC);
  if (fd < 0) return;
  void* memory = mmap(nullptr, sizeof(*counter), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  close(fd);
  if (memory != MAP_FAILED) counter = static_cast<std::atomic<uint64_t>*>(memory);
}

void Count(size_t size) {
  if (size >= kLarge && counter != nullptr) counter->fetch_add(size, std::memory_order_relaxed);
}

}  // namespace

// Neither may call itself by what the compiler makes of it: the bytes are moved by the processor's own instruction.
extern "C" {

__attribute__((visibility("default"))) void* memcpy(void* to, const void* from, size_t size) {
  Count(size);
  void* const result = to;
  asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size) : : "memory");
  return result;
}

__attribute__((visibility("default"))) void* memmove(void* to, const void* from, size_t size) {
  auto* const destination = static_cast<char*>(to);
  const auto* const source = static_cast<const char*>(from);
  if (destination <= source || destination >= source + size) return memcpy(to, from, size);
  Count(size);
  char* last = destination + size - 1;
  const char* last_source = source + size - 1;
  asm volatile("std; rep movsb; cld" : "+D"(last), "+S"(last_source), "+c"(size) : : "memory");
  return to;
}

// What programs with checked copies call.
__attribute__((visibility("default"))) void* __memcpy_chk(void* to, const void* from, size_t size, size_t) {
  return memcpy(to, from, size);
}

__attribute__((visibility("default"))) void* __memmove_chk(void* to, const void* from, size_t size, size_t) {
  return memmove(to, from, size);
}
}
