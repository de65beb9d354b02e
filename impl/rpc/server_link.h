// The accepting side of a connection (see link.h): checks who the peer is, then hands its requests to the worker and
// keeps track of those that are not answered, so that a cancel or the end of the connection reaches them.
#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "impl/rpc/link.h"
#include "impl/rpc/request.h"

namespace gradferry {

class Worker;

class ServerLink final : public Link, public std::enable_shared_from_this<ServerLink> {
 public:
  ServerLink(const LinkHome* home, std::shared_ptr<Worker> worker)
      : Link(home), worker_(std::move(worker)), handshake_(home->self) {}

  void Begin(std::shared_ptr<Connection> connection);

  WorkerId peer() const { return peer_; }
  bool introduced() const { return introduced_; }
  // Counts a request of the peer's that was answered; after the introduction.
  void Record(CallKind kind, Code outcome, int64_t arrived);

  // A request whose cancel comes by this link. Done forgets it.
  void Track(uint64_t call_id, std::weak_ptr<Request> request);
  void Done(uint64_t call_id);

 protected:
  Status OnMessage(DecodedMessage message) override;
  bool Introduced() const override { return introduced_; }
  std::string PeerName() const override;
  std::shared_ptr<Link> Self() override { return shared_from_this(); }
  void Closed(Status status) override;

 private:
  Status OnHello(const Hello& hello);
  Status OnProof(const HelloProof& proof);
  void Admitted();
  // One line for the log, on who was not let in and why.
  void LogRefusal(const Status& why) const;
  Status OnRequest(DecodedMessage message);
  // The reply to gradients, with what happens until then in the worker's trace, when that is on.
  std::function<void(Ack)> Traced(uint64_t call_id, std::function<void(Ack)> reply);
  // held: FrameDecoder::held of the request.
  template <class Request>
  std::function<void(Ack)> AckTo(const Request& request, std::shared_ptr<void> held);
  void CancelRequest(uint64_t call_id);

  // Dropped when the connection has ended. Touched by events only, as all that follows but the requests; peer_,
  // peer_name_ and introduced_ are read by others after the introduction.
  std::shared_ptr<Worker> worker_;
  AcceptHandshake handshake_;
  Hello hello_;  // empty before it has come
  std::atomic<WorkerId> peer_{-1};
  std::string peer_name_;
  std::atomic<bool> introduced_{false};
  bool refused_ = false;   // and told so
  bool rejected_ = false;  // by the peer, who does not take us for whom it looks
  bool goodbye_ = false;

  std::mutex mutex_;  // guards requests_; a leaf lock
  std::unordered_map<uint64_t, std::weak_ptr<Request>> requests_;
};

}  // namespace gradferry
