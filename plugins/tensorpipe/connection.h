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
// A known limit of TensorPipe: with the cma channel the receiver copies out of the sender's memory. When the sender
// closes, its sends end at once, and a receiver that is just copying may get bytes that the sender has overwritten.
#pragma once

#include <tensorpipe/core/pipe.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "plugins/tensorpipe/framing.h"
#include "plugins/tensorpipe/shared.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

class Connection : public std::enable_shared_from_this<Connection> {
 public:
  enum class Origin { kDialled, kAccepted };
  // Called once, after on_closed, with the connection.
  using Ended = std::function<void(Connection*)>;

  // peer is for texts.
  Connection(Shared* shared, std::shared_ptr<::tensorpipe::Pipe> pipe, Origin origin, std::string peer, Ended ended);

  Shared* shared() const { return shared_; }

  // Begins to read. Once.
  void Start(void* token);
  // Instead of Start: the host does not want it. It ends without events.
  void Discard();

  Status Send(const gf_transport_frame& frame, void* op);
  void Close();

 private:
  void SendWelcome();
  void OnStands();

  bool BeginSend();
  void EndOperation();
  void OnWritten(const ::tensorpipe::Error& error, void* op, uint64_t bytes);

  void ReadNext();
  void OnDescriptor(const ::tensorpipe::Error& error, ::tensorpipe::Descriptor descriptor);
  void SkipWelcome();
  void Announce(const ::tensorpipe::Descriptor& descriptor);
  void OnRead(const ::tensorpipe::Error& error, uint64_t bytes);
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

  mutable std::mutex mutex_;  // guards end_; nothing is called while it is held
  std::optional<Status> end_;
};

}  // namespace gradferry::tp
