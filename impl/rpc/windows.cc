// See windows.h.
#include "impl/rpc/windows.h"

#include <algorithm>
#include <utility>

namespace gradferry {
namespace {

constexpr char kCallsPerPeer[] = "limits.calls_per_peer";
constexpr char kBytesPerPeer[] = "limits.bytes_per_peer";
constexpr char kCalls[] = "limits.calls";
constexpr char kBytes[] = "limits.bytes";
constexpr char kPeersCalls[] = "limits.requests of the peer";
constexpr char kPeersBytes[] = "limits.memory_per_peer of the peer";

// What is larger than all of it has room when nothing else is there.
bool Fits(uint64_t used, uint64_t more, uint64_t window) {
  return used == 0 || (used <= window && more <= window - used);
}

}  // namespace

void Windows::Announced(WorkerId peer, WindowSize window) {
  Grants grants;
  {
    std::lock_guard lock(mutex_);
    peers_[peer].unannounced = false;
    peers_[peer].announced = {window.calls, window.bytes / 2};
    Serve(grants);
  }
  for (auto& [granted, room] : grants) granted(std::move(room));
}

bool Windows::Takes(WorkerId id, uint64_t bytes) const {
  std::lock_guard lock(mutex_);
  const auto it = peers_.find(id);
  return it == peers_.end() || bytes / 2 <= it->second.announced.bytes || it->second.unannounced;
}

const char* Windows::FullOfPeer(const Peer& peer, uint64_t bytes) const {
  if (peer.used.calls >= of_peer_.calls) return kCallsPerPeer;
  if (peer.used.calls >= peer.announced.calls) return kPeersCalls;
  if (!Fits(peer.used.bytes, bytes, of_peer_.bytes)) return kBytesPerPeer;
  if (!Fits(peer.used.bytes, bytes, peer.announced.bytes)) return kPeersBytes;
  return nullptr;
}

const char* Windows::FullOfWorker(uint64_t bytes) const {
  if (used_.calls >= of_worker_.calls) return kCalls;
  return Fits(used_.bytes, bytes, of_worker_.bytes) ? nullptr : kBytes;
}

std::string Windows::Describe(const Peer& peer, const char* full) const {
  const uint64_t window = full == kCallsPerPeer   ? of_peer_.calls
                          : full == kBytesPerPeer ? of_peer_.bytes
                          : full == kPeersCalls   ? peer.announced.calls
                          : full == kPeersBytes   ? peer.announced.bytes
                          : full == kCalls        ? of_worker_.calls
                                                  : of_worker_.bytes;
  return StrCat(full, " (", window, ")");
}

Windows::Room Windows::Occupy(WorkerId id, uint64_t bytes) {
  Peer& peer = peers_[id];
  ++peer.used.calls;
  peer.used.bytes += bytes;
  ++used_.calls;
  used_.bytes += bytes;
  return Room(this, [self = shared_from_this(), id, bytes](void*) { self->Free(id, bytes); });
}

void Windows::Free(WorkerId id, uint64_t bytes) {
  Grants grants;
  {
    std::lock_guard lock(mutex_);
    Peer& peer = peers_[id];
    --peer.used.calls;
    peer.used.bytes -= bytes;
    --used_.calls;
    used_.bytes -= bytes;
    Serve(grants);
  }
  for (auto& [granted, room] : grants) granted(std::move(room));
}

void Windows::Serve(Grants& grants) {
  // Peers whose own window is full are passed by; at the worker's, whose turn it is waits, or a large call would never
  // get room for small ones of others.
  size_t passed = 0;
  while (passed < turns_.size()) {
    const WorkerId id = turns_.front();
    Peer& peer = peers_[id];
    const uint64_t bytes = peer.waiting.front().bytes;
    if (FullOfPeer(peer, bytes) == nullptr) {
      if (FullOfWorker(bytes) != nullptr) return;
      Granted granted = std::move(peer.waiting.front().granted);
      peer.waiting.pop_front();
      grants.emplace_back(std::move(granted), Occupy(id, bytes));
      passed = 0;
    } else {
      ++passed;
    }
    turns_.pop_front();
    if (!peer.waiting.empty()) turns_.push_back(id);
  }
}

bool Windows::TurnIsTaken() const {
  return std::any_of(turns_.begin(), turns_.end(), [this](WorkerId id) {
    const Peer& peer = peers_.at(id);
    return FullOfPeer(peer, peer.waiting.front().bytes) == nullptr;
  });
}

Windows::Room Windows::Take(WorkerId id, uint64_t bytes, std::string* full) {
  std::lock_guard lock(mutex_);
  const Peer& peer = peers_[id];
  const char* what = FullOfPeer(peer, bytes);
  if (what == nullptr) what = FullOfWorker(bytes);
  if (what == nullptr && peer.waiting.empty() && !TurnIsTaken()) return Occupy(id, bytes);
  *full = what != nullptr ? Describe(peer, what) : "others wait already";
  return nullptr;
}

Windows::Room Windows::TakeOrWait(WorkerId id, uint64_t bytes, Granted granted, uint64_t* ticket) {
  Grants grants;
  {
    std::lock_guard lock(mutex_);
    Peer& peer = peers_[id];
    if (turns_.empty() && FullOfPeer(peer, bytes) == nullptr && FullOfWorker(bytes) == nullptr) {
      return Occupy(id, bytes);
    }
    *ticket = next_ticket_++;
    if (closed_) {
      grants.emplace_back(std::move(granted), nullptr);
    } else {
      if (peer.waiting.empty()) turns_.push_back(id);
      peer.waiting.push_back({*ticket, bytes, std::move(granted)});
      Serve(grants);
    }
  }
  for (auto& [fn, room] : grants) fn(std::move(room));
  return nullptr;
}

bool Windows::TakeBack(WorkerId id, uint64_t ticket, std::string* full) {
  Waiter taken;  // freed after the lock
  Grants grants;
  {
    std::lock_guard lock(mutex_);
    Peer& peer = peers_[id];
    const auto it = std::find_if(peer.waiting.begin(), peer.waiting.end(),
                                 [ticket](const Waiter& waiter) { return waiter.ticket == ticket; });
    if (it == peer.waiting.end()) return false;
    const char* what = FullOfPeer(peer, it->bytes);
    if (what == nullptr) what = FullOfWorker(it->bytes);
    *full = what != nullptr ? Describe(peer, what) : "its turn";
    taken = std::move(*it);
    peer.waiting.erase(it);
    if (peer.waiting.empty()) turns_.erase(std::find(turns_.begin(), turns_.end(), id));
    Serve(grants);  // it may have been in the way of smaller ones
  }
  for (auto& [granted, room] : grants) granted(std::move(room));
  return true;
}

Windows::Room Windows::Count(WorkerId peer, uint64_t bytes) {
  std::lock_guard lock(mutex_);
  return Occupy(peer, bytes);
}

void Windows::Close() {
  std::vector<Waiter> told;
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
    for (auto& [id, peer] : peers_) {
      for (Waiter& waiter : peer.waiting) told.push_back(std::move(waiter));
      peer.waiting.clear();
    }
    turns_.clear();
  }
  for (Waiter& waiter : told) waiter.granted(nullptr);
}

size_t Windows::waiting() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [id, peer] : peers_) count += peer.waiting.size();
  return count;
}

size_t Windows::waiting(WorkerId id) const {
  std::lock_guard lock(mutex_);
  const auto it = peers_.find(id);
  return it == peers_.end() ? 0 : it->second.waiting.size();
}

}  // namespace gradferry
