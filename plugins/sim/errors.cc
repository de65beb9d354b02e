// See errors.h.
#include "plugins/sim/errors.h"

#include <algorithm>
#include <cstring>

namespace gradferry::sim {

gf_transport_error MakeError(int32_t code, std::string_view text) {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  error.code = code;
  size_t length = std::min(text.size(), sizeof(error.text) - 1);
  // Not in the middle of a UTF-8 character.
  while (length > 0 && length < text.size() && (static_cast<unsigned char>(text[length]) & 0xC0) == 0x80) --length;
  std::memcpy(error.text, text.data(), length);
  error.length = static_cast<uint32_t>(length);
  return error;
}

int32_t Fail(gf_transport_error* error, int32_t code, std::string_view text) {
  if (error != nullptr) *error = MakeError(code, text);
  return code;
}

}  // namespace gradferry::sim
