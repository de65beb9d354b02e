// See boundary.h.
#include "c_api/boundary.h"

#include <c10/util/Exception.h>

#include "c_api/objects.h"
#include "impl/tensor/operators.h"
#include "impl/wire/utf8.h"

namespace gradferry {
namespace {

// Made while there is memory.
const Status& OutOfMemory() {
  static const auto* const status = new Status(Code::kResourceExhausted, "out of memory");
  return *status;
}
[[maybe_unused]] const Status& made_at_load = OutOfMemory();

Status ClassifyCurrentException() {
  try {
    throw;
  } catch (const c10::Error&) {
    return StatusFromTorchException();
  } catch (...) {
    return StatusFromCurrentException();
  }
}

}  // namespace

gf_error* NewError(const Status& status) noexcept {
  if (status.ok()) return nullptr;
  try {
    return MakeHandle<gf_error>(ErrorObject(status.error()));
  } catch (...) {
    return nullptr;
  }
}

int32_t Report(const Status& status, gf_error** error) noexcept {
  if (error != nullptr) *error = NewError(status);
  return static_cast<int32_t>(status.code());
}

Status StatusFromAnyException() noexcept {
  try {
    return ClassifyCurrentException();
  } catch (...) {
    return OutOfMemory();
  }
}

Status CheckNotForked() {
  if (!InForkedChild()) return OkStatus();
  return FailedPrecondition(
      "this process was forked from one that had loaded Gradferry; after fork only exec is allowed");
}

Result<std::string_view> TextIn(const char* text, size_t length, const char* what) {
  if (length == 0) return std::string_view();
  if (text == nullptr) return InvalidArgument(StrCat(what, " is NULL, with a length of ", length));
  std::string_view view(text, length);
  if (!IsUtf8(view)) return InvalidArgument(StrCat(what, " is no UTF-8"));
  return view;
}

Status TextOut(std::string_view text, char* buffer, size_t capacity, size_t* length) {
  *length = text.size();
  if (buffer == nullptr) return OkStatus();
  if (capacity <= text.size()) {
    return Status(Code::kOutOfRange,
                  StrCat("the text and its end take ", text.size() + 1, " bytes, the buffer has ", capacity));
  }
  std::memcpy(buffer, text.data(), text.size());
  buffer[text.size()] = '\0';
  return OkStatus();
}

Status CheckStructSize(const void* given, size_t known, const char* name) {
  if (given == nullptr) return InvalidArgument(StrCat("a ", name, " is wanted, got NULL"));
  uint32_t size;
  std::memcpy(&size, given, sizeof(size));
  if (size < sizeof(size) || size > kMaxStructSize) {
    return InvalidArgument(
        StrCat(name, ".struct_size is ", size, "; set it to sizeof(", name, "), which is ", known, " here"));
  }
  return OkStatus();
}

Status CheckStructTail(const void* given, size_t known, const char* name) {
  uint32_t size;
  std::memcpy(&size, given, sizeof(size));
  const auto* bytes = static_cast<const unsigned char*>(given);
  for (size_t i = known; i < size; ++i) {
    if (bytes[i] == 0) continue;
    return Status(Code::kUnsupported,
                  StrCat(name, " has a field at byte ", i, " that this library does not know (it knows ", known,
                         " bytes): the caller was built for a newer one"));
  }
  return OkStatus();
}

}  // namespace gradferry
