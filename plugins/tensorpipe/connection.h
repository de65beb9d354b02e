// One connection: a Pipe of TensorPipe and the host's token. Created by Instance, for a dialled or an accepted pipe.
//
// Life. The connection counts its operations: each send until its on_sent has returned, and the reading, which is one
// operation from the start until the pipe fails, is closed or gets something that must not be read on. An operation is
// over only when its last event has been delivered, so whoever ends the last one delivers on_closed, and that is the
// last event. TensorPipe calls back for every operation, with an error if need be, so the end always comes.
//
// Whether it stands. TensorPipe says nothing when it has set up a pipe, and an accepting pipe whose peer goes away in
// the middle of that waits for ever. So the accepting end sends a welcome; when that is not on its way after a while,
// the end is here. And a dialled connection that is closed while it is being set up waits a moment for the welcome, so
// that the peer hears of the end at once.
//
// Why it ended is decided once, by what came first: Close (GF_OK) or an error.
//
// Threads. Send and Close: any. The rest runs in callbacks of TensorPipe's Context, or as an event in the queue, so one
// at a time. Never is a lock held across a call of TensorPipe or of the host.
//
// Large segments. With the option cma each end tries whether it can read the other's memory (cma.h) and says so; what
// is sent to an end that can is lent: the frame names addresses, the receiver copies on a thread of the transport's and
// answers with the frame's number. Frames sent before that is known, or when it does not work, go over TensorPipe's
// channels. Each direction is for itself, so nothing has to be the same on both sides.
#pragma once

#include <tensorpipe/core/pipe.h>

#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "plugins/tensorpipe/cma.h"
#include "plugins/tensorpipe/control.h"
#include "plugins/tensorpipe/framing.h"
#include "plugins/tensorpipe/shared.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class Origin { kDialled, kAccepted };
  // Called once, after on_closed, with the connection.
  using Ended = std::function<void(Connection*)>;

  // peer is for texts. address: by which the connection was made, as the other end knows it too.
  Connection(Shared* shared, std::shared_ptr<::tensorpipe::Pipe> pipe, Origin origin, std::string peer,
             std::string address, Ended ended);

  Shared* shared() const { return shared_; }

  // Begins to read. Once.
  void Start(void* token);
  // Instead of Start: the host does not want it. It ends without events.
  void Discard();

  Status Send(const gf_transport_frame& frame, void* op);
  void Close();
  // For gf_transport_vtable.peer.
  std::string PeerJson() const;

 private:
  // A frame that the host has sent, until its on_sent.
  struct Sending {
    uint64_t number = 0;
    void* op = nullptr;
    uint64_t bytes = 0;
    bool lent = false;     // it waits for the receiver's answer
    bool written = false;  // TensorPipe is done with it
    bool done = false;     // so is the receiver
    bool failed = false;
  };

  void SendWelcome();
  void OnStands();

  bool BeginSend(const Sending& sending);
  void EndOperation();
  void OnWritten(const ::tensorpipe::Error& error, uint64_t number);
  void OnDone(uint64_t number);
  void CompleteSends();
  void FailLent();

  void ReadNext();
  void OnDescriptor(const ::tensorpipe::Error& error, ::tensorpipe::Descriptor descriptor);
  void SkipWelcome();
  void TakeControl(const std::string& metadata);
  void Handle(const Control& control);
  void SendControl(const Control& control);
  void Offer();
  void TestPeer();
  void Refuse();
  void Announce(const ::tensorpipe::Descriptor& descriptor);
  void OnRead(const ::tensorpipe::Error& error, uint64_t bytes);
  void Copy(std::vector<uint64_t> from, std::vector<gf_transport_segment> to, uint64_t number, uint64_t bytes);
  void EndFrame(int32_t code);
  void LastOfReading();
  void EndReading(const Status& reason);

  void DeliverSent(void* op, const Status& status);
  void DeliverClosed();

  Status Failure(const ::tensorpipe::Error& error) const;
  bool SetEnd(Status reason);
  std::optional<Status> End() const;

  Shared* const shared_;
  const std::shared_ptr<::tensorpipe::Pipe> pipe_;
  const Origin origin_;
  const std::string peer_;
  const Ended ended_;

  void* token_ = nullptr;   // set before the first event
  bool discarded_ = false;  // likewise

  std::atomic<uint32_t> operations_{1};  // reading is the first
  std::atomic<bool> stands_{false};      // something went through, so the peer was there

  const std::string address_;
  CmaRecord record_;
  // Callbacks of the pipe, which come one at a time.
  Challenge challenge_{};
  CmaReader reader_;
  bool offered_ = false;
  bool tested_ = false;
  std::atomic<bool> reads_{false};  // the peer's memory, which was tried
  std::atomic<bool> lends_{false};  // the peer reads ours

  mutable std::mutex mutex_;  // guards what follows; nothing is called while it is held
  std::optional<Status> end_;
  std::deque<Sending> sends_;
  uint64_t last_number_ = 0;
  std::string why_not_;  // large segments are not lent
};

}  // namespace gradferry::tp
