#include "tools/plugin_check/memory.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdlib>

#include "tools/plugin_check/child.h"

namespace gradferry::check {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kMaxBlocks = 1 << 18;

struct Entry {
  std::atomic<uintptr_t> base{0};
  std::atomic<size_t> pages{0};
  std::atomic<bool> taken{false};
  BlockUse use{};
};

// Read by the signal handler, so it is no container.
Entry* entries = nullptr;
std::atomic<size_t> entry_count{0};

const char* Describe(const Entry& entry, bool behind, int* rule) {
  const bool taken = entry.taken;
  switch (entry.use) {
    case BlockUse::kSentBytes:
      *rule = 4;
      if (behind) return "read beyond the end of a header or segment that is sent";
      return taken ? "touched a frame's bytes after its on_sent"
                   : "wrote to a frame's bytes, which are to be read only";
    case BlockUse::kSentStruct:
      *rule = 4;
      return "touched the frame's struct or array of segments after send had returned, or beyond its end";
    case BlockUse::kReceived:
      *rule = 5;
      if (behind) return "wrote beyond the end of a segment that the host gave";
      return "touched the memory of a frame after its on_frame";
    case BlockUse::kBuffer:
      *rule = 12;
      return "wrote beyond the capacity of a buffer";
  }
  return "";
}

void OnFault(int signal, siginfo_t* info, void*) {
  const auto at = reinterpret_cast<uintptr_t>(info->si_addr);
  const size_t count = std::min(entry_count.load(), kMaxBlocks);
  for (size_t i = 0; i < count; ++i) {
    const uintptr_t base = entries[i].base;
    if (base == 0 || at < base || at >= base + entries[i].pages + kPage) continue;
    int rule = 9;
    const char* what = Describe(entries[i], at >= base + entries[i].pages, &rule);
    FoundFatal(rule, what);
  }
  // Not ours: the default, when the instruction runs again.
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  sigaction(signal, &action, nullptr);
}

}  // namespace

Block::Block(size_t length, BlockUse use) : length_(length) {
  pages_ = (length + kPage - 1) / kPage * kPage;
  void* at = mmap(nullptr, pages_ + kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  index_ = entry_count.fetch_add(1);
  if (at == MAP_FAILED || index_ >= kMaxBlocks) FoundFatal(14, "the check itself has no memory left");
  base_ = static_cast<char*>(at);
  mprotect(base_ + pages_, kPage, PROT_NONE);
  data_ = base_ + pages_ - length;
  entries[index_].use = use;
  entries[index_].pages = pages_;
  entries[index_].base = reinterpret_cast<uintptr_t>(base_);
}

void Block::MakeReadOnly() const {
  if (pages_ > 0) mprotect(base_, pages_, PROT_READ);
}

void Block::TakeAway() const {
  if (pages_ == 0) return;
  entries[index_].taken = true;
  mprotect(base_, pages_, PROT_NONE);
  madvise(base_, pages_, MADV_DONTNEED);
}

void WatchBlocks() {
  entries = new Entry[kMaxBlocks];
  struct sigaction action {};
  action.sa_sigaction = OnFault;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace gradferry::check
