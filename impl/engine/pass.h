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
// Chosen inputs. The marks' way back says what leads to one (MarkNeeded): a third kind of message of the marking wave.
// Nothing runs before marking has ended, and then only that.
//
// Failure. The first error wins, whatever it is: a node, a lost peer, the deadline, a cancel. The part here is dropped,
// whoever waits for an answer gets the error; the owner tells whoever was sent something (AbortPass).
//
// Re-entrant passes. A pass that begins within a node of another one, in the same context, takes that one's turn: the
// two have parts of their own here, but fail together. The outer one does not end before it.
//
// Threads. Events come from any thread into an inbox; one task at a time takes them, and runs nodes in between:
// everything below the inbox is touched by that task only. Marks are so never behind more than one node. The task runs
// on the worker's pool; when the part here is small (small_parts.h), on the thread that has brought the event, for as
// long as it does nothing but quick nodes.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
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

// What is to be called once no lock is held any more.
using Later = std::vector<std::function<void()>>;

using ReplyCallback = std::function<void(Ack)>;  // call_id is filled in by who sends it

// What a caller of backward wants.
struct PassRoots {
  edge_list edges;
  variable_list gradients;
  std::vector<std::pair<torch::autograd::Edge, at::Tensor>> inputs;  // chosen ones; used when the pass is for such
};

class Pass;

// Who keeps the passes and hands them their events (the engine).
class PassOwner {
 public:
  virtual ~PassOwner() = default;
  // This worker's part is over and wants to be forgotten. After a good end that is refused (false) when an event has
  // come meanwhile; another Mark of the same pass makes a new object later. After a bad one the owner aborts the whole
  // turn, and may take `finish`, which tells the caller of backward, to call it later. Called from the pass's task.
  virtual bool Retire(Pass& pass, const Status& status, std::function<void()>& finish) = 0;
};

// What a pass is: the same on all workers.
struct PassKind {
  PassId id;
  PassId turn;  // the outermost pass around it; itself unless re-entrant
  bool retain_graph = false;
  bool chosen_inputs = false;
};

class Pass : public std::enable_shared_from_this<Pass> {
 public:
  // `ended` (null but for the initiator) gets the outcome of the whole pass, once, after Retire.
  Pass(const PassKind& kind, std::shared_ptr<DistAutogradContext> context, EnginePeers* peers, PassOwner* owner,
       std::function<void(Status)> ended);
  ~Pass();

  const PassId& id() const { return kind_.id; }
  const PassId& turn() const { return kind_.turn; }
  int64_t context_id() const { return context_->id(); }

  // Whom this part has sent something. Any thread.
  std::set<WorkerId> Contacted();
  // What gf_context_explain shows of this part. Any thread.
  nlohmann::json Explain();
  // What it waits for, as a few words. Any thread.
  std::string WaitsFor();

  // For what runs within a node of this pass, on its thread (current_pass.h).
  void AddGradient(const at::Tensor& tensor, at::Tensor gradient);
  void AddInner(const std::shared_ptr<Pass>& pass);
  // Any thread.
  void InnerEnded();

  // Whether an event waits to be handled. Any thread.
  bool HasEvents();
  int64_t deadline() const { return deadline_; }
  // For the initiator, before anything else: the time, on the worker's clock, when the pass fails.
  void SetDeadline(int64_t deadline);

  // Events; any thread. `reply` is called exactly once. With `later` the caller lends its thread to a small part.
  void Begin(PassRoots roots, Later& later);
  // tensors: pairs of message id and output (MarkSendFunctions).
  void OnMark(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply, Later& later);
  void OnNeeded(WorkerId from, std::vector<std::pair<int64_t, int64_t>> tensors, ReplyCallback reply, Later& later);
  void OnMarkFinished(Later& later);
  void OnPeerLost(WorkerId lost, Status status);
  void OnGradients(WorkerId from, int64_t message_id, variable_list gradients, ReplyCallback reply, Later& later);
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
  struct NeededEvent {
    WorkerId from;
    std::vector<std::pair<int64_t, int64_t>> tensors;
    ReplyCallback reply;
  };
  struct MarkFinishedEvent {};
  struct DeadlineEvent {};
  struct InnerEndedEvent {};
  struct PeerLostEvent {
    WorkerId lost;
    Status status;
  };
  struct FailEvent {
    Status status;
  };
  using Event = std::variant<PassRoots, MarkEvent, NeededEvent, GradientsEvent, AckEvent, MarkFinishedEvent,
                             DeadlineEvent, InnerEndedEvent, PeerLostEvent, FailEvent>;

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
    std::vector<bool> needed;  // chosen inputs: of the marked ones, those that lead to one, as the peer was told
    bool received = false;
    bool chosen = false;  // the pass is for chosen inputs
    // For which tensors gradients will come, once that is final.
    const std::vector<bool>& expected() const { return chosen ? needed : marked; }
    bool live() const { return std::find(expected().begin(), expected().end(), true) != expected().end(); }
    bool all_live() const { return marked_count == marked.size(); }
  };

  // later: null when the task is to run on the pool.
  void Enqueue(Event event, Later* later);
  enum class Where { kPool, kHere };
  void PostTask();
  void RunTask(Where where);
  void RunSlice(Where where);
  // False when the inbox was empty.
  bool HandleEvents();
  void Handle(PassRoots& roots);
  void Handle(MarkEvent& event);
  void Handle(NeededEvent& event);
  void Handle(GradientsEvent& event);
  void Handle(AckEvent& event);
  void Handle(MarkFinishedEvent&);
  void Handle(DeadlineEvent&);
  void Handle(InnerEndedEvent&);
  void Handle(PeerLostEvent& event);
  void Handle(FailEvent& event);

  // Makes one tensor of a send function live.
  Status Mark(int64_t message_id, int64_t output, std::vector<LocalGraph::ReachedOutput>& reached);
  Status TakeGradients(SendState& state, variable_list gradients);
  void SendMarks(const std::vector<LocalGraph::ReachedOutput>& reached);
  Status OnRecvFunction(RecvRpcBackward& recv, variable_list gradients);
  void SendTo(WorkerId to, bool mark, Message message);
  void SendNeeds();
  void FinishMarking();
  void SettleMarks();
  void SettleRun();
  void EndIfDone();
  // The first message of a wave engages this part in it; the others are answered at once.
  static void Engage(Wave& wave, ReplyCallback reply);
  void FailNow(const Status& status);
  void End(const Status& status);
  // The error with this worker's name on it.
  Status Here(const Status& status) const;

  enum class Stage { kWaitsForTurn, kMarking, kRunning };
  static const char* StageName(Stage stage);
  struct Progress;
  Progress Look();
  void SetStage(Stage stage);

  const PassKind kind_;
  const bool initiator_;
  const std::shared_ptr<DistAutogradContext> context_;
  EnginePeers* const peers_;
  PassOwner* const owner_;
  std::function<void(Status)> ended_;

  // What others may ask about, besides what the task uses for itself.
  struct Unanswered {
    int64_t count = 0;
    int64_t since = 0;
  };
  struct Awaited {
    WorkerId from = 0;
    int64_t since = 0;
  };
  struct Progress {
    Stage stage;
    std::map<WorkerId, Unanswered> unanswered;
    std::map<int64_t, Awaited> awaited;
  };

  std::mutex mutex_;  // guards the next seven; a leaf lock
  std::deque<Event> inbox_;
  bool scheduled_ = false;
  Stage stage_ = Stage::kWaitsForTurn;
  std::vector<std::weak_ptr<Pass>> inner_passes_;  // re-entrant ones that began here
  std::map<WorkerId, Unanswered> unanswered_;      // per peer, both waves
  std::map<int64_t, Awaited> awaited_;  // by message id: send functions that were marked and wait for gradients
  std::set<WorkerId> contacted_;        // were sent something in this pass

  std::atomic<uint64_t> nodes_run_{0};

  // How many more nodes the part here may have to be small; negative: it is not. Set before the first event.
  int64_t small_ = 256;

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
  std::set<WorkerId> waiting_;                                        // need a MarkFinished, as far as we were told
  std::map<std::pair<WorkerId, int64_t>, RecvRpcBackward*> reached_;  // chosen inputs: recv functions by their message
  std::vector<std::pair<int64_t, int64_t>> not_needed_;  // chosen inputs: marked tensors that lead to none so far
  std::optional<PassRoots> roots_;                       // chosen inputs: until marking has ended
  std::vector<GradientsEvent> early_;                    // chosen inputs: likewise
  int64_t inner_ = 0;                                    // re-entrant passes that began here and run
  std::optional<Status> over_;
  TimerId deadline_timer_ = 0;  // this and the next: set before the first event
  int64_t deadline_ = kNever;
  int64_t began_ = 0;
  std::optional<Live<LiveKind::kPasses>> live_{std::in_place};  // until it has ended
};

}  // namespace gradferry
