// See worker.h. This file: opening, membership, connections, contexts, the end. Calls are in calls.cc, those of peers in
// requests.cc.
#include "impl/rpc/worker.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>
#include <utility>

#include "impl/base/log.h"
#include "impl/rpc/server_link.h"

namespace gradferry {
namespace {

// How long a Close waits for the peers to hang up after the goodbye; they do so at once unless they hang.
constexpr std::chrono::milliseconds kGoodbyeLimit{1000};

uint64_t NewIncarnation() {
  std::random_device random;
  uint64_t value = 0;
  while (value == 0) value = (static_cast<uint64_t>(random()) << 32) | random();
  return value;
}

}  // namespace

// ---- Opening -----------------------------------------------------------------------------------------------------

Worker::Worker(WorkerOptions options)
    : options_(std::move(options)),
      id_(static_cast<WorkerId>(options_.id)),
      incarnation_(NewIncarnation()),
      allowed_(options_.operators),
      windows_(std::make_shared<Windows>(options_.window, options_.window_per_peer)),
      limits_(options_.limits),
      identity_{options_.group,
                options_.name,
                id_,
                incarnation_,
                options_.protocol_min,
                options_.protocol_max,
                options_.secret,
                {options_.requests, options_.memory_per_peer}},
      trace_(std::make_shared<Trace>(options_.name, id_)),
      container_(id_, incarnation_),
      engine_(this, &container_),
      pending_connections_(options_.pending_connections) {}

Worker::~Worker() = default;

Result<std::shared_ptr<Worker>> Worker::Create(const Config& config) {
  Result<WorkerOptions> options = ReadWorkerOptions(config);
  if (!options.ok()) return config.WithPlace(options.status());
  if (!options->log_file.empty()) GF_RETURN_IF_ERROR(AddLogFile(options->log_file, options->log_level));
  return std::shared_ptr<Worker>(new Worker(std::move(*options)));
}

Result<std::shared_ptr<Worker>> Worker::Open(const Config& config) {
  GF_ASSIGN_OR_RETURN(auto worker, Create(config));
  GF_RETURN_IF_ERROR(worker->Start());
  return worker;
}

Status Worker::Start() {
  Status status;
  {
    std::lock_guard lock(start_mutex_);
    if (std::exchange(start_called_, true)) {
      return FailedPrecondition(StrCat("worker ", name(), " was started already")).WithWorker(name());
    }
    status = state_ == State::kNew ? StartTransport() : CheckOpen();
  }
  if (status.ok()) return status;
  Abort();
  WaitUntilEnded();
  return status.WithWorker(name());
}

Status Worker::StartTransport() {
  Config config = options_.config;
  auto transport = OpenTransports(
      options_.transports, options_.plugins, this,
      [&config](const std::string& name, const std::string& schema) { return config.DeclareTransport(name, schema); });
  if (!transport.ok()) return config.WithPlace(transport.status());
  transport_ = std::move(*transport);
  limits_.header_bytes = std::min(limits_.header_bytes, transport_->max_header() - kSealBytes);
  clock_ = transport_->clock();
  if (clock_ == nullptr) {
    own_clock_ = NewSteadyClock();
    clock_ = own_clock_.get();
  }
  if (options_.liveness.interval != kNever || options_.liveness.lease != kNever) {
    const int64_t longest = std::min({options_.liveness.interval, options_.liveness.lease, int64_t{1000000000}});
    ticker_ =
        std::make_shared<Ticker>(clock_, longest / 10, longest, [weak = weak_from_this()](int64_t now, int64_t grace) {
          auto self = weak.lock();
          return self ? self->LookAfterPeers(now, grace) : kNever;
        });
  }
  container_.OnForeign([this](int delta) { OnForeignContexts(delta); });
  link_home_ = {&limits_,
                &metrics_,
                &options_.liveness,
                clock_,
                options_.liveness.interval == kNever ? nullptr : ticker_,
                &identity_,
                options_.chunk_bytes};
  pool_ = std::make_unique<Executor>(options_.threads, clock_);
  State fresh = State::kNew;
  if (!state_.compare_exchange_strong(fresh, State::kOpen)) return CheckOpen();  // closed meanwhile
  GF_ASSIGN_OR_RETURN(std::string address, transport_->Listen(options_.listen));
  {
    std::lock_guard lock(peers_mutex_);
    address_ = address;
  }
  Log(LogLevel::kInfo, "worker ", name(), " (", id_, ") of group ", options_.group, " listens at ", address);
  if (!options_.metrics_listen.empty()) {
    GF_ASSIGN_OR_RETURN(metrics_server_, MetricsServer::Open(options_.metrics_listen, options_.metrics_insecure,
                                                             [this] { return MetricsText(); }));
    {
      std::lock_guard lock(peers_mutex_);
      metrics_address_ = metrics_server_->address();
    }
    Log(LogLevel::kInfo, "worker ", name(), " shows its metrics at http://", metrics_server_->address(), "/metrics");
  }
  return JoinGroup();
}

Status Worker::JoinGroup() {
  std::vector<ConfigPeer> members = options_.peers;
  const ConfigPeer self{id_, name(), address()};
  if (!options_.rendezvous.empty()) {
    GF_ASSIGN_OR_RETURN(
        rendezvous_, Rendezvous::Open(options_.rendezvous, options_.rank, options_.world_size, options_.join_timeout));
    // With the transport's name, since others may prefer another one.
    const ConfigPeer entry{id_, name(), WithTransportName(options_.transports[0].name, self.address)};
    GF_ASSIGN_OR_RETURN(members, rendezvous_->Join(options_.group, entry));
  }
  for (const ConfigPeer& member : members) {
    if (member.id != id_) GF_RETURN_IF_ERROR(AddPeer(member));
    if (member.id == id_ && member.name != name()) {
      return InvalidArgument(StrCat("id ", id_, " is ", member.name, " in the group's list, not ", name()));
    }
  }
  return AddPeer(self);
}

std::string Worker::address() const {
  std::lock_guard lock(peers_mutex_);
  return address_;
}

// ---- Membership and connections ----------------------------------------------------------------------------------

Status Worker::AddPeer(const ConfigPeer& peer) {
  GF_RETURN_IF_ERROR(CheckWorker(peer.name, peer.id));
  std::lock_guard lock(peers_mutex_);
  GF_RETURN_IF_ERROR(CheckMember(peer));
  Peer& entry = peers_[peer.id];
  const std::string address = peer.address.empty() ? entry.member.address : peer.address;
  entry.member = peer;
  entry.member.address = address;
  if (!entry.account) entry.account = std::make_shared<MemoryAccount>(options_.memory_per_peer);
  ids_by_name_[peer.name] = peer.id;
  return OkStatus();
}

Status Worker::CheckMember(const ConfigPeer& peer) const {
  const auto named = ids_by_name_.find(peer.name);
  if (named != ids_by_name_.end() && named->second != peer.id) {
    return Status(Code::kAlreadyExists, StrCat("the name ", peer.name, " belongs to worker ", named->second));
  }
  const auto numbered = peers_.find(peer.id);
  if (numbered != peers_.end() && !numbered->second.member.name.empty() && numbered->second.member.name != peer.name) {
    return Status(Code::kAlreadyExists,
                  StrCat("the id ", peer.id, " belongs to worker ", numbered->second.member.name));
  }
  return OkStatus();
}

std::string Worker::NameOf(WorkerId worker) const {
  if (worker == id_) return name();
  std::lock_guard lock(peers_mutex_);
  auto it = peers_.find(worker);
  return it == peers_.end() ? StrCat("worker ", worker) : it->second.member.name;
}

Result<WorkerId> Worker::FindPeer(const std::string& peer_name, WorkerId id) const {
  std::lock_guard lock(peers_mutex_);
  if (!peer_name.empty()) {
    auto it = ids_by_name_.find(peer_name);
    if (it != ids_by_name_.end()) return it->second;
    return NotFound(StrCat("worker ", name(), " knows no worker ", peer_name));
  }
  if (peers_.count(id) > 0) return id;
  return NotFound(StrCat("worker ", name(), " knows no worker with id ", id));
}

Result<std::shared_ptr<ClientLink>> Worker::LinkTo(WorkerId to) {
  std::lock_guard lock(peers_mutex_);
  auto it = peers_.find(to);
  if (it == peers_.end()) return NotFound(StrCat("worker ", name(), " knows no worker with id ", to));
  Peer& peer = it->second;
  if (peer.link) return peer.link;
  if (leaving_ || state_ == State::kClosed) return Status(Code::kClosed, StrCat("worker ", name(), " is closed"));
  if (peer.member.address.empty()) {
    return Status(Code::kUnavailable, StrCat("the address of worker ", peer.member.name, " is not known"));
  }
  ClientLink::Owner owner;
  owner.peer_name = peer.member.name;
  if (!peer.metrics) peer.metrics = std::make_unique<PeerMetrics>();
  owner.metrics = peer.metrics.get();
  // So that no two calls of this worker have one number, for traces.
  owner.first_call_id = (++links_made_ << 40) + 1;
  owner.account = peer.account;
  owner.introduced = [self = shared_from_this(), to](const HelloReply& hello) { return self->OnIntroduced(to, hello); };
  owner.closed = [self = shared_from_this(), to](ClientLink* link, const Status& status) {
    self->OnLinkClosed(to, link, status);
  };
  auto link =
      std::make_shared<ClientLink>(&link_home_, std::move(owner), DialHandshake(&identity_, to, peer.member.name));
  link->ExpectIntroduction();
  auto connection = transport_->Connect(peer.member.address, link);
  if (!connection.ok()) {
    link->CancelIntroduction();
    const Status& why = connection.status();
    return Status(why.code(),
                  StrCat("worker ", name(), " cannot connect to worker ", peer.member.name, ": ", why.message()))
        .WithDomain(why.error()->domain)
        .WithPeer(peer.member.name);
  }
  if (Status status = link->Begin(*connection); !status.ok()) {
    (*connection)->Close();
    return status.WithPeer(peer.member.name);
  }
  Log(LogLevel::kInfo, "worker ", name(), " connects to worker ", peer.member.name, " by ", link->transport(), " at ",
      peer.member.address);
  peer.link = link;
  return link;
}

std::shared_ptr<MemoryAccount> Worker::AccountOf(WorkerId peer) {
  std::lock_guard lock(peers_mutex_);
  return peers_[peer].account;
}

void Worker::ForgetLink(WorkerId to, const std::shared_ptr<ClientLink>& link) {
  std::lock_guard lock(peers_mutex_);
  Peer& peer = peers_[to];
  if (peer.link == link) peer.link = nullptr;
}

namespace {

// Two links that ended before they were used are bad luck, more are not.
constexpr int kSendAttempts = 3;

bool HasEnded(ClientLink& link, const Status& status) {
  return link.ended() || status.code() == Code::kPeerLost || status.code() == Code::kClosed;
}

}  // namespace

Result<Worker::Sent> Worker::SendRequest(WorkerId to, OutRequest request, AnswerCallback done) {
  for (int attempt = 1;; ++attempt) {
    GF_ASSIGN_OR_RETURN(auto link, LinkTo(to));
    auto call_id = link->Request(request, done);
    if (call_id.ok()) return Sent{std::move(link), *call_id};
    if (attempt == kSendAttempts || !HasEnded(*link, call_id.status())) return call_id.status();
    ForgetLink(to, link);
  }
}

Status Worker::SendNotice(WorkerId to, const Message& message) {
  for (int attempt = 1;; ++attempt) {
    GF_ASSIGN_OR_RETURN(auto link, LinkTo(to));
    const Status status = link->Notify(message);
    if (status.ok() || attempt == kSendAttempts || !HasEnded(*link, status)) return status;
    ForgetLink(to, link);
  }
}

Status Worker::OnIntroduced(WorkerId peer, const HelloReply& hello) {
  {
    std::lock_guard lock(peers_mutex_);
    Peer& entry = peers_[peer];
    if (hello.id != peer || hello.name != entry.member.name) {
      return FailedPrecondition(StrCat("at ", entry.member.address, " there is worker ", hello.name, " (", hello.id,
                                       "), not ", entry.member.name, " (", peer, ")"));
    }
  }
  OnHello(peer, hello.incarnation);
  Add(MetricsOf(peer)->connected);
  windows_->Announced(peer, {hello.window_calls, hello.window_bytes});
  return OkStatus();
}

PeerMetrics* Worker::MetricsOf(WorkerId peer) {
  std::lock_guard lock(peers_mutex_);
  auto& metrics = peers_[peer].metrics;
  if (!metrics) metrics = std::make_unique<PeerMetrics>();
  return metrics.get();
}

void Worker::OnHello(WorkerId peer, uint64_t incarnation) {
  bool reborn = false;
  {
    std::lock_guard lock(peers_mutex_);
    Peer& entry = peers_[peer];
    reborn = entry.incarnation != 0 && entry.incarnation != incarnation;
    entry.incarnation = incarnation;
    entry.unreachable_since = entry.unreachable_last = 0;
    entry.lost = false;
  }
  if (reborn) OnReborn(peer);
}

void Worker::OnLinkClosed(WorkerId peer, ClientLink* link, const Status& status) {
  std::shared_ptr<ClientLink> dropped;
  {
    std::lock_guard lock(peers_mutex_);
    Peer& entry = peers_[peer];
    if (entry.link.get() == link) dropped = std::move(entry.link);
    if (!link->introduced()) {
      const int64_t now = clock_->Now();
      if (now - entry.unreachable_last > 2 * UnreachableLimit()) entry.unreachable_since = now;
      entry.unreachable_last = now;
    }
  }
  links_changed_.notify_all();
  if (link->introduced() && !link->goodbye()) {
    engine_.OnGiverLost(peer, status);
    OnConnectionLost(peer, *link, status);
  }
  if (state_ == State::kOpen) Log(LogLevel::kInfo, "the connection to ", status.ToString());
}

std::shared_ptr<ConnectionEvents> Worker::OnAccept(std::shared_ptr<Connection> connection) {
  if (state_ == State::kClosed) return nullptr;
  auto link = std::make_shared<ServerLink>(&link_home_, shared_from_this());
  link->ExpectIntroduction();
  link->Begin(std::move(connection));
  if (const auto oldest = pending_connections_.Add(link)) {
    oldest->CloseBecause(Status(Code::kResourceExhausted,
                                StrCat("limits.pending_connections: more than ", options_.pending_connections,
                                       " connections have not introduced themselves, and this is the oldest")));
  }
  return link;
}

void Worker::OnAddress(std::string address) {
  Log(LogLevel::kWarning, "worker ", name(), " listens at ", address, " now");
  std::lock_guard lock(peers_mutex_);
  address_ = address;
  peers_[id_].member.address = std::move(address);
}

Status Worker::MayEnter(const Hello& hello) const {
  const ConfigPeer peer{hello.id, hello.name, ""};
  if (state_ == State::kClosed)
    return Status(Code::kClosed, StrCat("worker ", name(), " is closed")).WithWorker(name());
  GF_RETURN_IF_ERROR(CheckWorker(peer.name, peer.id).WithWorker(name()));
  std::lock_guard lock(peers_mutex_);
  return CheckMember(peer).WithWorker(name());
}

Status Worker::Enter(const Hello& hello, std::shared_ptr<ServerLink> link) {
  GF_RETURN_IF_ERROR(AddPeer({hello.id, hello.name, ""}).WithWorker(name()));
  OnHello(hello.id, hello.incarnation);
  pending_connections_.Remove(link.get());
  std::lock_guard lock(peers_mutex_);
  if (leaving_) return Status(Code::kClosed, StrCat("worker ", name(), " is closed")).WithWorker(name());
  server_links_.insert(std::move(link));
  return OkStatus();
}

void Worker::OnServerLinkClosed(ServerLink* link, WorkerId peer, bool goodbye, const Status& status) {
  bool replaced = false;  // the peer has connected anew since; it lives and knows what it lost with this one
  {
    std::lock_guard lock(peers_mutex_);
    server_links_.erase(std::static_pointer_cast<ServerLink>(link->shared_from_this()));
    for (const auto& other : server_links_) replaced = replaced || other->peer() == peer;
  }
  pending_connections_.Remove(link);
  links_changed_.notify_all();
  if (peer < 0 || goodbye) return;
  OnConnectionLost(peer, *link, status);
  if (replaced || link->lost()) return;  // with a lost one that was done
  engine_.OnPeerLost(peer, Status(Code::kPeerLost, StrCat("worker ", NameOf(peer), " was lost: ",
                                                          status.ok() ? "the connection was closed" : status.message()))
                               .WithPeer(NameOf(peer)));
}

void Worker::OnGoodbye(WorkerId peer) {
  if (peer == id_) return;
  const Status gone(Code::kPeerLost, StrCat("worker ", NameOf(peer), " left the group"));
  {
    std::lock_guard lock(peers_mutex_);
    peers_[peer].lost = true;
  }
  engine_.OnPeerLost(peer, gone.WithPeer(NameOf(peer)));
  for (const auto& context : container_.All()) {
    if (WorkerOfAutogradId(context->id()) != peer) continue;
    container_.Remove(context->id());
    engine_.AbandonContext(context->id(), gone);
    context->Release();
  }
}

// ---- Contexts ----------------------------------------------------------------------------------------------------

Result<std::shared_ptr<DistAutogradContext>> Worker::NewContext() {
  GF_RETURN_IF_ERROR(CheckOpen());
  return container_.NewContext();
}

Status Worker::ReleaseContext(int64_t id) {
  GF_RETURN_IF_ERROR(container_.Find(id).status());
  OnCleanup(id_, id);
  return OkStatus();
}

std::string Worker::DescribeContext(const DistAutogradContext& context) const {
  nlohmann::json description = context.Describe();
  description["passes"] = engine_.Describe(context.id());
  return description.dump();
}

nlohmann::json Worker::ExplainContext(const DistAutogradContext& context) const {
  nlohmann::json explained = engine_.Explain(context.id());
  explained["context"] = context.id();
  explained["worker"] = name();
  return explained;
}

Result<std::shared_ptr<Future>> Worker::StartBackward(std::shared_ptr<DistAutogradContext> context,
                                                      BackwardRequest request, int64_t timeout) {
  GF_RETURN_IF_ERROR(CheckOpen());
  request.deadline = DeadlineAfter(clock_->Now(), timeout == 0 ? options_.backward_timeout : timeout);
  auto future = std::make_shared<Future>();
  const auto hold = HoldClock();
  const int64_t began = clock_->Now();
  auto span = TraceSpan::Begin(trace_, "pass", "backward", "");
  BusyAdd(+1);
  auto pass = engine_.Backward(std::move(context), std::move(request),
                               [self = shared_from_this(), future, span, began](Status status) {
                                 self->metrics_.passes.Record(status.code(), self->clock_->Now() - began);
                                 if (span) span->End(CodeName(status.code()));
                                 self->BusyAdd(-1);
                                 if (status.ok()) {
                                   future->Complete(ValueList());
                                 } else {
                                   future->Complete(std::move(status));
                                 }
                               });
  if (!pass.ok()) {
    BusyAdd(-1);
    return pass.status().WithWorker(name());
  }
  future->SetCancel([weak = std::weak_ptr<Pass>(*pass)] {
    if (auto running = weak.lock()) running->Fail(Status(Code::kCancelled, "the pass was cancelled by its caller"));
  });
  return future;
}

// ---- Information -------------------------------------------------------------------------------------------------

const char* Worker::StateName(State state) {
  switch (state) {
    case State::kNew:
      return "new";
    case State::kOpen:
      return "open";
    case State::kClosing:
      return "closing";
    case State::kClosed:
      return "closed";
  }
  return "";
}

namespace {

// What the transport says of the other side, as gf_worker_info shows it.
nlohmann::json DescribePeer(const PeerInfo& info) {
  nlohmann::json facts = {{"address", info.address}, {"encrypted", info.encrypted}, {"path", info.path}};
  if (info.identities) facts["identities"] = *info.identities;
  return facts;
}

}  // namespace

std::string Worker::InfoJson() const {
  using nlohmann::json;
  json peers = json::array();
  std::vector<std::shared_ptr<ClientLink>> links;
  {
    std::lock_guard lock(peers_mutex_);
    std::set<WorkerId> suspects;
    std::map<WorkerId, std::shared_ptr<ServerLink>> accepted;
    for (const auto& link : server_links_) {
      if (link->suspect()) suspects.insert(link->peer());
      accepted[link->peer()] = link;
    }
    for (const auto& [peer_id, peer] : peers_) {
      if (peer.link && peer.link->suspect()) suspects.insert(peer_id);
      if (peer.link) links.push_back(peer.link);
      const auto from = accepted.find(peer_id);
      const Link* link = peer.link.get();
      if (link == nullptr && from != accepted.end()) link = from->second.get();
      peers.push_back({{"id", peer_id},
                       {"name", peer.member.name},
                       {"address", peer.member.address},
                       {"waiting_calls", windows_->waiting(peer_id)},
                       {"memory", peer.account ? peer.account->used() : 0},
                       {"transport", link != nullptr ? link->transport() : ""},
                       {"connection", link != nullptr ? DescribePeer(link->peer_info()) : json()},
                       {"state", suspects.count(peer_id) > 0 ? "suspect"
                                 : peer.lost                 ? "lost"
                                 : peer.link                 ? "connected"
                                                             : "idle"}});
    }
  }
  std::string transports;
  for (const TransportSpec& spec : options_.transports) transports += StrCat(transports.empty() ? "" : " ", spec.name);
  size_t calls = 0;
  for (const auto& link : links) calls += link->pending();  // not under the lock: links' come before it
  const State state = state_;
  json info = {{"name", name()},
               {"id", id_},
               {"group", options_.group},
               {"incarnation", incarnation_},
               {"address", address()},
               {"transport", std::move(transports)},
               {"state", StateName(state)},
               {"peers", std::move(peers)},
               {"contexts", container_.size()},
               {"passes", engine_.active_passes()},
               {"calls", calls},
               {"waiting_calls", windows_->waiting()},
               {"requests", requests_.load()},
               {"metrics", metrics_.Describe()},
               {"max_context_id", container_.max_id()}};
  {
    std::lock_guard lock(peers_mutex_);
    info["metrics_address"] = metrics_address_;
  }
  if (transport_)
    info["transport_counters"] = json::parse(transport_->StatsJson(), nullptr, /*allow_exceptions=*/false);
  return info.dump();
}

// ---- The end -----------------------------------------------------------------------------------------------------

Status Worker::CheckOpen() const {
  const State state = state_;
  if (state == State::kOpen) return OkStatus();
  if (state == State::kNew) return FailedPrecondition(StrCat("worker ", name(), " has not been started"));
  return Status(Code::kClosed, StrCat("worker ", name(), " is closed"));
}

void Worker::BusyAdd(int64_t delta) {
  if (busy_.fetch_add(delta) + delta != 0) return;
  std::lock_guard lock(end_mutex_);  // so that Drain does not miss it between its look and its wait
  idle_.notify_all();
}

std::shared_ptr<void> Worker::KeepBusy() {
  BusyAdd(+1);
  return std::shared_ptr<void>(nullptr, [self = shared_from_this()](void*) { self->BusyAdd(-1); });
}

std::shared_ptr<void> Worker::HoldClock() {
  clock_->Hold(+1);
  return std::shared_ptr<void>(nullptr, [clock = clock_](void*) { clock->Hold(-1); });
}

std::shared_ptr<Future> Worker::Close(int64_t timeout) {
  std::shared_ptr<Future> end;
  {
    std::lock_guard lock(end_mutex_);
    if (end_) return end_;
    end = end_ = std::make_shared<Future>();
    state_ = State::kClosing;
  }
  std::thread([self = shared_from_this(), end, timeout]() mutable {
    const std::string name = self->name();
    const Status closed = Status(Code::kClosed, StrCat("worker ", name, " was closed")).WithWorker(name);
    bool cut_short = false;
    self->Drain(timeout, closed, &cut_short);
    self->End(closed);
    self.reset();  // who has waited for the end may unload or end the process: nothing of the worker goes on here
    if (cut_short) {
      end->Complete(Status(Code::kDeadlineExceeded,
                           StrCat("worker ", name, " was closed while calls, requests or passes still ran"))
                        .WithWorker(name));
    } else {
      end->Complete(ValueList());
    }
  }).detach();
  return end;
}

void Worker::Abort() {
  const Status aborted = Status(Code::kClosed, StrCat("worker ", name(), " was aborted")).WithWorker(name());
  std::shared_ptr<Future> end;
  {
    std::lock_guard lock(end_mutex_);
    state_ = State::kClosed;
    idle_.notify_all();  // a Close that waits goes on at once
    if (end_) return;
    end = end_ = std::make_shared<Future>();
  }
  std::thread([self = shared_from_this(), end, aborted]() mutable {
    self->End(aborted);
    self.reset();
    end->Complete(ValueList());
  }).detach();
}

void Worker::WaitUntilEnded() {
  std::unique_lock lock(end_mutex_);
  idle_.wait(lock, [this] { return ended_; });
}

void Worker::Drain(int64_t timeout, const Status& closed, bool* cut_short) {
  if (timeout == 0) timeout = options_.call_timeout;
  const auto until = std::chrono::steady_clock::now() +
                     std::chrono::nanoseconds(std::min<int64_t>(timeout, int64_t{365} * 24 * 3600 * 1000000000));
  {
    std::unique_lock lock(end_mutex_);
    idle_.wait_until(lock, until, [this] { return busy_ == 0 || state_ == State::kClosed; });
    *cut_short = busy_ != 0;
  }
  if (state_ == State::kClosed) return;  // aborted meanwhile
  for (const auto& context : container_.All()) {
    if (WorkerOfAutogradId(context->id()) == id_) OnCleanup(id_, context->id());
  }
  std::vector<std::shared_ptr<ClientLink>> clients;
  std::vector<std::shared_ptr<ServerLink>> servers;
  {
    std::lock_guard lock(peers_mutex_);
    for (auto& [peer_id, peer] : peers_) {
      if (peer.link) clients.push_back(peer.link);
    }
    servers.assign(server_links_.begin(), server_links_.end());
    leaving_ = true;
  }
  if (*cut_short) {
    // Before the peers hang up, which would look as if they were lost.
    engine_.FailAll(closed);
    windows_->Close();
    for (auto& link : clients) link->FailPending(closed);
  }
  for (auto& link : clients) link->SayGoodbye(StrCat("worker ", name(), " closes"));
  for (auto& link : servers) link->SayGoodbye(StrCat("worker ", name(), " closes"));
  std::unique_lock lock(peers_mutex_);
  links_changed_.wait_for(lock, kGoodbyeLimit, [this] {
    for (const auto& [peer_id, peer] : peers_) {
      if (peer.link) return false;
    }
    return server_links_.empty() || state_ == State::kClosed;
  });
}

void Worker::End(Status pending) {
  state_ = State::kClosed;
  std::unique_lock started(start_mutex_);  // a Start that runs comes to its end first
  std::vector<std::shared_ptr<ClientLink>> links;
  {
    std::lock_guard lock(peers_mutex_);
    for (auto& [peer_id, peer] : peers_) {
      if (peer.link) links.push_back(peer.link);
    }
  }
  engine_.FailAll(pending);
  windows_->Close();
  for (auto& link : links) link->Fail(pending);
  links.clear();
  metrics_server_.reset();
  if (transport_) transport_->Shutdown();
  decltype(handlers_) handlers;
  {
    std::unique_lock lock(handlers_mutex_);
    handlers.swap(handlers_);
    operators_.clear();
  }
  if (ticker_) ticker_->Stop();
  if (pool_) pool_->Stop();
  handlers.clear();
  for (const auto& context : container_.All()) {
    container_.Remove(context->id());
    engine_.AbandonContext(context->id(), pending);
    context->Release();
  }
  if (own_clock_) own_clock_->Stop();
  std::lock_guard lock(end_mutex_);
  ended_ = true;
  idle_.notify_all();
}

}  // namespace gradferry
