// What a handle of gradferry.h points to: a cell with a kind, a reference count and an object. Used by the functions of
// the C boundary and by nothing below it.
//
// Cells come from one pool for each kind. A pool never gives memory back and reuses its cells oldest first, so that a
// handle that is NULL, of another kind, or given back already is seen from the cell's head, without reading memory that
// is no longer ours. (A stale handle whose cell has been reused meanwhile looks like a good one; kQuarantine cells of
// the kind must be given back first. A pointer that never was a handle is beyond help unless it is misaligned.)
//
// A kind of handle says what its cells hold by a HandleTraits:
//
//   template <>
//   struct HandleTraits<gf_list> {
//     using Object = ListObject;
//     static constexpr LiveKind kKind = LiveKind::kLists;
//   };
//
// and then:
//
//   *out = MakeHandle<gf_list>(ListObject{...});              one reference, counted in LiveCount
//   GF_ASSIGN_OR_RETURN(auto* list, Get(handle));      or a kInvalidArgument that says what is wrong with it
//   RefHandle(handle), UnrefHandle(handle)                    any thread; NULL and bad handles do nothing
//
// The object is destroyed when the last reference is given back, on that thread and outside the pool's lock; its
// destructor must not block. MakeHandle does the counting (of its kind, and of kHandles for every kind but kErrors), so
// that objects hold no Live of the same kind.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradferry/gradferry.h"
#include "impl/base/live.h"
#include "impl/base/status.h"

namespace gradferry {

template <class Handle>
struct HandleTraits;

template <class Handle>
using HandleObject = typename HandleTraits<std::remove_const_t<Handle>>::Object;

// The head of every cell; the object follows it.
struct alignas(std::max_align_t) HandleCell {
  uint32_t magic = 0;  // kHandleMagic + kind, for ever
  std::atomic<uint32_t> references{0};
  HandleCell* next_free = nullptr;
};

inline constexpr uint32_t kHandleMagic = 0x47664800;

// How many cells of a kind must be free before the oldest is reused.
inline constexpr size_t kQuarantine = 256;

// "gf_tensor" for kTensors.
const char* HandleKindName(LiveKind kind);

// The cells of one kind. Any thread. Lives until the process ends.
class HandlePool {
 public:
  HandlePool(LiveKind kind, size_t object_size);
  // A cell with one reference and no object yet. Throws std::bad_alloc.
  HandleCell* Take();
  // Takes back a cell without references and object.
  void Return(HandleCell* cell) noexcept;

 private:
  void AddSlab();  // needs mutex_

  const LiveKind kind_;
  const size_t cell_size_;
  std::mutex mutex_;  // guards all below; a leaf: nothing is called under it
  std::vector<char*> slabs_;
  size_t fresh_in_slab_ = 0;  // cells of the last slab that were never used
  HandleCell* oldest_free_ = nullptr;
  HandleCell* newest_free_ = nullptr;
  size_t free_count_ = 0;
};

template <class Handle>
HandlePool& PoolOf() {
  using Traits = HandleTraits<Handle>;
  static_assert(alignof(typename Traits::Object) <= alignof(std::max_align_t), "the cell aligns no further");
  // Never destroyed: handles may be given back while the process exits.
  static auto* const pool = new HandlePool(Traits::kKind, sizeof(typename Traits::Object));
  return *pool;
}

inline void* ObjectIn(HandleCell* cell) { return reinterpret_cast<char*>(cell) + sizeof(HandleCell); }

// Why a pointer is no live handle of a kind, or OK. `handle` may be anything that is mapped.
Status CheckHandle(const void* handle, LiveKind kind);

// True when a pointer has the head of a cell of this kind, live or free.
bool HasHead(const void* pointer, LiveKind kind) noexcept;

// True in a process that was forked after this library had been loaded: nothing may be touched there.
bool InForkedChild();

inline void CountHandle(LiveKind kind, int64_t delta) {
  LiveCount(kind).fetch_add(delta, std::memory_order_relaxed);
  if (kind != LiveKind::kErrors) LiveCount(LiveKind::kHandles).fetch_add(delta, std::memory_order_relaxed);
}

// A new handle with one reference. Throws what the object's move constructor throws, and std::bad_alloc.
template <class Handle>
Handle* MakeHandle(HandleObject<Handle> object) {
  HandlePool& pool = PoolOf<Handle>();
  HandleCell* cell = pool.Take();
  try {
    new (ObjectIn(cell)) HandleObject<Handle>(std::move(object));
  } catch (...) {
    cell->references.store(0, std::memory_order_relaxed);
    pool.Return(cell);
    throw;
  }
  CountHandle(HandleTraits<Handle>::kKind, 1);
  return reinterpret_cast<Handle*>(cell);
}

// The object, which lives as long as the caller's reference.
template <class Handle>
Result<HandleObject<Handle>*> Get(Handle* handle) {
  GF_RETURN_IF_ERROR(CheckHandle(handle, HandleTraits<std::remove_const_t<Handle>>::kKind));
  auto* cell = reinterpret_cast<HandleCell*>(const_cast<std::remove_const_t<Handle>*>(handle));
  return static_cast<HandleObject<Handle>*>(ObjectIn(cell));
}

// The same without a reason, for functions that return no code: NULL for what is no live handle of its kind.
template <class Handle>
HandleObject<Handle>* Peek(Handle* handle) noexcept {
  if (!HasHead(handle, HandleTraits<std::remove_const_t<Handle>>::kKind)) return nullptr;
  auto* cell = reinterpret_cast<HandleCell*>(const_cast<std::remove_const_t<Handle>*>(handle));
  if (cell->references.load(std::memory_order_acquire) == 0) return nullptr;
  return static_cast<HandleObject<Handle>*>(ObjectIn(cell));
}

// Adds a reference and returns the handle; NULL for what is no live handle.
template <class Handle>
Handle* RefHandle(Handle* handle) noexcept {
  if (InForkedChild() || !HasHead(handle, HandleTraits<Handle>::kKind)) return nullptr;
  auto* cell = reinterpret_cast<HandleCell*>(handle);
  // Not a plain addition: one from 0 would bring a freed cell back.
  uint32_t count = cell->references.load(std::memory_order_relaxed);
  while (count != 0 && !cell->references.compare_exchange_weak(count, count + 1, std::memory_order_relaxed)) {
  }
  return count == 0 ? nullptr : handle;
}

// Gives a reference back; nothing happens to what is no live handle.
template <class Handle>
void UnrefHandle(Handle* handle) noexcept {
  if (InForkedChild() || !HasHead(handle, HandleTraits<Handle>::kKind)) return;
  auto* cell = reinterpret_cast<HandleCell*>(handle);
  uint32_t count = cell->references.load(std::memory_order_relaxed);
  while (count != 0 && !cell->references.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel)) {
  }
  if (count != 1) return;
  using Object = HandleObject<Handle>;
  static_cast<Object*>(ObjectIn(cell))->~Object();
  // Old bytes would look like pointers to a leak checker.
  std::memset(ObjectIn(cell), 0, sizeof(Object));
  CountHandle(HandleTraits<Handle>::kKind, -1);
  PoolOf<Handle>().Return(cell);
}

}  // namespace gradferry
