// What one peer makes us hold: frames that are arriving, requests that are not answered, replies that the transport has
// not taken. Shared by all connections with the peer.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

namespace gradferry {

class MemoryAccount : public std::enable_shared_from_this<MemoryAccount> {
 public:
  explicit MemoryAccount(uint64_t limit) : limit_(limit) {}

  // The bytes count until what is returned is let go of. Null: they would be more than the limit and `slack`. Any
  // thread.
  std::shared_ptr<void> Charge(uint64_t bytes, uint64_t slack = 0) {
    const uint64_t before = used_.fetch_add(bytes, std::memory_order_relaxed);
    if (bytes > limit_ + slack || before > limit_ + slack - bytes) {
      used_.fetch_sub(bytes, std::memory_order_relaxed);
      return nullptr;
    }
    return std::shared_ptr<void>(
        this, [self = shared_from_this(), bytes](void*) { self->used_.fetch_sub(bytes, std::memory_order_relaxed); });
  }

  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  uint64_t limit() const { return limit_; }

 private:
  const uint64_t limit_;  // far from 2^64
  std::atomic<uint64_t> used_{0};
};

}  // namespace gradferry
