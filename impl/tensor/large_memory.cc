// See large_memory.h.
#include "impl/tensor/large_memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <vector>

namespace gradferry {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

// Whole huge pages.
struct Block {
  void* data = nullptr;
  size_t size = 0;
};

void Unmap(const Block& block) { munmap(block.data, block.size); }

// Begins where a huge page does, so that it can consist of them.
Block Map(size_t size) {
  void* const data = mmap(nullptr, size + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) throw std::bad_alloc();
  auto* const begin = static_cast<char*>(data);
  const size_t before = (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
  if (before != 0) munmap(begin, before);
  if (before != kHugePage) munmap(begin + before + size, kHugePage - before);
  // Where the system has no huge pages, or gives none, small ones do.
  (void)madvise(begin + before, size, MADV_HUGEPAGE);
  return {begin + before, size};
}

class Pool {
 public:
  Block Take(size_t size) {
    if (auto kept = TakeKept(size)) return *kept;
    return Map(size);
  }

  void Give(const Block& block) {
    if (block.size > kKeptBytes) return Unmap(block);
    (void)madvise(block.data, block.size, MADV_FREE);
    std::vector<Block> dropped;
    {
      std::lock_guard lock(mutex_);
      kept_.push_back(block);
      kept_bytes_ += block.size;
      while (kept_bytes_ > kKeptBytes) {
        dropped.push_back(kept_.front());
        kept_bytes_ -= kept_.front().size;
        kept_.pop_front();
      }
    }
    for (const Block& old : dropped) Unmap(old);
  }

  uint64_t kept_bytes() {
    std::lock_guard lock(mutex_);
    return kept_bytes_;
  }

 private:
  // The one given back last that fits, without wasting much of it.
  std::optional<Block> TakeKept(size_t size) {
    std::lock_guard lock(mutex_);
    const auto found = std::find_if(kept_.rbegin(), kept_.rend(), [size](const Block& block) {
      return block.size >= size && block.size - size <= size / 4;
    });
    if (found == kept_.rend()) return std::nullopt;
    const Block block = *found;
    kept_.erase(std::next(found).base());
    kept_bytes_ -= block.size;
    return block;
  }

  std::mutex mutex_;        // guards the rest; a leaf lock
  std::deque<Block> kept_;  // the oldest first
  uint64_t kept_bytes_ = 0;
};

// Never destroyed: tensors may live longer than anything else.
Pool& ThePool() {
  static Pool* const pool = new Pool;
  return *pool;
}

void Free(void* context) {
  const std::unique_ptr<Block> block(static_cast<Block*>(context));
  ThePool().Give(*block);
}

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(size_t bytes) const override {
    const c10::Device cpu(c10::DeviceType::CPU);
    if (bytes > SIZE_MAX - 2 * kHugePage) throw std::bad_alloc();
    if (bytes == 0) return {nullptr, nullptr, nullptr, cpu};
    auto block = std::make_unique<Block>();
    *block = ThePool().Take((bytes + kHugePage - 1) / kHugePage * kHugePage);
    void* const data = block->data;
    return {data, block.release(), Free, cpu};
  }
};

}  // namespace

c10::Allocator* LargeMemory() {
  static Allocator* const allocator = new Allocator;
  return allocator;
}

uint64_t KeptLargeMemory() { return ThePool().kept_bytes(); }

}  // namespace gradferry
