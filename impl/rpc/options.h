// What a worker needs of its configuration, read and checked once.
#pragma once

#include <string>
#include <vector>

#include "impl/base/config.h"
#include "impl/base/log.h"
#include "impl/base/status.h"
#include "impl/rpc/liveness.h"
#include "impl/rpc/windows.h"
#include "impl/transport/transport_set.h"
#include "impl/wire/frame.h"

namespace gradferry {

struct WorkerOptions {
  std::string name;
  int64_t id = -1;
  int threads = 1;
  std::string listen;

  std::string group;
  std::vector<ConfigPeer> peers;
  std::string rendezvous;
  int64_t rank = -1;
  int64_t world_size = -1;
  int64_t join_timeout = 0;  // ns

  std::vector<TransportSpec> transports;  // in the order of preference; not empty
  PluginSearch plugins;
  Config config;  // what all of this was read from: for the options of transports, which only their plugins can judge

  int64_t call_timeout = 0;      // ns; kNever: none
  int64_t backward_timeout = 0;  // ns; kNever: none
  std::vector<std::string> operators;
  WireLimits limits;
  uint64_t chunk_bytes = 0;  // 0: the transport's
  WindowSize window;         // of all peers together
  WindowSize window_per_peer;
  bool wait_when_full = true;
  uint64_t memory_per_peer = 0;
  uint64_t requests = 0;
  uint64_t pending_connections = 0;
  std::string secret;  // empty: none
  uint16_t protocol_min = 0;
  uint16_t protocol_max = 0;
  LivenessOptions liveness;
  std::string log_file;  // empty: nowhere
  LogLevel log_level = LogLevel::kInfo;
  std::string metrics_listen;  // empty: nowhere
  bool metrics_insecure = false;
};

// Whether a member may be called so, else why not.
Status CheckWorker(const std::string& name, int64_t id);

// Fills in what follows from other settings: the id from the position of the name among the peers, the name from the
// rank, rank and world size from torchrun's variables with rendezvous = "env".
Result<WorkerOptions> ReadWorkerOptions(const Config& config);

}  // namespace gradferry
