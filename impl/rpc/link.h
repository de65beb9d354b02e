// One connection with what workers say over it: frames to messages and back. ClientLink is the side that connected: it
// introduces itself, sends requests and gets their answers. ServerLink is the side that accepted: it checks the
// introduction, gets requests and answers them. Between two workers there are up to two connections, one for the
// requests of each; a worker that calls itself has both ends of one.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "impl/base/clock.h"
#include "impl/base/live.h"
#include "impl/rpc/future.h"
#include "impl/rpc/handshake.h"
#include "impl/rpc/incoming_transfers.h"
#include "impl/rpc/liveness.h"
#include "impl/rpc/memory_account.h"
#include "impl/rpc/metrics.h"
#include "impl/rpc/outbox.h"
#include "impl/rpc/ticker.h"
#include "impl/transport/transport.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"

namespace gradferry {

// What all links of a worker share. The worker's, which outlives them.
struct LinkHome {
  const WireLimits* limits = nullptr;
  RpcMetrics* metrics = nullptr;
  const LivenessOptions* liveness = nullptr;
  Clock* clock = nullptr;
  std::shared_ptr<Ticker> ticker;  // a request that waits is a reason; null: heartbeats are off
  const Identity* self = nullptr;
  uint64_t chunk_bytes = 0;  // of large messages, sent at a time; 0: what the transport prefers
};

// Receives frames on a connection and turns them into messages. The transport calls it, one event at a time. What it
// sends goes through an Outbox.
//
// Every frame carries its number and a checksum (seal.h). One that came already is dropped; a gap or a damaged frame
// ends the connection with kDataLoss: what was in it is lost, and with it the order of what follows.
class Link : public ConnectionEvents {
 public:
  explicit Link(const LinkHome* home)
      : home_(home), outbox_(std::make_shared<Outbox>(home->limits, home->metrics, silence_, home->chunk_bytes)) {}

  Status OnDescriptor(std::string_view header, std::vector<Segment>& segments) final;
  void OnFrame(Status status) final;
  void OnClosed(Status status) final;

  // Any thread.
  Status SendMessage(const Message& message, const std::vector<bool>& record_grad = {});
  // The tag is for GiveUp: of a request or its reply, the call_id.
  Status SendFrame(EncodedFrame frame, uint64_t tag = 0) { return outbox_->Send(std::move(frame), tag); }
  // Nobody needs that message any more. Whether its receiver will not get it; false when it is too late for that.
  bool GiveUp(uint64_t tag) { return outbox_->GiveUp(tag); }
  // After all that waits to be sent.
  void SayGoodbye(const std::string& reason);
  void CloseConnection();
  // The same; `why` is what Closed gets.
  void CloseBecause(Status why);

  // What the transport knows of the other side; complete once a frame has come.
  PeerInfo peer_info() const;

  // Before the first event: closes the connection unless Introduced within liveness.introduction.
  void ExpectIntroduction();
  void CancelIntroduction();

  // Whether the other side still lives, as far as can be seen here: asks for heartbeats, warns, in the end closes the
  // connection. Called by the worker's ticker while something depends on the other side; Rest is called instead when
  // nothing does. Returns when to look again.
  int64_t LookAfter(int64_t now, int64_t grace);
  void Rest();
  // What the other side makes us hold; null before the introduction.
  const std::shared_ptr<MemoryAccount>& account() const { return account_; }
  bool suspect() const { return suspect_; }
  // Whose frames these are, when that is known; else null. Lives longer than the link.
  PeerMetrics* peer_metrics() const { return peer_metrics_.load(std::memory_order_acquire); }
  // The name of the transport that carries it; "" before it has a connection.
  std::string transport() const;
  // LookAfter has closed the connection.
  bool lost() const { return lost_; }

 protected:
  // A message has arrived whole. An error closes the connection and becomes the reason that Closed gets.
  virtual Status OnMessage(DecodedMessage message) = 0;
  // Whether a frame may bring segments already; before the introduction it may not.
  virtual bool Introduced() const = 0;
  // The other side, for errors: "worker stage1", "an unknown peer".
  virtual std::string PeerName() const = 0;
  // This object, for timers.
  virtual std::shared_ptr<Link> Self() = 0;
  // The connection has ended; the last call.
  virtual void Closed(Status status) = 0;

  void SetConnection(std::shared_ptr<Connection> connection);
  // Where what arrives counts. Before the other side has introduced itself.
  void SetAccount(std::shared_ptr<MemoryAccount> account) { account_ = std::move(account); }
  // Asks the transport for peer_info.
  Status AskForPeer();
  // The version that both sides have agreed upon: all frames carry it from here on.
  void SetVersion(uint16_t version, bool peer_takes_chunks);
  // What Closed gets as the reason, unless there is one already; the connection is left alone.
  void SetVerdict(Status why);
  void SetPeerMetrics(PeerMetrics* metrics) {
    peer_metrics_.store(metrics, std::memory_order_release);
    outbox_->SetPeerMetrics(metrics);
  }
  // Null when it has ended.
  std::shared_ptr<Connection> connection();
  const LinkHome& home() const { return *home_; }
  const WireLimits& limits() const { return *home_->limits; }

 private:
  // Whether the frame is whole and the next one, or came already.
  Status CheckSeal(std::string_view header);
  Status CheckSegments(const std::vector<FrameSegment>& segments) const;
  // A frame that is announced: where its segments go.
  Status Announced(std::string_view message, std::vector<Segment>& segments);
  Status PlaceChunk(std::string_view message, std::vector<Segment>& segments);
  Status ChargeArriving(size_t header_bytes);
  // It has come.
  Status OnWhole(std::unique_ptr<FrameDecoder> decoder);

  Status OnHeartbeat(const Heartbeat& heartbeat);

  const LinkHome* const home_;
  // Shared with the frames that the transport has, which count down as they go.
  const std::shared_ptr<Silence> silence_ = std::make_shared<Silence>();
  std::atomic<PeerMetrics*> peer_metrics_{nullptr};
  const std::shared_ptr<Outbox> outbox_;
  std::atomic<bool> suspect_{false};
  std::atomic<bool> lost_{false};
  std::atomic<uint16_t> version_{0};  // 0: not agreed upon

  // Touched by the transport's events only, which come one at a time.
  struct Arriving {
    Seal seal;
    bool duplicate = false;                 // it came before, and is received only to be dropped
    std::unique_ptr<FrameDecoder> decoder;  // null of a chunk or duplicate
    std::optional<uint64_t> chunk_of;       // the transfer
    std::vector<FrameSegment> segments;
    std::unique_ptr<char[]> dropped;  // a duplicate's memory
  };
  std::optional<Arriving> arriving_;
  IncomingTransfers transfers_;
  std::shared_ptr<MemoryAccount> account_;  // null: not known yet
  uint64_t next_in_ = 0;                    // the number of the next frame
  Status reason_;

  mutable std::mutex connection_mutex_;  // guards the next five; before the clock's
  std::shared_ptr<Connection> connection_;
  Status verdict_;  // why we close it
  PeerInfo peer_info_;
  std::string transport_;
  TimerId introduction_ = 0;
};

// How an answer came: the message that carried it, or why none did.
using AnswerCallback = std::function<void(Result<DecodedMessage>)>;

// A request on its way out. The message's call_id is set by the link.
struct OutRequest {
  Message message;
  std::vector<bool> record_grad;
  int64_t deadline = kNever;                       // on the worker's clock
  std::string operation;                           // for errors
  bool cancel_on_deadline = false;                 // a Call: tell the callee
  std::function<void(uint64_t call_id)> numbered;  // may be empty: called before it is sent
};

class ClientLink final : public Link, public FutureDriver, public std::enable_shared_from_this<ClientLink> {
 public:
  // Who is on the other side, for errors; and what happens when the introduction is over or the connection has ended.
  struct Owner {
    std::string peer_name;
    PeerMetrics* metrics = nullptr;  // lives longer than the link
    uint64_t first_call_id = 1;
    std::shared_ptr<MemoryAccount> account;
    std::function<Status(const HelloReply&)> introduced;
    std::function<void(ClientLink*, const Status&)> closed;
  };

  ClientLink(const LinkHome* home, Owner owner, DialHandshake handshake)
      : Link(home), owner_(std::move(owner)), handshake_(std::move(handshake)) {
    SetPeerMetrics(owner_.metrics);
    next_call_id_ = owner_.first_call_id;
    SetAccount(owner_.account);
  }

  // Once, right after connecting: says hello. Frames sent meanwhile wait for the answer.
  Status Begin(std::shared_ptr<Connection> connection);

  // Sends a request; `done` is called once, on a thread of the transport or the clock, unless this returns an error:
  // then nothing was sent, and `request` and `done` are as they were. The call_id is for Abandon.
  Result<uint64_t> Request(OutRequest& request, AnswerCallback& done);
  // A message without an answer.
  Status Notify(const Message& message);
  // Forgets a request: its `done` is not called any more; whether it was still there. With tell the callee hears of it.
  bool Abandon(uint64_t call_id, bool tell);
  // Ends what is pending with this error; the connection itself is left alone.
  void FailPending(const Status& status);
  // The same, and takes nothing more.
  void Fail(const Status& status);
  // How many requests wait for their answers.
  size_t pending();
  // Takes no more requests: the connection has ended.
  bool ended();
  bool introduced() const { return introduced_; }
  // The other side said goodbye.
  bool goodbye() const { return goodbye_; }
  void SayGoodbye(const std::string& reason);

  // By the connection.
  void Drive(int64_t until, const std::function<bool()>& done) override;
  void WakeDriver() override;

 protected:
  Status OnMessage(DecodedMessage message) override;
  bool Introduced() const override { return introduced_; }
  std::string PeerName() const override { return "worker " + owner_.peer_name; }
  std::shared_ptr<Link> Self() override { return shared_from_this(); }
  void Closed(Status status) override;

 private:
  struct Pending {
    explicit Pending(TickerReason why) : reason(std::move(why)) {}
    AnswerCallback done;
    std::string operation;
    CallKind kind = CallKind::kOther;
    int64_t began = 0;
    TimerId timer = 0;
    bool cancel_on_deadline = false;
    TickerReason reason;
    Live<LiveKind::kCalls> live;
  };

  Status OnHelloReply(const HelloReply& reply);
  // The introduction has failed on this side: tells the other one why, which then hangs up.
  Status Refuse(Status why, bool tell);
  // An error of this connection, as its users see it.
  Status Named(const Status& status) const;
  // A frame that waits for the introduction; call_id: of a request, else 0.
  struct QueuedFrame {
    EncodedFrame frame;
    uint64_t call_id = 0;
  };

  Status SendOrQueue(EncodedFrame frame, uint64_t call_id);
  // After the introduction.
  Status SendQueued();
  // Nobody waits for the answer to this request: what is not sent of it is dropped. With tell the callee hears of it
  // if all was.
  void TakeBack(uint64_t call_id, bool tell);
  // Takes a pending request out; null when it is gone.
  std::unique_ptr<Pending> Take(uint64_t call_id);
  void Record(const Pending& pending, Code outcome);
  void OnDeadline(uint64_t call_id);
  Status Answer(uint64_t call_id, DecodedMessage message);

  const Owner owner_;
  DialHandshake handshake_;  // touched by events only, once Begin has returned
  bool refused_ = false;     // likewise
  std::atomic<bool> introduced_{false};
  std::atomic<bool> goodbye_{false};
  std::atomic<uint64_t> next_call_id_{1};
  std::mutex mutex_;  // guards the rest
  bool ready_ = false;
  bool closed_ = false;
  Status closed_status_;
  std::vector<QueuedFrame> queued_;
  std::unordered_map<uint64_t, std::unique_ptr<Pending>> pending_;
};

}  // namespace gradferry
