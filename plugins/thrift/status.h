// What went wrong, as a value: a code of gradferry.h and one sentence. Used by every file of the plugin.
#pragma once

#include <cstdint>
#include <string>

#include "gradferry/gradferry.h"
#include "gradferry/transport.h"

namespace gradferry::thrift {

struct Status {
  int32_t code = GF_OK;
  std::string text;

  bool ok() const { return code == GF_OK; }
};

// Writes status into the host's error; error may be NULL. A text that is too long is cut between two characters.
void Fill(gf_transport_error* error, const Status& status);

// What the system says about an errno: "Connection refused".
std::string Describe(int error_number);

// Within a catch block: what was thrown. doing names the operation.
Status FromException(const std::string& doing);

}  // namespace gradferry::thrift
