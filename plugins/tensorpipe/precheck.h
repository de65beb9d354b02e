// Finds out beforehand what would make TensorPipe abort the process. Its socket calls run on threads of its own, where
// an exception has nobody to catch it: a port in use, an address of no interface, a network without a route and a
// process without free file descriptors all end there. What changes between the check and the call stays a risk.
#pragma once

#include <string>

#include "plugins/tensorpipe/address.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

// A port (or an shm name) that is free to listen on. While it is held no other ListenClaim gets it, so that of two
// workers started at once with the same address one gets an error and none dies.
class ListenClaim {
 public:
  ListenClaim() = default;
  ~ListenClaim();
  ListenClaim(const ListenClaim&) = delete;
  ListenClaim& operator=(const ListenClaim&) = delete;

  // GF_ALREADY_EXISTS when in use; GF_PERMISSION_DENIED; GF_INVALID_ARGUMENT when no interface has the address.
  Status Take(const Address& address);

 private:
  Status TakeName(const std::string& name, const Address& address);
  Status TakePort(const Address& address);

  int name_fd_ = -1;
  int port_fd_ = -1;
};

// Whether there is a route to the address. GF_UNAVAILABLE when not.
Status CheckRoute(const Address& address);

// Whether this process can open enough files for a connection. GF_RESOURCE_EXHAUSTED when not.
Status CheckFileDescriptors();

}  // namespace gradferry::tp
