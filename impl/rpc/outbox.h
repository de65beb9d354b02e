// The frames of one connection on their way out: numbers and seals them, and decides when each goes. Owned by a Link.
//
// A frame without much data goes to the transport at once. Of those with more than kDirectBytes of segments the
// transport has no more than a chunk at a time, and one with more than half of that goes in pieces: the header first,
// sealed as announcement, then frames with slices of the tensors' own memory. So a frame without much data is never
// behind more than a chunk of large ones, and behind less while there are many; the large ones take turns, and of two
// turns one belongs to gradients when there are any. Nothing is copied.
//
// What this makes of the order of frames is said in docs/protocol.md, "Order".
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "impl/base/status.h"
#include "impl/rpc/liveness.h"
#include "impl/rpc/metrics.h"
#include "impl/transport/transport.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"

namespace gradferry {

// Any thread. The owners of frames are released on any thread, with no lock held.
class Outbox : public std::enable_shared_from_this<Outbox> {
 public:
  // Frames with at most this many bytes of segments are sent at once.
  static constexpr uint64_t kDirectBytes = 64 * 1024;

  // All must outlive the frames that the transport has, but `silence`, which is shared with them. chunk_bytes: 0: what
  // the transport prefers.
  Outbox(const WireLimits* limits, RpcMetrics* metrics, std::shared_ptr<Silence> silence, uint64_t chunk_bytes);

  // Once, before anything is sent.
  void SetConnection(std::shared_ptr<Connection> connection);
  // The version that both sides have agreed upon: all frames carry it from here on. Who does not take chunks gets whole
  // frames.
  void SetVersion(uint16_t version, bool peer_takes_chunks);

  // Where to count besides.
  void SetPeerMetrics(PeerMetrics* metrics) { peer_metrics_.store(metrics, std::memory_order_release); }

  // When it fails nothing was sent. `tag` is for GiveUp; 0: none. When a frame that waited cannot be sent the
  // connection is closed, and Close tells why.
  Status Send(EncodedFrame frame, uint64_t tag = 0);
  // Sends it when no other frame waits.
  void SendLast(EncodedFrame frame);
  // The message with this tag is not needed any more. True: it was not sent in full, and what had not been sent will
  // not be; the receiver knows. False: it is out of our hands, or never was here.
  bool GiveUp(uint64_t tag);
  // The connection has ended. Returns why, when that was our doing.
  Status Close();

 private:
  // A frame that waits for its turn, in pieces or as a whole.
  struct Waiting {
    EncodedFrame frame;
    uint64_t tag = 0;
    bool in_chunks = false;
    bool announced = false;
    uint64_t transfer = 0;  // once announced
    size_t segment = 0;     // where the next chunk begins
    uint64_t offset = 0;
  };
  using Queue = std::deque<std::unique_ptr<Waiting>>;

  // Hands frames that wait to the transport for as long as the window has room.
  void Pump();
  void OnTaken(uint64_t bytes);
  // Whether so many bytes of segments need not wait.
  bool IsDirect(uint64_t bytes) const { return bytes <= kDirectBytes && bytes <= chunk_bytes_; }
  // What goes of a large frame at a time, with mutex_ held.
  uint64_t PieceBytes() const;

  // All with mutex_ held. What they put into `released` is let go of without it.
  using Released = std::vector<std::shared_ptr<void>>;
  Status SendNow(EncodedFrame frame, Seal seal, Released& released);
  // A frame that counts for Silence and for the window until its owner is released.
  std::shared_ptr<void> Watched(uint64_t bytes, std::shared_ptr<void> owner);
  // The queue whose turn it is; null when nothing waits.
  Queue* NextQueue();
  // Sends the next of what waits first in the queue; then it goes to the queue's end or, with nothing left, to `done`.
  Status SendPiece(Queue& queue, Released& released, std::unique_ptr<Waiting>& done);
  static std::vector<FrameSegment> NextSlices(Waiting& waiting, uint64_t most);
  void Break(Status why);

  const WireLimits* const limits_;
  RpcMetrics* const metrics_;
  const std::shared_ptr<Silence> silence_;
  uint64_t chunk_bytes_;  // set with the connection
  std::atomic<PeerMetrics*> peer_metrics_{nullptr};

  // Guards the rest. Held while a frame is numbered and handed to the transport, so that numbers are in the order of
  // sending; the transport never calls back on our stack (GF-TRN-02). After ClientLink's.
  std::mutex mutex_;
  std::shared_ptr<Connection> connection_;
  Status broken_;
  uint16_t version_ = 0;  // 0: not agreed upon
  bool peer_takes_chunks_ = true;
  uint64_t next_number_ = 0;
  std::array<Queue, 2> queues_;  // gradients, others
  size_t turn_ = 0;
  uint64_t in_window_ = 0;  // bytes that the transport has of frames that waited
  int smaller_pieces_ = 0;  // how many more are small, since others go between them
  bool pumping_ = false;
  std::vector<EncodedFrame> last_;
};

}  // namespace gradferry
