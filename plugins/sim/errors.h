// How the plugin reports an error: one sentence and a code, put into the host's gf_transport_error.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "gradferry/gradferry.h"  // the codes, which transport.h refers to; nothing else of it is used
#include "gradferry/transport.h"

namespace gradferry::sim {

gf_transport_error MakeError(int32_t code, std::string_view text);

// Fills error, which may be null, and returns code.
int32_t Fail(gf_transport_error* error, int32_t code, std::string_view text);

}  // namespace gradferry::sim
