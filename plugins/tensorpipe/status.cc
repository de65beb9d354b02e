#include "plugins/tensorpipe/status.h"

#include <tensorpipe/common/error.h>
#include <tensorpipe/transport/uv/error.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>
#include <new>

namespace gradferry::tp {
namespace {

// libuv's codes are errno's, negated, and this one.
constexpr int kUvEof = -4095;

}  // namespace

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

std::string Describe(const ::tensorpipe::Error& error) {
  std::string text = error.what();
  text = text.substr(0, text.find(" (this error originated at"));
  return text;
}

bool IsFromPeer(const ::tensorpipe::Error& error) {
  using ::tensorpipe::transport::uv::UVError;
  if (error.isOfType<::tensorpipe::EOFError>()) return true;
  if (const auto system = error.castToType<::tensorpipe::SystemError>()) {
    return system->errorCode() == ECONNRESET || system->errorCode() == EPIPE;
  }
  // It keeps its code to itself, so its words are compared with those of errors whose code is known.
  const auto uv = error.castToType<UVError>();
  if (uv == nullptr) return false;
  const std::string what = uv->what();
  return what == UVError(kUvEof).what() || what == UVError(-ECONNRESET).what() || what == UVError(-EPIPE).what();
}

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

}  // namespace gradferry::tp
