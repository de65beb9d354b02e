// What went wrong, as a value: a code of gradferry.h and one sentence. Used by every file of the plugin; exceptions of
// TensorPipe and of the JSON parser are turned into one of these where they are caught.
#pragma once

#include <cstdint>
#include <string>

#include "gradferry/gradferry.h"
#include "gradferry/transport.h"

namespace tensorpipe {
class Error;
}

namespace gradferry::tp {

struct Status {
  int32_t code = GF_OK;
  std::string text;

  bool ok() const { return code == GF_OK; }
};

// Writes status into the host's error; error may be NULL. A text that is too long is cut between two characters.
void Fill(gf_transport_error* error, const Status& status);

// What TensorPipe says about an error, without its source position.
std::string Describe(const ::tensorpipe::Error& error);

// Whether a connection that stood was ended by the peer; not so when it could not be made.
bool IsFromPeer(const ::tensorpipe::Error& error);

// Within a catch block: what was thrown. doing names the operation.
Status FromException(const std::string& doing);

}  // namespace gradferry::tp
