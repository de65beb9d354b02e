// A worker: a named, numbered member of a group, as an object. It owns everything that runs for it: the transport, the
// links to its peers, the pool, the contexts and the engine; many workers may live in one process. Any thread.
//
// Threads. The transport delivers messages; what may take long (operators, direct handlers, passes) runs on the pool.
// Nothing blocks a thread of the transport; one of the pool may wait where another takes its place meanwhile
// (Executor::BlockingScope). Life: Create, Start; then Close or Abort, which end on a thread of their own, since they
// join the others. Links and requests hold the worker; both let go when it ends, so it must be ended to be freed.
//
// Locks, in this order: DistEngine's, links', peers_mutex_/handlers_mutex_/leases_mutex_; the last three are leaves but
// for the clock's.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <shared_mutex>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "impl/autograd/container.h"
#include "impl/base/executor.h"
#include "impl/base/live.h"
#include "impl/engine/dist_engine.h"
#include "impl/rpc/allow_list.h"
#include "impl/rpc/departure.h"
#include "impl/rpc/future.h"
#include "impl/rpc/link.h"
#include "impl/rpc/metrics_server.h"
#include "impl/rpc/options.h"
#include "impl/rpc/pending_connections.h"
#include "impl/rpc/rendezvous.h"
#include "impl/rpc/request.h"
#include "impl/tensor/operators.h"
#include "impl/trace/trace.h"
#include "impl/transport/transport.h"

namespace gradferry {

class ServerLink;

// What a call does when there is no room for it (windows.h); kDefault: what the configuration says.
enum class WhenFull { kDefault, kWait, kFail };

// What a call needs (gf_call).
struct CallSpec {
  std::string to;  // empty: by to_id
  WorkerId to_id = -1;
  CallTarget target = CallTarget::kHandler;
  std::string name;
  std::string overload;
  ValueList arguments;
  std::shared_ptr<DistAutogradContext> context;  // null: the parent's, if there is one
  std::shared_ptr<Request> parent;
  int64_t timeout = 0;  // ns; 0: the default
  bool record = true;
  bool profile = false;  // a parent that is profiled has its calls profiled as well
  WhenFull when_full = WhenFull::kDefault;
};

// A registered handler. `deliver` gets every request: with on_pool on the pool, else on the transport's thread, where
// it must only put it somewhere or, when it is inline, answer within microseconds. Destroyed after its last call.
struct Handler {
  std::function<void(std::shared_ptr<Request>)> deliver;
  bool on_pool = false;
  bool is_inline = false;
};

class Worker final : public std::enable_shared_from_this<Worker>, private EnginePeers, private TransportEvents {
 public:
  // A worker that takes handlers and nothing else until Start.
  static Result<std::shared_ptr<Worker>> Create(const Config& config);
  // Once. Blocks until the group is complete, at most group.join_timeout. When it fails the worker ends.
  Status Start();
  // Both.
  static Result<std::shared_ptr<Worker>> Open(const Config& config);
  ~Worker() override;

  const std::string& name() const { return options_.name; }
  WorkerId id() const { return id_; }
  std::string address() const;
  std::string InfoJson() const;
  // In Prometheus's text format (metrics_text.cc).
  std::string MetricsText() const;
  Clock& clock() override { return *clock_; }
  Trace& trace() { return *trace_; }
  int64_t backward_timeout() const { return options_.backward_timeout; }

  Status AddPeer(const ConfigPeer& peer);

  Status AddHandler(const std::string& name, Handler handler);
  Status RemoveHandler(const std::string& name);

  // The future completes once; on an error returned here nothing has happened.
  Result<std::shared_ptr<Future>> StartCall(CallSpec spec);

  Result<std::shared_ptr<DistAutogradContext>> NewContext();
  Result<std::shared_ptr<DistAutogradContext>> FindContext(int64_t id) const { return container_.Find(id); }
  Status ReleaseContext(int64_t id);
  std::string DescribeContext(const DistAutogradContext& context) const;
  // What the passes in it wait for, for gf_context_explain.
  nlohmann::json ExplainContext(const DistAutogradContext& context) const;

  // timeout in ns from now; 0: the default. The future completes without values.
  Result<std::shared_ptr<Future>> StartBackward(std::shared_ptr<DistAutogradContext> context, BackwardRequest request,
                                                int64_t timeout);

  // Ends the worker: lets what runs end until `timeout` ns have passed (real time), says goodbye, frees everything. The
  // first call decides; later ones get the same future. The future is complete before the worker's threads have ended.
  std::shared_ptr<Future> Close(int64_t timeout);
  void Abort();
  // Waits until the threads have ended. Not on one of them.
  void WaitUntilEnded();

 private:
  friend class ServerLink;

  struct Peer {
    ConfigPeer member;
    std::shared_ptr<ClientLink> link;  // null when there is no connection
    uint64_t incarnation = 0;          // as it last said, 0: not known
    // The first and the last of the attempts to connect that failed one soon after the other; 0: the last one did not.
    int64_t unreachable_since = 0;
    int64_t unreachable_last = 0;
    bool lost = false;                     // given up, until it introduces itself again
    std::unique_ptr<PeerMetrics> metrics;  // null until it is asked for
    std::shared_ptr<MemoryAccount> account;
  };

  explicit Worker(WorkerOptions options);
  Status StartTransport();
  Status JoinGroup();

  // EnginePeers
  WorkerId self() const override { return id_; }
  std::string NameOf(WorkerId worker) const override;
  void Send(WorkerId to, Message message, AckCallback done) override;
  void Post(std::function<void()> task) override { pool_->Post(std::move(task)); }
  std::function<void(Status)> WatchPart(WorkerId initiator) override;

  // TransportEvents
  std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection> connection) override;
  void OnAddress(std::string address) override;

  // Connections
  Result<std::shared_ptr<ClientLink>> LinkTo(WorkerId to);
  // A link that has ended, though nobody has said so yet.
  void ForgetLink(WorkerId to, const std::shared_ptr<ClientLink>& link);
  // Requests and messages without an answer, by a link that lives: one that has ended since its last use is replaced,
  // so that a connection that went while idle is no failure. When it fails nothing was sent.
  struct Sent {
    std::shared_ptr<ClientLink> link;
    uint64_t call_id = 0;
  };
  // What this peer makes us hold.
  std::shared_ptr<MemoryAccount> AccountOf(WorkerId peer);
  Result<Sent> SendRequest(WorkerId to, OutRequest request, AnswerCallback done);
  Status SendNotice(WorkerId to, const Message& message);
  Result<WorkerId> FindPeer(const std::string& name, WorkerId id) const;
  Status OnIntroduced(WorkerId peer, const HelloReply& hello);
  void OnLinkClosed(WorkerId peer, ClientLink* link, const Status& status);
  // The other side of an accepted connection, whose introduction was good: whether it may become a peer, which changes
  // nothing yet; and that it does. Refused once this worker has said goodbye: nobody would tell the new link.
  Status MayEnter(const Hello& hello) const;
  Status Enter(const Hello& hello, std::shared_ptr<ServerLink> link);
  // Under peers_mutex_: whether name and id are free, or belong to each other.
  Status CheckMember(const ConfigPeer& peer) const;
  void OnServerLinkClosed(ServerLink* link, WorkerId peer, bool goodbye, const Status& status);
  void OnGoodbye(WorkerId peer);
  // The peer said who it is: it lives, and may be another incarnation than before.
  void OnHello(WorkerId peer, uint64_t incarnation);

  // Of a peer; lives as long as the worker.
  PeerMetrics* MetricsOf(WorkerId peer);

  // Peers (peers.cc)
  int64_t LookAfterPeers(int64_t now, int64_t grace);
  void OnForeignContexts(int delta);
  bool IsLost(WorkerId peer) const;
  // A connection with a peer has ended, and not by a goodbye.
  void OnConnectionLost(WorkerId peer, const Link& link, const Status& status);
  void OnReborn(WorkerId peer);
  int64_t UnreachableLimit() const;
  int64_t NextPause(int64_t pause) const;
  // Runs a task on the pool after a while, unless the worker has ended.
  void Later(int64_t delay, std::function<void(Worker&)> task);

  // Leases (peers.cc)
  struct Question {
    WorkerId maker = -1;
    std::vector<int64_t> ids;  // still to be asked for
    int64_t began = 0;
    int64_t pause = 0;
  };
  int64_t NextLeases(int64_t now);
  void CheckLeases();
  void AskMaker(Question question);
  void OnLeaseAnswer(Question question, size_t count, Result<DecodedMessage> answer);
  void EndQuestion(WorkerId maker);
  ContextsGone GoneOf(const ContextsAlive& question) const;
  // Another worker's context is gone: releases the part here, and where it went from here.
  void AbandonContext(int64_t context_id, const Status& status);

  // Clean-up (peers.cc)
  void OnCleanup(WorkerId from, int64_t context_id);
  // Releases the part here and tells those who know of it by us, but for `except`; whether it was here.
  bool DropContext(int64_t context_id, const Status& status, WorkerId except);
  struct CleanUp {
    WorkerId worker = -1;
    int64_t context_id = 0;
    int64_t until = 0;
    int64_t pause = 0;
  };
  void TellCleanup(int64_t context_id, const std::set<WorkerId>& workers, WorkerId except);
  void CleanUpAt(CleanUp cleanup);
  void OnCleanUpFailed(CleanUp cleanup, const Status& status);

  // Calls
  struct Wrapped {
    Message message;
    std::vector<bool> record_grad;
    int64_t message_id = 0;
  };
  Result<Wrapped> Wrap(std::variant<Call, Reply> body, const std::shared_ptr<DistAutogradContext>& context, WorkerId to,
                       bool record);
  // Sends a call for which there is room. On an error nothing was sent, and `done` is still there.
  Status Depart(const std::shared_ptr<Departure>& call, Windows::Room room);
  // The same when it has waited.
  void DepartLate(const std::shared_ptr<Departure>& call, Windows::Room room);
  // Counts a call that ended before it was sent.
  void RecordUnsent(const Departure& call, Code why);
  void Wait(const std::shared_ptr<Departure>& call, uint64_t bytes);
  Result<ValueList> Unwrap(DecodedMessage message, const std::shared_ptr<DistAutogradContext>& context, WorkerId from);
  void OnCall(const std::shared_ptr<ServerLink>& link, WorkerId from, DecodedMessage message);
  void RunOperator(const std::shared_ptr<Request>& request, const std::string& name, const std::string& overload);
  Result<std::shared_ptr<const Operator>> FindOperator(const std::string& name, const std::string& overload);
  Status Respond(const std::shared_ptr<ServerLink>& link, uint64_t call_id, const Request::Facts& facts,
                 Result<ValueList> outcome);
  // The worker does not close before the transport has taken the reply's tensors. An error when the peer leaves so much
  // untaken that there is no memory for it.
  Status SendReply(ServerLink& link, EncodedFrame frame, uint64_t call_id);
  // A reply as a frame, with the profile if there is one; without its events when they do not fit beside the results.
  Result<EncodedFrame> EncodeReply(Message reply, const std::vector<bool>& record_grad, const Request::Facts& facts);

  // The end
  enum class State { kNew, kOpen, kClosing, kClosed };
  static const char* StateName(State state);
  Status CheckOpen() const;
  void Drain(int64_t timeout, const Status& closed, bool* cut_short);
  void End(Status pending);
  void BusyAdd(int64_t delta);
  // Counts as busy until it is dropped.
  std::shared_ptr<void> KeepBusy();
  // While it lives, simulated time stands still: for what sets a timer and sends on a thread of the caller's.
  std::shared_ptr<void> HoldClock();

  const WorkerOptions options_;
  const WorkerId id_;
  const uint64_t incarnation_;
  const OperatorAllowList allowed_;
  const std::shared_ptr<Windows> windows_;
  WireLimits limits_;  // the configuration's, and what the transport can carry; set before the first link
  const Identity identity_;
  RpcMetrics metrics_;
  const std::chrono::steady_clock::time_point created_ = std::chrono::steady_clock::now();
  LinkHome link_home_;  // set before the first link
  std::shared_ptr<Ticker> ticker_;
  std::atomic<int64_t> foreign_contexts_{0};
  std::unique_ptr<Clock> own_clock_;  // null when the transport owns time
  std::unique_ptr<Transport> transport_;
  Clock* clock_ = nullptr;
  std::unique_ptr<Rendezvous> rendezvous_;
  std::unique_ptr<Executor> pool_;
  std::unique_ptr<MetricsServer> metrics_server_;  // null unless metrics.listen is set; guarded by start_mutex_
  const std::shared_ptr<Trace> trace_;
  DistAutogradContainer container_;
  DistEngine engine_;

  mutable std::mutex peers_mutex_;  // guards the next eight
  std::unordered_map<WorkerId, Peer> peers_;
  std::unordered_map<std::string, WorkerId> ids_by_name_;
  std::unordered_set<std::shared_ptr<ServerLink>> server_links_;
  std::string address_;
  uint64_t links_made_ = 0;
  std::string metrics_address_;  // empty: the metrics are not served
  bool leaving_ = false;         // the links have been told goodbye; there will be no new ones
  std::condition_variable links_changed_;

  PendingConnections pending_connections_;

  std::mutex leases_mutex_;              // guards the next three; a leaf
  std::unordered_set<WorkerId> asking_;  // makers of contexts who are being asked
  int64_t next_leases_ = kNever;
  int64_t hurry_until_ = 0;

  mutable std::shared_mutex handlers_mutex_;  // guards the next two
  std::unordered_map<std::string, std::shared_ptr<Handler>> handlers_;
  std::unordered_map<std::string, std::shared_ptr<const Operator>> operators_;

  std::atomic<State> state_{State::kNew};
  std::mutex start_mutex_;     // held while the worker starts, and before it ends; before all others
  bool start_called_ = false;  // guarded by start_mutex_
  std::mutex end_mutex_;       // guards the next three
  std::condition_variable idle_;
  std::shared_ptr<Future> end_;
  bool ended_ = false;
  std::atomic<int64_t> busy_{0};      // calls, requests and passes that run
  std::atomic<int64_t> requests_{0};  // inbound, not answered
};

}  // namespace gradferry
