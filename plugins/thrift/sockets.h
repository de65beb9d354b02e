// Making sockets: listening ones, and those that connect. None of them blocks; all are closed on exec.
#pragma once

#include <string>

#include "plugins/thrift/address.h"
#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/options.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

// Listens at a TCP or TLS address and sets address->port. GF_ALREADY_EXISTS when it is in use; GF_INVALID_ARGUMENT when
// no interface has it.
Status ListenTcp(Address* address, FileDescriptor* out);

// Begins to connect. *pending: poll for writing, then FinishConnect says how it went. GF_UNAVAILABLE. *retry: a local
// listener's queue is full; try again later.
Status BeginConnect(const Address& address, FileDescriptor* out, bool* pending, bool* retry);
Status FinishConnect(int fd);

// What every connection over TCP gets: no delay, and an end when the other machine is silently gone.
void TuneTcp(int fd, const Options& options);

// What every local connection gets: room for a piece of a large transfer, so that writer and reader take turns less
// often.
void TuneLocal(int fd);

// Whether the process at the other end of a local socket is this user's. GF_PERMISSION_DENIED.
Status CheckPeerUser(int fd);

// The address of the other end, for people.
std::string PeerText(int fd);

}  // namespace gradferry::thrift
