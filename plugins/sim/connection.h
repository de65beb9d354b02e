// One end of a connection in a simulated network, and what lies between two ends. A frame's segments are copied once,
// at delivery, from the sender's memory into the receiver's. Called by the plugin's function table (Send, Close; any
// thread), by Transport, and by events on the loop's thread (all else).
//
// The ends are orderly, as with TCP: what was sent before a close arrives before the peer sees the end. The closing end
// does not wait for that: what is still under way then is copied, as a kernel has a copy, and the host told that it was
// sent.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/sim/event_loop.h"
#include "plugins/sim/link.h"

namespace gradferry::sim {

class Connection;
class Network;
class Transport;

// A frame under way. Made by Send; afterwards only the loop's thread uses it.
struct Frame {
  gf_transport_frame view{};  // of the sender's memory, or of copy
  std::vector<gf_transport_segment> segments;
  void* op = nullptr;
  std::shared_ptr<Connection> sender;  // null when it has been told that the frame is sent
  EventLoop::Key due;
  Fate fate;
  std::unique_ptr<char[]> copy;
};

// One direction of a connection. Guarded by the network's mutex.
struct Pipe {
  Pipe(Sender* sender, const LinkId& id) : link(sender, id) {}

  Link link;
  uint64_t last_due = 0;                         // nothing overtakes
  std::deque<std::shared_ptr<Frame>> under_way;  // those whose sender has not been told, oldest first
  std::shared_ptr<Connection> receiver;          // null before it was accepted, and after its end
  bool half_open = false;  // a fault has swallowed what the sender should have heard of the other end
};

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  // A connection that is to be dialled.
  Connection(Transport* transport, void* token, const LinkId& id);
  // The other end of it, which does not know its token yet.
  Connection(Transport* transport, const Connection& dialler);

  int32_t Send(const gf_transport_frame* frame, void* op, gf_transport_error* error);
  void Close();
  uint64_t stream() const { return out_->link.stream(); }
  // Both sides learn that the connection is gone. On the loop's thread.
  void Break(const std::string& why);

  // With the network's mutex held.
  void DialLocked(uint64_t number);
  void CloseLocked();

 private:
  enum class State { kOpen, kClosing, kClosed };

  // Sends something to the other end: it arrives, as an event, after all that was sent before, unless it is lost.
  EventLoop::Key PostLocked(const Fate& fate, std::function<void()> arrive);
  void PostEndLocked();

  // Events.
  void ArriveAt(uint64_t number);
  void Deliver(const std::shared_ptr<Frame>& frame);
  void CountArrivalLocked(const Frame& frame, Connection& receiver);
  void RepeatLocked(const Frame& frame);
  // We have closed, or refused a frame.
  void EndOurs();
  // The peer, or the way to it, is gone: what is under way is lost.
  void EndTheirs(int32_t code, const std::string& why);
  // The host did not want this accepted end: it gets no event.
  void Discard();

  // missing: bytes of the segments that never come.
  int32_t Receive(const Frame& frame, uint64_t missing = 0);
  void Refuse(int32_t code, const std::string& why = "the host refused a frame");
  void TellSent(const std::shared_ptr<Frame>& frame, const gf_transport_error* error);
  void TellClosed();
  // Takes this end out of its transport. False when it had ended before.
  bool LeaveLocked();
  std::vector<std::shared_ptr<Frame>> TakeUnderWayLocked();

  Network& network_;
  Transport* const transport_;  // not to be touched once kClosed, but by the event that made it so
  void* token_ = nullptr;       // set once, before any event but on_accept
  const LinkId id_;
  const std::shared_ptr<Pipe> out_;

  // Guarded by the network's mutex.
  std::shared_ptr<Pipe> in_;    // null while dialling
  State state_ = State::kOpen;  // becomes kClosed on the loop's thread only
  int32_t end_code_ = 0;        // what on_closed will say
  std::string end_text_;
};

}  // namespace gradferry::sim
