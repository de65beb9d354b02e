// See container.h.
#include "impl/autograd/container.h"

namespace gradferry {

namespace {

// One of 2^22 places, 2^24 apart; above the last of them there is room for 2^47 ids.
int64_t FirstNumber(uint64_t life) { return static_cast<int64_t>(life % (uint64_t{1} << 22) << 24) + 1; }

}  // namespace

DistAutogradContainer::DistAutogradContainer(WorkerId worker, uint64_t life)
    : prefix_(static_cast<int64_t>(worker) << kAutogradCounterBits),
      next_context_(FirstNumber(life)),
      next_message_(FirstNumber(life)) {}

Result<int64_t> DistAutogradContainer::Draw(std::atomic<int64_t>& counter, const char* what) {
  const int64_t number = counter.fetch_add(1, std::memory_order_relaxed);
  if (number > kCounterMask) {
    return Status(Code::kResourceExhausted, StrCat("this worker has used up its 2^48 ", what, " ids"));
  }
  return prefix_ | number;
}

Result<std::shared_ptr<DistAutogradContext>> DistAutogradContainer::NewContext() {
  GF_ASSIGN_OR_RETURN(const int64_t id, Draw(next_context_, "context"));
  auto context = std::make_shared<DistAutogradContext>(id);
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  shard.contexts.emplace(id, context);
  return context;
}

Result<int64_t> DistAutogradContainer::NewMessageId() { return Draw(next_message_, "autograd message"); }

namespace {
Status Unknown(int64_t id, bool released) {
  return NotFound(released ? StrCat("context ", id, " was released")
                           : StrCat("could not find context with id ", id, " on this worker"))
      .WithDomain("autograd");
}
}  // namespace

Result<std::shared_ptr<DistAutogradContext>> DistAutogradContainer::Find(int64_t id) const {
  Shard& shard = ShardOf(id);
  std::lock_guard lock(shard.mutex);
  auto it = shard.contexts.find(id);
  if (it == shard.contexts.end()) return Unknown(id, shard.tombstones.count(id) > 0);
  return it->second;
}

Result<std::shared_ptr<DistAutogradContext>> DistAutogradContainer::GetOrCreate(int64_t id) {
  Shard& shard = ShardOf(id);
  std::unique_lock lock(shard.mutex);
  if (shard.tombstones.count(id) > 0) return Unknown(id, /*released=*/true);
  auto [it, inserted] = shard.contexts.try_emplace(id);
  if (inserted) it->second = std::make_shared<DistAutogradContext>(id);
  auto context = it->second;
  lock.unlock();
  if (inserted && IsForeign(id) && foreign_changed_) foreign_changed_(+1);
  return context;
}

std::shared_ptr<DistAutogradContext> DistAutogradContainer::Remove(int64_t id) {
  Shard& shard = ShardOf(id);
  std::unique_lock lock(shard.mutex);
  if (shard.tombstones.insert(id).second) {
    shard.tombstone_order.push_back(id);
    if (shard.tombstone_order.size() > kTombstonesPerShard) {
      shard.tombstones.erase(shard.tombstone_order.front());
      shard.tombstone_order.pop_front();
    }
  }
  auto node = shard.contexts.extract(id);
  lock.unlock();
  if (node.empty()) return nullptr;
  if (IsForeign(id) && foreign_changed_) foreign_changed_(-1);
  return std::move(node.mapped());
}

std::vector<std::shared_ptr<DistAutogradContext>> DistAutogradContainer::All() const {
  std::vector<std::shared_ptr<DistAutogradContext>> all;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [id, context] : shard.contexts) all.push_back(context);
  }
  return all;
}

std::map<WorkerId, std::vector<int64_t>> DistAutogradContainer::ForeignIds() const {
  std::map<WorkerId, std::vector<int64_t>> ids;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    for (const auto& [id, context] : shard.contexts) {
      if (IsForeign(id)) ids[WorkerOfAutogradId(id)].push_back(id);
    }
  }
  return ids;
}

size_t DistAutogradContainer::size() const {
  size_t count = 0;
  for (const Shard& shard : shards_) {
    std::lock_guard lock(shard.mutex);
    count += shard.contexts.size();
  }
  return count;
}

}  // namespace gradferry
