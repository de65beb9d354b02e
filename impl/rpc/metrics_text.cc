// What a worker counts, as text (gf_worker_metrics, metrics.listen). docs/metrics.md lists the families.
#include <map>
#include <vector>

#include "impl/base/live.h"
#include "impl/base/prometheus.h"
#include "impl/base/release.h"
#include "impl/rpc/metrics.h"
#include "impl/rpc/server_link.h"
#include "impl/rpc/worker.h"
#include "impl/tensor/doors.h"

namespace gradferry {
namespace {

double ValueOf(const Count& count) { return static_cast<double>(count.load(std::memory_order_relaxed)); }

// A peer as it was when the text was asked for.
struct PeerRow {
  WorkerId peer = 0;
  std::string name;
  std::string state;
  std::string transport;
  std::shared_ptr<ClientLink> link;
  std::shared_ptr<MemoryAccount> account;
  const PeerMetrics* metrics = nullptr;  // null: nothing was ever heard of it
};

using Rows = std::vector<PeerRow>;
using KindsOfPeer = const KindMetrics PeerMetrics::*;

template <class Fn>
void ForEachKind(const Rows& rows, KindsOfPeer kinds, Fn fn) {
  for (const PeerRow& row : rows) {
    for (size_t k = 0; row.metrics != nullptr && k < kCallKinds; ++k) {
      const auto kind = static_cast<CallKind>(k);
      if (const OutcomeMetrics* outcomes = (row.metrics->*kinds).Find(kind)) fn(row, CallKindName(kind), *outcomes);
    }
  }
}

void WriteDurations(PrometheusText& text, const MetricLabels& labels, const DurationHistogram& durations) {
  text.Histogram(labels, DurationHistogram::BoundsInSeconds(), durations.Counts(), durations.SumInSeconds());
}

void WriteKinds(PrometheusText& text, const Rows& rows, KindsOfPeer kinds, const std::string& noun,
                const std::string& help, const std::string& duration_help) {
  text.Family(StrCat("gradferry_", noun, "s_total"), "counter", help);
  ForEachKind(rows, kinds, [&](const PeerRow& row, const char* kind, const OutcomeMetrics& outcomes) {
    outcomes.ForEach([&](Code code, uint64_t count) {
      text.Sample({{"peer", row.name}, {"kind", kind}, {"outcome", CodeName(code)}}, static_cast<double>(count));
    });
  });
  text.Family(StrCat("gradferry_", noun, "_duration_seconds"), "histogram", duration_help);
  ForEachKind(rows, kinds, [&](const PeerRow& row, const char* kind, const OutcomeMetrics& outcomes) {
    WriteDurations(text, {{"peer", row.name}, {"kind", kind}}, outcomes.durations());
  });
}

// One sample for each peer, or one for each direction of each.
void WritePeers(PrometheusText& text, const Rows& rows, const char* name, const char* help, Count PeerMetrics::*count) {
  text.Family(name, "counter", help);
  for (const PeerRow& row : rows) {
    if (row.metrics != nullptr) text.Sample({{"peer", row.name}}, ValueOf(row.metrics->*count));
  }
}

void WriteDirections(PrometheusText& text, const Rows& rows, const char* name, const char* help,
                     Count PeerMetrics::*sent, Count PeerMetrics::*received) {
  text.Family(name, "counter", help);
  for (const PeerRow& row : rows) {
    if (row.metrics == nullptr) continue;
    text.Sample({{"peer", row.name}, {"direction", "sent"}}, ValueOf(row.metrics->*sent));
    text.Sample({{"peer", row.name}, {"direction", "received"}}, ValueOf(row.metrics->*received));
  }
}

void WriteLive(PrometheusText& text) {
  static constexpr std::pair<LiveKind, const char*> kKinds[] = {
      {LiveKind::kHandles, "handle"},
      {LiveKind::kErrors, "error"},
      {LiveKind::kTensors, "tensor"},
      {LiveKind::kLists, "list"},
      {LiveKind::kOperators, "operator"},
      {LiveKind::kConfigs, "config"},
      {LiveKind::kQueues, "queue"},
      {LiveKind::kFutures, "future"},
      {LiveKind::kRequests, "request"},
      {LiveKind::kWorkers, "worker"},
      {LiveKind::kContexts, "context"},
      {LiveKind::kOptimizers, "optimizer"},
      {LiveKind::kAutogradContexts, "autograd_context"},
      {LiveKind::kSendFunctions, "send_function"},
      {LiveKind::kRecvFunctions, "recv_function"},
      {LiveKind::kPasses, "pass"},
      {LiveKind::kCalls, "call"},
      {LiveKind::kConnections, "connection"},
  };
  text.Family("gradferry_live_objects", "gauge", "Objects that live in this process, of all its workers.");
  for (const auto& [kind, name] : kKinds) {
    text.Sample({{"kind", name}}, static_cast<double>(LiveCount(kind).load(std::memory_order_relaxed)));
  }
}

void WritePool(PrometheusText& text, const Executor& pool) {
  const Executor::Load load = pool.load();
  text.Family("gradferry_pool_threads", "gauge", "Threads of the worker's pool by what they do.");
  text.Sample({{"state", "busy"}}, static_cast<double>(load.busy));
  text.Sample({{"state", "idle"}}, static_cast<double>(load.threads - std::min(load.threads, load.busy)));
  text.Sample({{"state", "blocked"}}, static_cast<double>(load.blocked));
  text.Family("gradferry_pool_tasks_waiting", "gauge", "Tasks that wait for a thread of the pool.");
  text.Sample({}, static_cast<double>(load.waiting));
  text.Family("gradferry_pool_wait_seconds", "histogram", "How long tasks waited for a thread of the pool.");
  WriteDurations(text, {}, pool.waits());
}

}  // namespace

std::string Worker::MetricsText() const {
  Rows rows;
  {
    std::lock_guard lock(peers_mutex_);
    std::map<WorkerId, const ServerLink*> accepted;
    for (const auto& link : server_links_) accepted[link->peer()] = link.get();
    std::map<WorkerId, const Peer*> sorted;
    for (const auto& [id, peer] : peers_) sorted[id] = &peer;
    for (const auto& [id, peer] : sorted) {
      const auto inbound = accepted.find(id);
      const bool inbound_suspect = inbound != accepted.end() && inbound->second->suspect();
      PeerRow row;
      row.name = peer->member.name;
      row.peer = id;
      row.account = peer->account;
      row.link = peer->link;
      row.transport = peer->link                  ? peer->link->transport()
                      : inbound != accepted.end() ? inbound->second->transport()
                                                  : "";
      row.state = (peer->link && peer->link->suspect()) || inbound_suspect ? "suspect"
                  : peer->lost                                             ? "lost"
                  : peer->link                                             ? "connected"
                                                                           : "idle";
      row.metrics = peer->metrics.get();
      rows.push_back(std::move(row));
    }
  }
  PrometheusText text("worker", name());

  text.Family("gradferry_build_info", "gauge", "The library; always 1.");
  text.Sample({{"version", kRelease}, {"torch", LoadedTorchVersion()}}, 1);
  text.Family("gradferry_worker_info", "gauge", "The worker; always 1.");
  const std::string id = std::to_string(id_);
  text.Sample({{"id", id}, {"group", options_.group}, {"state", StateName(state_)}}, 1);
  text.Family("gradferry_uptime_seconds", "gauge", "Time since the worker was made.");
  text.Sample({}, std::chrono::duration<double>(std::chrono::steady_clock::now() - created_).count());

  text.Family("gradferry_peer_info", "gauge", "A member of the group, this worker included; always 1.");
  for (const PeerRow& row : rows) {
    text.Sample({{"peer", row.name}, {"peer_id", std::to_string(row.peer)}, {"state", row.state}, {"transport", row.transport}}, 1);
  }
  WriteDirections(text, rows, "gradferry_frames_total", "Frames by peer and direction.", &PeerMetrics::frames_sent,
                  &PeerMetrics::frames_received);
  WriteDirections(text, rows, "gradferry_transferred_bytes_total", "Bytes of frames by peer and direction.",
                  &PeerMetrics::bytes_sent, &PeerMetrics::bytes_received);
  WritePeers(text, rows, "gradferry_connections_made_total", "Connections to the peer that came to stand.",
             &PeerMetrics::connected);
  WritePeers(text, rows, "gradferry_connections_accepted_total", "Connections of the peer that were accepted.",
             &PeerMetrics::accepted);
  text.Family("gradferry_reconnects_total", "counter", "Connections to the peer that were made anew.");
  for (const PeerRow& row : rows) {
    if (row.metrics) text.Sample({{"peer", row.name}}, std::max(ValueOf(row.metrics->connected) - 1, 0.0));
  }
  WritePeers(text, rows, "gradferry_connections_lost_total",
             "Connections with the peer, either way, that ended without a goodbye.", &PeerMetrics::lost);
  text.Family("gradferry_strangers_total", "counter",
              "Connections that were refused or ended before the other side had introduced itself.");
  text.Sample({}, ValueOf(metrics_.strangers));
  text.Family("gradferry_duplicate_frames_total", "counter", "Frames that came again and were dropped.");
  text.Sample({}, ValueOf(metrics_.frames_duplicate));
  text.Family("gradferry_cleanups_retried_total", "counter", "Clean-ups of contexts that were sent again.");
  text.Sample({}, ValueOf(metrics_.cleanups_retried));

  WriteKinds(text, rows, &PeerMetrics::calls, "call", "Calls and messages that were answered or given up, by peer.",
             "Time from a call to its answer.");
  WriteKinds(text, rows, &PeerMetrics::requests, "request", "Requests of peers that this worker has answered.",
             "Time from a request's arrival to its answer.");
  text.Family("gradferry_calls_in_flight", "gauge", "Calls and messages to the peer that wait for their answer.");
  for (const PeerRow& row : rows) {
    if (row.link) text.Sample({{"peer", row.name}}, static_cast<double>(row.link->pending()));
  }
  text.Family("gradferry_calls_waiting", "gauge", "Calls to the peer that wait for room in a window.");
  for (const PeerRow& row : rows) text.Sample({{"peer", row.name}}, static_cast<double>(windows_->waiting(row.peer)));
  text.Family("gradferry_peer_memory_bytes", "gauge", "What the peer makes this worker hold (limits.memory_per_peer).");
  for (const PeerRow& row : rows) {
    if (row.account) text.Sample({{"peer", row.name}}, static_cast<double>(row.account->used()));
  }
  text.Family("gradferry_requests_in_flight", "gauge", "Calls of peers that are not answered yet.");
  text.Sample({}, static_cast<double>(requests_.load()));

  text.Family("gradferry_passes_total", "counter", "Backward passes that this worker started, by outcome.");
  metrics_.passes.ForEach([&](Code code, uint64_t count) {
    text.Sample({{"outcome", CodeName(code)}}, static_cast<double>(count));
  });
  text.Family("gradferry_pass_duration_seconds", "histogram", "Time that these took, on all workers.");
  WriteDurations(text, {}, metrics_.passes.durations());
  text.Family("gradferry_passes_running", "gauge", "Passes that run on this worker, whoever started them.");
  text.Sample({}, static_cast<double>(engine_.active_passes()));
  text.Family("gradferry_contexts", "gauge", "Contexts that this worker takes part in.");
  text.Sample({}, static_cast<double>(container_.size()));
  if (state_ != State::kNew && pool_) WritePool(text, *pool_);
  WriteLive(text);
  return text.Take();
}

}  // namespace gradferry
