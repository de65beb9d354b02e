// See transport.h.
#include "plugins/sim/transport.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <nlohmann/json.hpp>
#include <utility>

#include "plugins/sim/connection.h"
#include "plugins/sim/errors.h"
#include "plugins/sim/link.h"

namespace gradferry::sim {
namespace {

// After all that is due at the same time.
constexpr uint64_t kLastPlace = UINT64_MAX;

}  // namespace

int32_t Transport::Create(const gf_transport_host* host, const char* options, size_t length, Transport** out,
                          gf_transport_error* error) {
  Options parsed;
  if (const int32_t code = ParseOptions(options, length, &parsed, error); code != GF_OK) return code;
  std::shared_ptr<Network> network;
  if (const int32_t code = Network::Join(parsed, &network, error); code != GF_OK) return code;
  *out = new Transport(host, parsed, std::move(network));
  return GF_OK;
}

Transport::Transport(const gf_transport_host* host, const Options& options, std::shared_ptr<Network> network)
    : host_(*host), options_(options), network_(std::move(network)) {
  std::lock_guard lock(network_->mutex());
  ordinal_ = network_->AddLocked(this);
  ScheduleDeathsLocked();
}

void Transport::Destroy(Transport* transport) {
  if (transport == nullptr) return;
  transport->Shutdown();
  {
    std::unique_lock lock(transport->network_->mutex());
    transport->finished_wake_.wait(lock, [&] { return transport->finished_; });
  }
  delete transport;
}

int32_t Transport::Listen(const std::string& address, char* buffer, size_t capacity, size_t* length,
                          gf_transport_error* error) {
  uint64_t number = 0;
  if (!address.empty()) {
    if (const int32_t code = network_->ParseAddress(address, &number, error); code != GF_OK) return code;
  }
  std::lock_guard lock(network_->mutex());
  if (shutting_down_) return Fail(error, GF_CLOSED, "the transport has been shut down");
  if (has_listened_) return Fail(error, GF_FAILED_PRECONDITION, "the transport listens already, or has listened");
  if (address.empty()) number = network_->FreeNumberLocked();
  const std::string actual = network_->AddressOf(number);
  if (actual.size() > capacity) return Fail(error, GF_OUT_OF_RANGE, "the buffer is too small for " + actual);
  if (!network_->ListenLocked(number, this)) {
    return Fail(error, GF_ALREADY_EXISTS, "address in use: " + actual);
  }
  has_listened_ = true;
  listening_at_ = number;
  std::memcpy(buffer, actual.data(), actual.size());
  *length = actual.size();
  return GF_OK;
}

int32_t Transport::Connect(const std::string& address, void* token, Connection** out, gf_transport_error* error) {
  uint64_t number = 0;
  if (const int32_t code = network_->ParseAddress(address, &number, error); code != GF_OK) return code;
  std::lock_guard lock(network_->mutex());
  if (shutting_down_) return Fail(error, GF_CLOSED, "the transport has been shut down");
  const LinkId id{ordinal_, dialled_++, /*to_listener=*/true, ListeningAtLocked(), number};
  const auto connection = std::make_shared<Connection>(this, token, id);
  AddLocked(connection);
  connection->DialLocked(number);
  *out = connection.get();
  return GF_OK;
}

// All of this is due at once, in this order: the ends of the connections, then the end of the transport.
void Transport::Shutdown() {
  std::lock_guard lock(network_->mutex());
  if (shutting_down_) return;
  shutting_down_ = true;
  if (listening_at_) network_->StopListeningLocked(*listening_at_);
  listening_at_.reset();
  for (const auto& [timer, state] : timers_) network_->loop().Cancel(state.key);
  timers_.clear();
  for (const EventLoop::Key& death : deaths_) network_->loop().Cancel(death);
  network_->loop().Hold(-holds_);
  holds_ = 0;
  for (const auto& connection : connections_) connection->CloseLocked();
  network_->loop().Schedule(network_->loop().Now(), kLastPlace, [this] { EndShutdown(); });
}

void Transport::EndShutdown() {
  {
    std::lock_guard lock(network_->mutex());
    network_->RemoveLocked(this);
  }
  host_.on_shutdown(host_.ctx);
  std::lock_guard lock(network_->mutex());
  finished_ = true;
  finished_wake_.notify_all();  // under the lock: who waits deletes this object
}

int32_t Transport::Stats(char* buffer, size_t capacity, size_t* length) {
  nlohmann::json stats;
  {
    std::lock_guard lock(network_->mutex());
    stats["network"] = network_->name();
    stats["time"] = options_.virtual_time ? "virtual" : "real";
    stats["seed"] = options_.seed;
    stats["now_ns"] = Now();
    stats["connections_open"] = connections_.size();
    stats["connections_total"] = counters_.connections;
    stats["frames_sent"] = counters_.frames_sent;
    stats["bytes_sent"] = counters_.bytes_sent;
    stats["frames_received"] = counters_.frames_received;
    stats["frames_lost"] = counters_.frames_lost;
    stats["faults"] = sender_.struck;
    stats["frames_damaged"] = counters_.frames_damaged;
    stats["frames_repeated"] = counters_.frames_repeated;
    stats["trace"] = network_->trace_locked();
    stats["timers"] = timers_.size();
    stats["holds"] = holds_;
  }
  const std::string text = stats.dump();
  *length = text.size();
  if (buffer == nullptr) return GF_OK;
  if (capacity < text.size() + 1) return GF_OUT_OF_RANGE;
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return GF_OK;
}

// ---- Time ----

void Transport::SetTimer(uint64_t timer, uint64_t at) {
  std::lock_guard lock(network_->mutex());
  if (shutting_down_) return;
  CancelTimerLocked(timer);
  const uint64_t generation = ++timers_set_;
  const EventLoop::Key key =
      network_->loop().Schedule(at, ordinal_, [this, timer, generation] { FireTimer(timer, generation); });
  timers_[timer] = {key, generation};
}

void Transport::CancelTimer(uint64_t timer) {
  std::lock_guard lock(network_->mutex());
  CancelTimerLocked(timer);
}

void Transport::CancelTimerLocked(uint64_t timer) {
  const auto it = timers_.find(timer);
  if (it == timers_.end()) return;
  network_->loop().Cancel(it->second.key);
  timers_.erase(it);
}

void Transport::FireTimer(uint64_t timer, uint64_t generation) {
  {
    std::lock_guard lock(network_->mutex());
    const auto it = timers_.find(timer);
    // Cancelled when the loop had taken it up already.
    if (it == timers_.end() || it->second.generation != generation) return;
    timers_.erase(it);
  }
  host_.on_timer(host_.ctx, timer);
}

void Transport::Hold(int32_t delta) {
  std::lock_guard lock(network_->mutex());
  if (shutting_down_) return;
  if (holds_ + delta < 0) return Warn("hold: more was let go than was held");
  holds_ += delta;
  network_->loop().Hold(delta);
}

// ---- Deaths ----

void Transport::ScheduleDeathsLocked() {
  const uint64_t began = network_->loop().Now() - network_->Age();
  for (const Death& death : options_.faults.deaths) {
    if (death.from_ns < network_->Age()) continue;
    deaths_.push_back(network_->loop().Schedule(began + death.from_ns, ordinal_, [this] { Die(); }));
  }
}

bool Transport::DeadLocked() const {
  const uint64_t age = network_->Age();
  for (const Death& death : options_.faults.deaths) {
    if (age >= death.from_ns && age < death.until_ns) return true;
  }
  return false;
}

void Transport::Die() {
  std::vector<std::shared_ptr<Connection>> connections;
  {
    std::lock_guard lock(network_->mutex());
    if (shutting_down_) return;
    network_->TraceLocked(ordinal_, 0, /*what=*/kTraceDeath);
    connections.assign(connections_.begin(), connections_.end());
  }
  std::sort(connections.begin(), connections.end(),
            [](const auto& a, const auto& b) { return a->stream() < b->stream(); });
  for (const auto& connection : connections) connection->Break("the transport of one side has died");
}

// ---- For connections and the network ----

void Transport::AddLocked(std::shared_ptr<Connection> connection) {
  ++counters_.connections;
  connections_.insert(std::move(connection));
}

void Transport::RemoveLocked(const std::shared_ptr<Connection>& connection) { connections_.erase(connection); }

void Transport::WarnOfStallLocked(const std::string& next_at, uint64_t real_ms) {
  if (holds_ == 0) return;
  Warn("virtual time has stood still for " + std::to_string(real_ms) + " ms of real time, held " +
       std::to_string(holds_) + " times by this transport; the next event is due at " + next_at);
}

void Transport::Warn(const std::string& text) {
  constexpr uint32_t kWarning = 2;
  host_.log(host_.ctx, kWarning, text.data(), text.size());
}

}  // namespace gradferry::sim
