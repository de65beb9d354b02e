// See network.h.
#include "plugins/sim/network.h"

#include <algorithm>
#include <cctype>
#include <string_view>
#include <utility>

#include "plugins/sim/errors.h"
#include "plugins/sim/link.h"
#include "plugins/sim/transport.h"

namespace gradferry::sim {
namespace {

constexpr std::string_view kScheme = "sim://";

// The networks of this process by name. Never destroyed: a host may use them until it exits.
struct Registry {
  std::mutex mutex;  // guards networks
  std::map<std::string, std::weak_ptr<Network>> networks;

  static Registry& Get() {
    static Registry* const registry = new Registry;
    return *registry;
  }
};

const char* TimeName(bool virtual_time) { return virtual_time ? "virtual" : "real"; }

}  // namespace

int32_t Network::Join(const Options& options, std::shared_ptr<Network>* out, gf_transport_error* error) {
  Registry& registry = Registry::Get();
  std::shared_ptr<Network> network;  // let go after the lock, for it may be the last reference
  std::lock_guard lock(registry.mutex);
  std::weak_ptr<Network>& known = registry.networks[options.network];
  network = known.lock();
  if (!network) {
    network = std::make_shared<Network>(options);
    known = network;
  }
  const std::string name = "the simulated network '" + options.network + "'";
  if (network->seed_ != options.seed) {
    return Fail(error, GF_FAILED_PRECONDITION,
                "seed is " + std::to_string(options.seed) + ", but " + name + " runs with seed " +
                    std::to_string(network->seed_));
  }
  if (network->loop_.virtual_time() != options.virtual_time) {
    return Fail(error, GF_FAILED_PRECONDITION,
                std::string("time is ") + TimeName(options.virtual_time) + ", but " + name + " runs in " +
                    TimeName(!options.virtual_time) + " time");
  }
  network->loop_.WarnOfStallAfter(options.stall_ms);
  *out = network;
  return GF_OK;
}

Network::Network(const Options& options)
    : name_(options.network),
      seed_(options.seed),
      loop_(options.virtual_time, [this](uint64_t next_at, uint64_t real_ms) { ReportStall(next_at, real_ms); }),
      began_(loop_.Now()) {}

Network::~Network() {
  Registry& registry = Registry::Get();
  std::lock_guard lock(registry.mutex);
  // Another network of this name may have begun meanwhile.
  const auto it = registry.networks.find(name_);
  if (it != registry.networks.end() && it->second.expired()) registry.networks.erase(it);
}

std::string Network::AddressOf(uint64_t number) const {
  return std::string(kScheme) + name_ + "/" + std::to_string(number);
}

int32_t Network::ParseAddress(const std::string& address, uint64_t* number, gf_transport_error* error) const {
  const std::string prefix = std::string(kScheme) + name_ + "/";
  const std::string digits = address.compare(0, prefix.size(), prefix) == 0 ? address.substr(prefix.size()) : "";
  const bool all_digits =
      std::all_of(digits.begin(), digits.end(), [](unsigned char c) { return std::isdigit(c) != 0; });
  if (digits.empty() || digits.size() > 18 || !all_digits) {
    return Fail(
        error, GF_INVALID_ARGUMENT,
        "'" + address + "' is no address of the simulated network '" + name_ + "': these are " + prefix + "<number>");
  }
  *number = std::stoull(digits);
  return GF_OK;
}

uint64_t Network::AddLocked(Transport* transport) {
  transports_.insert(transport);
  return transports_made_++;
}

void Network::RemoveLocked(Transport* transport) { transports_.erase(transport); }

Transport* Network::ListenerLocked(uint64_t number) const {
  const auto it = listeners_.find(number);
  return it == listeners_.end() ? nullptr : it->second;
}

bool Network::ListenLocked(uint64_t number, Transport* transport) {
  return listeners_.emplace(number, transport).second;
}

void Network::TraceLocked(uint64_t place, uint64_t index, uint64_t what) {
  // Real times differ from run to run.
  const uint64_t at = loop_.virtual_time() ? loop_.Now() : 0;
  // A sum: what happens at the same time has no order that counts.
  trace_ += Combine(Combine(Combine(at, place), index), what);
}

void Network::StopListeningLocked(uint64_t number) { listeners_.erase(number); }

uint64_t Network::FreeNumberLocked() {
  do {
    ++last_number_;
  } while (listeners_.count(last_number_) != 0);
  return last_number_;
}

void Network::ReportStall(uint64_t next_at, uint64_t real_ms) {
  const std::string when = std::to_string(next_at / 1000000) + " ms";
  std::lock_guard lock(mutex_);
  for (Transport* transport : transports_) transport->WarnOfStallLocked(when, real_ms);
}

}  // namespace gradferry::sim
