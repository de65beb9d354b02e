// See handle.h.
#include "c_api/handle.h"

#include <pthread.h>

namespace gradferry {
namespace {

constexpr size_t kCellsPerSlab = 64;

std::atomic<bool> forked{false};

// At load, so that every fork after it is seen.
[[maybe_unused]] const int watch_forks =
    pthread_atfork(nullptr, nullptr, [] { forked.store(true, std::memory_order_relaxed); });

}  // namespace

bool InForkedChild() { return forked.load(std::memory_order_relaxed); }

const char* HandleKindName(LiveKind kind) {
  switch (kind) {
    case LiveKind::kErrors:
      return "gf_error";
    case LiveKind::kTensors:
      return "gf_tensor";
    case LiveKind::kLists:
      return "gf_list";
    case LiveKind::kOperators:
      return "gf_operator";
    case LiveKind::kConfigs:
      return "gf_config";
    case LiveKind::kQueues:
      return "gf_queue";
    case LiveKind::kFutures:
      return "gf_future";
    case LiveKind::kRequests:
      return "gf_request";
    case LiveKind::kWorkers:
      return "gf_worker";
    case LiveKind::kContexts:
      return "gf_context";
    case LiveKind::kOptimizers:
      return "gf_optimizer";
    default:
      return "handle";
  }
}

HandlePool::HandlePool(LiveKind kind, size_t object_size)
    : kind_(kind),
      cell_size_((sizeof(HandleCell) + object_size + alignof(HandleCell) - 1) / alignof(HandleCell) *
                 alignof(HandleCell)) {}

void HandlePool::AddSlab() {
  slabs_.reserve(slabs_.size() + 1);
  auto* slab = static_cast<char*>(::operator new(cell_size_* kCellsPerSlab));
  for (size_t i = 0; i < kCellsPerSlab; ++i) {
    auto* cell = new (slab + i * cell_size_) HandleCell;
    cell->magic = kHandleMagic + static_cast<uint32_t>(kind_);
  }
  slabs_.push_back(slab);
  fresh_in_slab_ = kCellsPerSlab;
}

HandleCell* HandlePool::Take() {
  std::lock_guard<std::mutex> lock(mutex_);
  HandleCell* cell;
  if (free_count_ > kQuarantine) {
    cell = oldest_free_;
    oldest_free_ = cell->next_free;
    if (oldest_free_ == nullptr) newest_free_ = nullptr;
    --free_count_;
  } else {
    if (fresh_in_slab_ == 0) AddSlab();
    --fresh_in_slab_;
    cell = reinterpret_cast<HandleCell*>(slabs_.back() + fresh_in_slab_ * cell_size_);
  }
  cell->next_free = nullptr;
  cell->references.store(1, std::memory_order_relaxed);
  return cell;
}

void HandlePool::Return(HandleCell* cell) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  cell->next_free = nullptr;
  if (newest_free_ == nullptr) {
    oldest_free_ = cell;
  } else {
    newest_free_->next_free = cell;
  }
  newest_free_ = cell;
  ++free_count_;
}

bool HasHead(const void* pointer, LiveKind kind) noexcept {
  if (pointer == nullptr || reinterpret_cast<uintptr_t>(pointer) % alignof(HandleCell) != 0) return false;
  return static_cast<const HandleCell*>(pointer)->magic == kHandleMagic + static_cast<uint32_t>(kind);
}

Status CheckHandle(const void* handle, LiveKind kind) {
  const char* wanted = HandleKindName(kind);
  if (handle == nullptr) return InvalidArgument(StrCat("a ", wanted, " is wanted, got NULL"));
  if (HasHead(handle, kind)) {
    bool live = static_cast<const HandleCell*>(handle)->references.load(std::memory_order_acquire) > 0;
    return live ? OkStatus() : InvalidArgument(StrCat("the ", wanted, " was given back already"));
  }
  for (uint32_t other = 1; other <= static_cast<uint32_t>(LiveKind::kOptimizers); ++other) {
    if (!HasHead(handle, static_cast<LiveKind>(other))) continue;
    return InvalidArgument(StrCat("a ", wanted, " is wanted, got a ", HandleKindName(static_cast<LiveKind>(other))));
  }
  return InvalidArgument(StrCat("a ", wanted, " is wanted, got a pointer that is no handle"));
}

}  // namespace gradferry
