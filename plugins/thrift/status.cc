#include "plugins/thrift/status.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <new>
#include <system_error>

namespace gradferry::thrift {

void Fill(gf_transport_error* error, const Status& status) {
  if (error == nullptr) return;
  size_t length = std::min(status.text.size(), sizeof(error->text) - 1);
  // A UTF-8 character that does not fit as a whole is left out.
  if (length < status.text.size()) {
    while (length > 0 && (static_cast<unsigned char>(status.text[length]) & 0xC0) == 0x80) --length;
  }
  error->code = status.code;
  error->length = static_cast<uint32_t>(length);
  std::memcpy(error->text, status.text.data(), length);
  error->text[length] = '\0';
}

std::string Describe(int error_number) { return std::generic_category().message(error_number); }

Status FromException(const std::string& doing) {
  try {
    throw;
  } catch (const std::bad_alloc&) {
    return {GF_RESOURCE_EXHAUSTED, doing + " failed: out of memory"};
  } catch (const std::exception& exception) {
    return {GF_INTERNAL, doing + " failed: " + exception.what()};
  } catch (...) {
    return {GF_INTERNAL, doing + " failed with an unknown exception"};
  }
}

}  // namespace gradferry::thrift
