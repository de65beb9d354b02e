// How the members of a group find each other: every worker puts its name and address into a c10d store under its rank
// and reads everybody else's, as torch.distributed does with init_method. Used once, while a worker opens.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "impl/base/config.h"
#include "impl/base/status.h"

namespace gradferry {

// where: "tcp://host:port" (a TCPStore; rank 0 hosts it) or "file:///path" (a FileStore on a file system that all
// share; the path must not be left over from an earlier group). self: rank, name and address of this worker. Returns
// all members by rank. Waits at most `timeout` ns; the error names the members that are missing.
class Rendezvous {
 public:
  static Result<std::unique_ptr<Rendezvous>> Open(const std::string& where, int64_t rank, int64_t world_size,
                                                  int64_t timeout);
  virtual ~Rendezvous() = default;
  virtual Result<std::vector<ConfigPeer>> Join(const std::string& group, const ConfigPeer& self) = 0;
};

}  // namespace gradferry
