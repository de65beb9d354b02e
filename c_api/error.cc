// Errors: gf_error_* and gf_code_name. None of these can fail but gf_error_new and gf_error_describe, and all take
// NULL.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"

namespace gradferry {

ErrorObject::ErrorObject(std::shared_ptr<const Error> shared) : error(std::move(shared)) {
  // Handles are made for the whole chain at once, so that gf_error_cause need not allocate.
  if (error->cause != nullptr) cause = MakeHandle<gf_error>(ErrorObject(error->cause));
}

ErrorObject::ErrorObject(ErrorObject&& other) noexcept
    : error(std::move(other.error)), cause(std::exchange(other.cause, nullptr)) {}

ErrorObject::~ErrorObject() { UnrefHandle(cause); }

namespace {

const std::string& TextOf(const Error& error, uint32_t which) {
  static const auto* const none = new std::string;
  switch (which) {
    case GF_ERROR_MESSAGE:
      return error.message;
    case GF_ERROR_DOMAIN:
      return error.domain;
    case GF_ERROR_WORKER:
      return error.worker;
    case GF_ERROR_OPERATION:
      return error.operation;
    case GF_ERROR_PEER:
      return error.peer;
    case GF_ERROR_BACKTRACE:
      return error.backtrace;
    default:
      return *none;
  }
}

// The facts of a handle; NULL for NULL and for what is no error.
const Error* ErrorOf(const gf_error* error) noexcept {
  const ErrorObject* object = Peek(error);
  return object == nullptr ? nullptr : object->error.get();
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

gf_error* gf_error_ref(gf_error* error) { return RefHandle(error); }

void gf_error_unref(gf_error* error) { UnrefHandle(error); }

int32_t gf_error_new(int32_t code, const char* message, size_t length, gf_error** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(message, length, "the message"));
    if (code == GF_OK || !IsKnownCode(code)) return InvalidArgument(StrCat(code, " is no code of an error"));
    *out = NewError(Status(static_cast<Code>(code), std::string(text)));
    return *out != nullptr ? OkStatus() : Status(Code::kResourceExhausted, "out of memory");
  });
}

int32_t gf_error_code(const gf_error* error) {
  if (error == nullptr) return GF_OK;
  const Error* facts = ErrorOf(error);
  return facts == nullptr ? GF_INVALID_ARGUMENT : static_cast<int32_t>(facts->code);
}

const char* gf_error_text(const gf_error* error, uint32_t which, size_t* length) {
  const Error* facts = ErrorOf(error);
  if (length != nullptr) *length = facts == nullptr ? 0 : TextOf(*facts, which).size();
  return facts == nullptr ? "" : TextOf(*facts, which).c_str();
}

int64_t gf_error_elapsed_ns(const gf_error* error) {
  const Error* facts = ErrorOf(error);
  return facts == nullptr ? 0 : facts->elapsed_ns;
}

uint32_t gf_error_retry(const gf_error* error) {
  const Error* facts = ErrorOf(error);
  return facts == nullptr ? GF_RETRY_NEVER : static_cast<uint32_t>(facts->retry);
}

const gf_error* gf_error_cause(const gf_error* error) {
  const ErrorObject* object = Peek(error);
  return object == nullptr ? nullptr : object->cause;
}

int32_t gf_error_describe(const gf_error* error, char* buffer, size_t capacity, size_t* length) {
  return AtBoundary(nullptr, Outs(length), [&]() -> Status {
    if (error == nullptr) return TextOut("OK", buffer, capacity, length);
    GF_ASSIGN_OR_RETURN(const auto* object, Get(error));
    return TextOut(Status(object->error).ToString(), buffer, capacity, length);
  });
}

const char* gf_code_name(int32_t code) { return CodeName(static_cast<Code>(code)); }
