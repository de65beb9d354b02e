// All contexts of one worker, sharded by id. Ids are 16 bits of the worker's id and 48 bits of a counter that starts at
// 1, so that 0 is no id, or far above it: every incarnation of a worker starts somewhere else, so that its contexts are
// not taken for those of an earlier life, of which others may still know. Autograd message ids have the same form and a
// counter of their own. A released context leaves
// a tombstone: a request that comes after its clean-up is refused and does not bring it back.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "impl/autograd/context.h"
#include "impl/base/status.h"

namespace gradferry {

inline constexpr int kAutogradCounterBits = 48;

inline WorkerId WorkerOfAutogradId(int64_t id) { return static_cast<WorkerId>(id >> kAutogradCounterBits); }

class DistAutogradContainer {
 public:
  // life: another number for each incarnation of the worker.
  DistAutogradContainer(WorkerId worker, uint64_t life);
  // Called with +1 and -1 as contexts that others made come and go, without a lock; before the first one.
  void OnForeign(std::function<void(int)> changed) { foreign_changed_ = std::move(changed); }

  // A context of our own. kResourceExhausted after 2^48 - 1 of them.
  Result<std::shared_ptr<DistAutogradContext>> NewContext();
  Result<int64_t> NewMessageId();

  // kNotFound, saying whether it is unknown or was released.
  Result<std::shared_ptr<DistAutogradContext>> Find(int64_t id) const;
  // For a message that arrives: makes the context if need be, unless it was released (kNotFound).
  Result<std::shared_ptr<DistAutogradContext>> GetOrCreate(int64_t id);
  // Takes it out and leaves a tombstone, also when it is not here (null): a late request must not create it. The
  // caller calls Release on what it gets.
  std::shared_ptr<DistAutogradContext> Remove(int64_t id);

  std::vector<std::shared_ptr<DistAutogradContext>> All() const;
  // The ids of contexts that others made, by who made them.
  std::map<WorkerId, std::vector<int64_t>> ForeignIds() const;
  size_t size() const;
  // The highest id that NewContext can give.
  int64_t max_id() const { return prefix_ | kCounterMask; }

 private:
  static constexpr int64_t kCounterMask = (int64_t{1} << kAutogradCounterBits) - 1;
  static constexpr size_t kShards = 32;
  // Late requests come within seconds; these many ids per shard outlive them by far and bound the memory.
  static constexpr size_t kTombstonesPerShard = 4096;

  struct alignas(64) Shard {
    mutable std::mutex mutex;  // guards the rest; a leaf lock
    std::unordered_map<int64_t, std::shared_ptr<DistAutogradContext>> contexts;
    std::unordered_set<int64_t> tombstones;
    std::deque<int64_t> tombstone_order;  // oldest first
  };

  Shard& ShardOf(int64_t id) const { return shards_[static_cast<uint64_t>(id) % kShards]; }
  Result<int64_t> Draw(std::atomic<int64_t>& counter, const char* what);

  bool IsForeign(int64_t id) const { return (id & ~kCounterMask) != prefix_; }

  const int64_t prefix_;
  std::function<void(int)> foreign_changed_;
  std::atomic<int64_t> next_context_;
  std::atomic<int64_t> next_message_;
  mutable std::array<Shard, kShards> shards_;
};

}  // namespace gradferry
