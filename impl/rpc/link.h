// One connection with what workers say over it: frames to messages and back. ClientLink is the side that connected: it
// introduces itself, sends requests and gets their answers. ServerLink is the side that accepted: it checks the
// introduction, gets requests and answers them. Between two workers there are up to two connections, one for the
// requests of each; a worker that calls itself has both ends of one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "impl/base/clock.h"
#include "impl/base/live.h"
#include "impl/rpc/metrics.h"
#include "impl/transport/transport.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"

namespace gradferry {

// Receives frames on a connection and turns them into messages. The transport calls it, one event at a time.
//
// Every frame carries its number and a checksum (seal.h). One that came already is dropped; a gap or a damaged frame ends
// the connection with kDataLoss: what was in it is lost, and with it the order of what follows.
class Link : public ConnectionEvents {
 public:
  // Both are the worker's, which outlives its links.
  Link(const WireLimits* limits, RpcMetrics* metrics) : limits_(limits), metrics_(metrics) {}

  Status OnDescriptor(std::string_view header, std::vector<Segment>& segments) final;
  void OnFrame(Status status) final;
  void OnClosed(Status status) final;

  // Any thread.
  Status SendMessage(const Message& message, const std::vector<bool>& record_grad = {});
  Status SendFrame(EncodedFrame frame);
  void CloseConnection();

 protected:
  // A message has arrived whole. An error closes the connection and becomes the reason that Closed gets.
  virtual Status OnMessage(DecodedMessage message) = 0;
  // Whether a frame may bring segments already; before the introduction it may not.
  virtual bool Introduced() const = 0;
  // The other side, for errors: "worker stage1", "an unknown peer".
  virtual std::string PeerName() const = 0;
  // The connection has ended; the last call.
  virtual void Closed(Status status) = 0;

  void SetConnection(std::shared_ptr<Connection> connection);
  const WireLimits& limits() const { return *limits_; }

 private:
  // Whether the frame is whole and the next one, or came already.
  Status CheckSeal(std::string_view header);
  Status CheckSegments(const FrameDecoder& decoder) const;

  const WireLimits* const limits_;
  RpcMetrics* const metrics_;

  // Touched by the transport's events only, which come one at a time.
  std::unique_ptr<FrameDecoder> decoder_;
  Seal seal_;               // of the frame that is under way
  bool duplicate_ = false;  // that frame came before
  uint64_t next_in_ = 0;    // the number of the next frame
  Status reason_;

  std::mutex connection_mutex_;  // guards connection_; a leaf lock
  std::shared_ptr<Connection> connection_;

  // Held while a frame is numbered and handed to the transport, so that numbers are in the order of sending; the
  // transport never calls back on our stack (GF-TRN-02). After ClientLink's.
  std::mutex send_mutex_;
  uint64_t next_out_ = 0;  // guarded by send_mutex_
};

// How an answer came: the message that carried it, or why none did.
using AnswerCallback = std::function<void(Result<DecodedMessage>)>;

// A request on its way out. The message's call_id is set by the link.
struct OutRequest {
  Message message;
  std::vector<bool> record_grad;
  int64_t deadline = kNever;  // on the worker's clock
  std::string operation;      // for errors
  bool cancel_on_deadline = false;  // a Call: tell the callee
};

class ClientLink final : public Link, public std::enable_shared_from_this<ClientLink> {
 public:
  // Who is on the other side, for errors; and what happens when the introduction is over or the connection has ended.
  struct Owner {
    std::string peer_name;
    Clock* clock = nullptr;
    uint64_t max_requests = 0;
    std::function<Status(const HelloReply&)> introduced;
    std::function<void(ClientLink*, const Status&)> closed;
  };

  ClientLink(const WireLimits* limits, RpcMetrics* metrics, Owner owner)
      : Link(limits, metrics), owner_(std::move(owner)) {}

  // Once, right after connecting: says hello. Frames sent meanwhile wait for the answer.
  Status Begin(std::shared_ptr<Connection> connection, const Hello& hello);

  // Sends a request; `done` is called once, on a thread of the transport or the clock, unless this returns an error.
  // The call_id is for Abandon.
  Result<uint64_t> Request(OutRequest request, AnswerCallback done);
  // A message without an answer.
  Status Notify(const Message& message);
  // Forgets a request: its `done` is not called any more; whether it was still there. With tell the callee hears of it.
  bool Abandon(uint64_t call_id, bool tell);
  // Ends what is pending with this error; the connection itself is left alone.
  void FailPending(const Status& status);
  // The same, and takes nothing more.
  void Fail(const Status& status);
  void SayGoodbye(const std::string& reason);

 protected:
  Status OnMessage(DecodedMessage message) override;
  bool Introduced() const override { return introduced_; }
  std::string PeerName() const override { return "worker " + owner_.peer_name; }
  void Closed(Status status) override;

 private:
  struct Pending {
    AnswerCallback done;
    std::string operation;
    int64_t began = 0;
    TimerId timer = 0;
    bool cancel_on_deadline = false;
    Live<LiveKind::kCalls> live;
  };

  Status SendOrQueue(EncodedFrame frame);
  // Takes a pending request out; null when it is gone.
  std::unique_ptr<Pending> Take(uint64_t call_id);
  void OnDeadline(uint64_t call_id);
  Status Answer(uint64_t call_id, DecodedMessage message);

  const Owner owner_;
  std::atomic<bool> introduced_{false};
  std::atomic<uint64_t> next_call_id_{1};
  // Guards the rest. Held while queued frames go to the transport, which never calls back on our stack (GF-TRN-02).
  std::mutex mutex_;
  bool ready_ = false;
  bool closed_ = false;
  Status closed_status_;
  std::vector<EncodedFrame> queued_;
  std::unordered_map<uint64_t, std::unique_ptr<Pending>> pending_;
};

}  // namespace gradferry
