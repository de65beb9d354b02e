// See options.h.
#include "impl/rpc/options.h"

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "impl/rpc/secret.h"
#include "impl/transport/configured.h"
#include "impl/wire/messages.h"

namespace gradferry {
namespace {

Result<int64_t> IntegerFromEnvironment(const char* variable) {
  const char* text = std::getenv(variable);
  if (text == nullptr || *text == '\0') {
    return FailedPrecondition(StrCat("group.rendezvous is \"env\" but the variable ", variable, " is not set"));
  }
  char* end = nullptr;
  const long long value = std::strtoll(text, &end, 10);
  if (*end != '\0') return InvalidArgument(StrCat("the variable ", variable, " is \"", text, "\", not a number"));
  return value;
}

Status ReadTorchrunVariables(WorkerOptions& options) {
  if (options.rank < 0) {
    GF_ASSIGN_OR_RETURN(options.rank, IntegerFromEnvironment("RANK"));
  }
  if (options.world_size < 0) {
    GF_ASSIGN_OR_RETURN(options.world_size, IntegerFromEnvironment("WORLD_SIZE"));
  }
  GF_ASSIGN_OR_RETURN(const int64_t port, IntegerFromEnvironment("MASTER_PORT"));
  const char* address = std::getenv("MASTER_ADDR");
  if (address == nullptr || *address == '\0') {
    return FailedPrecondition("group.rendezvous is \"env\" but the variable MASTER_ADDR is not set");
  }
  options.rendezvous = StrCat("tcp://", address, ":", port);
  return OkStatus();
}

// Where time jumps when nothing happens (the simulated network), a question every few seconds would make it run for as
// long as a context is open.
bool TimeJumps(const TransportSpec& transport) {
  const auto options = nlohmann::json::parse(transport.options, nullptr, /*allow_exceptions=*/false);
  return options.is_object() && options.value("time", nlohmann::json()) == "virtual";
}

Result<LivenessOptions> ReadLiveness(const Config& config, const std::vector<TransportSpec>& transports) {
  LivenessOptions o;
  o.interval = config.GetDuration("liveness.interval");
  o.suspect = config.GetDuration("liveness.suspect");
  o.lost = config.GetDuration("liveness.lost");
  o.introduction = config.GetDuration("liveness.introduction");
  o.lease = config.GetDuration("liveness.lease");
  o.cleanup_budget = config.GetDuration("liveness.cleanup_budget");
  const bool jumps = std::any_of(transports.begin(), transports.end(), TimeJumps);
  if (!config.IsSet("liveness.lease") && jumps) o.lease = kNever;
  constexpr int64_t kLeast = 1000000;
  for (const char* key : {"liveness.interval", "liveness.suspect", "liveness.lost", "liveness.introduction",
                          "liveness.lease", "liveness.cleanup_budget"}) {
    if (config.GetDuration(key) < kLeast) return InvalidArgument(StrCat(key, " must be at least 1ms, or none"));
  }
  if (o.interval == kNever) return o;  // nothing is measured, nobody is suspected
  if (o.suspect <= o.interval) return InvalidArgument("liveness.suspect must be longer than liveness.interval");
  if (o.lost <= o.suspect && o.lost != kNever) {
    return InvalidArgument("liveness.lost must be longer than liveness.suspect");
  }
  return o;
}

Status ReadProtocol(const Config& config, WorkerOptions& o) {
  GF_ASSIGN_OR_RETURN(o.secret, ReadSecret(config));
  o.protocol_min = static_cast<uint16_t>(config.GetInt("protocol.min"));
  o.protocol_max = static_cast<uint16_t>(config.GetInt("protocol.max"));
  if (o.protocol_min > o.protocol_max) {
    return InvalidArgument(
        StrCat("protocol.min is ", o.protocol_min, ", which is above protocol.max, ", o.protocol_max));
  }
  if (o.secret.empty()) return OkStatus();
  if (o.protocol_max < 2) {
    return InvalidArgument("protocol.max is 1, and version 1 knows no proof of security.secret");
  }
  o.protocol_min = std::max<uint16_t>(o.protocol_min, 2);
  return OkStatus();
}

bool IsWorkerName(const std::string& name) {
  auto legal = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == ':' || c == '.' || c == '-'; };
  return !name.empty() && name.size() <= 127 && std::all_of(name.begin(), name.end(), legal);
}

}  // namespace

Status CheckWorker(const std::string& name, int64_t id) {
  if (!IsWorkerName(name)) {
    return InvalidArgument(StrCat("\"", name, "\" is no name for a worker: 1 to 127 of [A-Za-z0-9_:.-] are"));
  }
  if (id < 0 || id > kMaxWorkerId) {
    return InvalidArgument(StrCat("the id ", id, " of worker ", name, " is not within 0 to ", kMaxWorkerId));
  }
  return OkStatus();
}

Result<WorkerOptions> ReadWorkerOptions(const Config& config) {
  WorkerOptions o;
  o.config = config;
  o.name = config.GetString("worker.name");
  o.id = config.GetInt("worker.id");
  o.threads = static_cast<int>(config.GetInt("worker.threads"));
  o.listen = config.GetString("worker.listen");
  o.group = config.GetString("group.name");
  o.peers = config.GetPeers();
  o.rendezvous = config.GetString("group.rendezvous");
  o.rank = config.GetInt("group.rank");
  o.world_size = config.GetInt("group.world_size");
  o.join_timeout = config.GetDuration("group.join_timeout");
  o.transports = ConfiguredTransports(config);
  o.plugins = ConfiguredPlugins(config);
  o.call_timeout = config.GetDuration("call.timeout");
  o.backward_timeout = config.GetDuration("backward.timeout");
  if (config.IsSet("security.operators")) {
    o.operators = config.GetStrings("security.operators");
  } else {
    o.operators = {"default"};
  }
  const auto extra = config.GetStrings("security.operators_extra");
  o.operators.insert(o.operators.end(), extra.begin(), extra.end());
  o.limits.message_bytes = config.GetInt("limits.message_bytes");
  o.limits.header_bytes = config.GetInt("limits.header_bytes");
  o.limits.tensors = config.GetInt("limits.tensors");
  o.limits.values = config.GetInt("limits.values");
  o.limits.profile_events = config.GetInt("limits.profile_events");
  o.limits.dims = config.GetInt("limits.dims");
  o.limits.name_bytes = config.GetInt("limits.name_bytes");
  o.limits.nesting = config.GetInt("limits.nesting");
  o.limits.checksum_segments = config.GetString("transport.checksum") == "all";
  o.chunk_bytes = config.GetInt("transport.chunk_bytes");
  const auto count = [&config](const char* key) { return static_cast<uint64_t>(config.GetInt(key)); };
  o.window = {count("limits.calls"), count("limits.bytes")};
  o.window_per_peer = {count("limits.calls_per_peer"), count("limits.bytes_per_peer")};
  o.wait_when_full = config.GetString("call.when_full") == "wait";
  o.memory_per_peer = count("limits.memory_per_peer");
  o.requests = config.GetInt("limits.requests");
  o.pending_connections = config.GetInt("limits.pending_connections");
  GF_RETURN_IF_ERROR(ReadProtocol(config, o));
  o.log_file = config.GetString("logging.file");
  o.log_level = *ParseLogLevel(config.GetString("logging.level"));  // checked when it came in
  o.metrics_listen = config.GetString("metrics.listen");
  o.metrics_insecure = config.GetBool("metrics.insecure");
  GF_ASSIGN_OR_RETURN(o.liveness, ReadLiveness(config, o.transports));

  if (o.rendezvous == "env") GF_RETURN_IF_ERROR(ReadTorchrunVariables(o));
  if (o.id < 0) o.id = o.rank;
  if (o.name.empty() && o.rank >= 0) o.name = StrCat("worker", o.rank);
  for (const ConfigPeer& peer : o.peers) {
    if (o.id < 0 && peer.name == o.name) o.id = peer.id;
  }
  if (o.name.empty()) return InvalidArgument("worker.name is not set");
  if (o.id < 0) {
    return InvalidArgument(
        StrCat("worker.id is not set, and neither group.rank nor an entry of group.peers gives an id to ", o.name));
  }
  GF_RETURN_IF_ERROR(CheckWorker(o.name, o.id));
  if (!o.rendezvous.empty() && (o.world_size < 1 || o.rank < 0 || o.rank >= o.world_size)) {
    return InvalidArgument(StrCat("group.rendezvous needs group.world_size of at least 1 and group.rank below it, got ",
                                  o.world_size, " and ", o.rank));
  }
  return o;
}

}  // namespace gradferry
