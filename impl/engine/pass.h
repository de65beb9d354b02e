// One backward pass, as one worker sees it: a state machine that marks, runs, and knows when it has ended.
//
// Marking. The initiator walks from its roots; every recv function reached names a send function of a peer, which is
// marked there, walked from, and so on. Running starts at once; LocalGraph holds back only nodes that an unmarked send
// function could still reach. When marking has ended everywhere, the workers that have such send functions are told
// (MarkFinished).
//
// Ends. Both waves detect their own end as Dijkstra and Scholten (1980) do: a worker that is not engaged is engaged by
// the first Mark (or PropagateGradients) that comes, answers all others at once, and that first one when everything
// which it has sent itself is answered and it has nothing left to do. So the initiator's own wave ends when all have.
//
// Failure. The first error wins, whatever it is: a node, a lost peer, the deadline, a cancel. The part here is dropped,
// whoever waits for an answer gets the error, whoever was sent something is told (AbortPass), and so on from there.
//
// Threads. Events come from any thread into an inbox; one task at a time on the worker's pool takes them, and runs nodes
// in between: everything below the inbox is touched by that task only. Marks are so never behind more than one node.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>

#include "impl/autograd/context.h"
#include "impl/base/live.h"
#include "impl/engine/local_graph.h"
#include "impl/engine/peers.h"

namespace gradferry {

using ReplyCallback = std::function<void(Ack)>;  // call_id is filled in by who sends it

// What a caller of backward wants.
struct PassRoots {
  edge_list edges;
  variable_list gradients;
};

class Pass;

// Who keeps the passes and hands them their events (the engine).
class PassOwner {
 public:
  virtual ~PassOwner() = default;
  // This worker's part is over and wants to be forgotten. After a good end that is refused (false) when an event has
  // come meanwhile; another Mark of the same pass makes a new object later. Called from the pass's task.
  virtual bool Retire(Pass& pass, const Status& status) = 0;
};

class Pass : public std::enable_shared_from_this<Pass> {
 public:
  // `ended` (may be null) gets the outcome, once, after Retire; for the initiator that of the whole pass.
  Pass(PassId id, bool retain_graph, std::shared_ptr<DistAutogradContext> context, EnginePeers* peers,
       PassOwner* owner, std::function<void(Status)> ended);
  ~Pass();

  const PassId& id() const { return id_; }
  int64_t context_id() const { return context_->id(); }

  // Whether an event waits to be handled. Any thread.
  bool HasEvents();
  // For the initiator, before anything else: the time, on the worker's clock, when the pass fails.
  void SetDeadline(int64_t deadline);

  // Events; any thread. `reply` is called exactly once.
  void Begin(PassRoots roots);
  // tensors: pairs of message id and output (MarkSendFunctions).
  void OnMark(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply);
  void OnMarkFinished();
  void OnGradients(WorkerId from, int64_t message_id, variable_list gradients, ReplyCallback reply);
  void Fail(Status status);

 private:
  struct MarkEvent {
    WorkerId from;
    std::vector<std::pair<int64_t, int64_t>> tensors;
    ReplyCallback reply;
  };
  struct GradientsEvent {
    WorkerId from;
    int64_t message_id;
    variable_list gradients;
    ReplyCallback reply;
  };
  struct AckEvent {
    bool mark;
    WorkerId from;
    Result<Ack> ack;
  };
  struct MarkFinishedEvent {};
  struct DeadlineEvent {};
  struct FailEvent {
    Status status;
  };
  using Event = std::variant<PassRoots, MarkEvent, GradientsEvent, AckEvent, MarkFinishedEvent, DeadlineEvent,
                             FailEvent>;

  // One of the two waves of the termination detection.
  struct Wave {
    bool root = false;     // ours is the root: the initiator
    ReplyCallback parent;  // owed an answer; null when not engaged
    int64_t deficit = 0;   // messages sent and not answered
    bool engaged() const { return root || parent != nullptr; }
  };
  struct SendState {
    NodeOf<SendRpcBackward> send;
    std::vector<bool> marked;  // per tensor of the message
    size_t marked_count = 0;
    bool received = false;
    bool live() const { return marked_count > 0; }
    bool all_live() const { return marked_count == marked.size(); }
  };

  void Enqueue(Event event);
  void RunTask();
  void RunSlice();
  // False when the inbox was empty.
  bool HandleEvents();
  void Handle(PassRoots& roots);
  void Handle(MarkEvent& event);
  void Handle(GradientsEvent& event);
  void Handle(AckEvent& event);
  void Handle(MarkFinishedEvent&);
  void Handle(DeadlineEvent&);
  void Handle(FailEvent& event);

  // Makes one tensor of a send function live.
  Status Mark(int64_t message_id, int64_t output, std::vector<LocalGraph::ReachedOutput>& reached);
  Status TakeGradients(SendState& state, variable_list gradients);
  void SendMarks(const std::vector<LocalGraph::ReachedOutput>& reached);
  Status OnRecvFunction(RecvRpcBackward& recv, variable_list gradients);
  void SendTo(WorkerId to, bool mark, Message message);
  void UpdatePotential();
  void SettleMarks();
  void SettleRun();
  void EndIfDone();
  bool HasUnmarked() const;
  void FailNow(const Status& status);
  void End(const Status& status);
  // The error with this worker's name on it.
  Status Here(const Status& status) const;
  std::string WaitsFor() const;

  const PassId id_;
  const bool retain_graph_;
  const bool initiator_;
  const std::shared_ptr<DistAutogradContext> context_;
  EnginePeers* const peers_;
  PassOwner* const owner_;
  std::function<void(Status)> ended_;

  std::mutex mutex_;  // guards inbox_ and scheduled_; a leaf lock
  std::deque<Event> inbox_;
  bool scheduled_ = false;

  // Touched by the task only.
  std::optional<LocalGraph> graph_;
  std::unordered_map<int64_t, SendState> sends_;  // by message id: those that were there when the pass came here
  size_t live_sends_ = 0;
  size_t received_ = 0;
  std::vector<int64_t> used_up_;  // without retain_graph: what has received its gradients and is still in the context
  size_t unmarked_tensors_ = 0;
  bool marking_finished_ = false;
  Wave marks_;
  Wave run_;
  std::set<WorkerId> waiting_;    // need a MarkFinished, as far as we were told
  std::map<WorkerId, int64_t> unanswered_;  // per peer, both waves
  std::set<WorkerId> contacted_;  // were sent something in this pass
  std::optional<Status> over_;
  TimerId deadline_timer_ = 0;  // set before the first event
  int64_t began_ = 0;
  std::optional<Live<LiveKind::kPasses>> live_{std::in_place};  // until it has ended
};

}  // namespace gradferry
