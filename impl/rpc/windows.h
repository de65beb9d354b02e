// How much a worker may have under way: calls and bytes of tensors that were sent and are not answered, to each peer
// and to all of them together. A call for which there is no room waits or is refused; requests of passes and of the
// house (gradients, marks, clean-ups) are never held back, or passes could wait for each other in a circle, but they
// count.
//
// Who waits is served in the order of coming, peer by peer: a full peer's calls do not keep others' from going, and
// when the worker's own window is full the peers take turns at what becomes free. A call that is larger than a whole
// window goes when it is alone in it.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "impl/base/status.h"
#include "impl/wire/messages.h"

namespace gradferry {

struct WindowSize {
  uint64_t calls = UINT64_MAX;
  uint64_t bytes = UINT64_MAX;
};

// Any thread. Nothing is called with the lock held.
class Windows : public std::enable_shared_from_this<Windows> {
 public:
  // Room that was taken; it is free again when this is let go of. The Windows live as long.
  using Room = std::shared_ptr<void>;
  // Called once, on the thread that made room; with null when there will be none any more.
  using Granted = std::function<void(Room)>;

  Windows(WindowSize of_worker, WindowSize of_peer) : of_worker_(of_worker), of_peer_(of_peer) {}

  // What the peer itself announced. Of the bytes, which are all that it takes, half are for calls; the other half is
  // for gradients and replies. The smaller window holds.
  void Announced(WorkerId peer, WindowSize window);
  // Whether it would take a call of so many bytes if there were nothing else.
  bool Takes(WorkerId peer, uint64_t bytes) const;

  // Room for a call, when there is some and nobody waits for it; else null and, in *full, the window that is full:
  // "limits.calls_per_peer (2)".
  Room Take(WorkerId peer, uint64_t bytes, std::string* full);
  // The same, but waits when there is none: `granted` is called then, and *ticket is set before that, for TakeBack.
  Room TakeOrWait(WorkerId peer, uint64_t bytes, Granted granted, uint64_t* ticket);
  // A call does not wait any more. *full: for what it did. False when it has been granted, or is being so.
  bool TakeBack(WorkerId peer, uint64_t ticket, std::string* full);
  // For what is never held back.
  Room Count(WorkerId peer, uint64_t bytes);
  // Nobody gets room any more: who waits is told.
  void Close();

  size_t waiting() const;
  size_t waiting(WorkerId peer) const;

 private:
  struct Used {
    uint64_t calls = 0;
    uint64_t bytes = 0;
  };
  struct Waiter {
    uint64_t ticket = 0;
    uint64_t bytes = 0;
    Granted granted;
  };
  // Until a peer has said what it takes.
  static constexpr uint64_t kUnannouncedBytes = 64 << 20;
  struct Peer {
    WindowSize announced{UINT64_MAX, kUnannouncedBytes};
    bool unannounced = true;
    Used used;
    std::deque<Waiter> waiting;
  };
  using Grants = std::vector<std::pair<Granted, Room>>;

  // With mutex_ held.
  const char* FullOfPeer(const Peer& peer, uint64_t bytes) const;
  const char* FullOfWorker(uint64_t bytes) const;
  // Whether a call waits for nothing but the worker's window, and others must not pass it.
  bool TurnIsTaken() const;
  std::string Describe(const Peer& peer, const char* full) const;
  Room Occupy(WorkerId peer, uint64_t bytes);
  void Serve(Grants& grants);

  void Free(WorkerId peer, uint64_t bytes);

  const WindowSize of_worker_;
  const WindowSize of_peer_;

  mutable std::mutex mutex_;  // guards the rest; a leaf
  std::unordered_map<WorkerId, Peer> peers_;
  Used used_;
  std::deque<WorkerId> turns_;  // peers for which calls wait, each once
  uint64_t next_ticket_ = 1;
  bool closed_ = false;
};

}  // namespace gradferry
