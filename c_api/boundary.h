// The way in and out of the library: every function of gradferry.h that can fail has the body
//
//   return AtBoundary(error, Outs(out), [&]() -> Status { ... });
//
// which refuses NULL out-parameters, zeroes them, refuses forked children, catches whatever is thrown, and turns the
// Status into a code and a gf_error. The body sets an out-parameter only when it succeeds. Helpers for the other
// conventions of the header (structs with a size, texts in, texts out) are here too.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <tuple>
#include <type_traits>

#include "c_api/handle.h"
#include "gradferry/gradferry.h"
#include "impl/base/status.h"

namespace gradferry {

// A new gf_error for a status that is not OK, owned by the caller; NULL for OK, or when there is no memory left for it.
gf_error* NewError(const Status& status) noexcept;

// Puts the status into *error (which may be NULL) and returns its code.
int32_t Report(const Status& status, gf_error** error) noexcept;

// Within a catch block: any exception as a Status, libtorch's without their backtraces in the message.
Status StatusFromAnyException() noexcept;

// kFailedPrecondition in a forked child.
Status CheckNotForked();

// The out-parameters of a function; to be zeroed and not NULL.
template <class... Out>
struct OutParameters {
  std::tuple<Out*...> pointers;

  // False when one is NULL; the others are zeroed all the same.
  bool Zero() const {
    bool all = true;
    std::apply([&](auto*... out) { ((out != nullptr ? (void)(*out = {}) : (void)(all = false)), ...); }, pointers);
    return all;
  }
};

template <class... Out>
OutParameters<Out...> Outs(Out*... out) {
  return {{out...}};
}

template <class Body, class... Out>
int32_t AtBoundary(gf_error** error, const OutParameters<Out...>& outs, Body&& body) noexcept {
  if (error != nullptr) *error = nullptr;
  bool outs_given = outs.Zero();
  try {
    Status status = CheckNotForked();
    if (status.ok() && !outs_given) status = InvalidArgument("an out-parameter is NULL");
    if (status.ok()) status = body();
    return Report(status, error);
  } catch (...) {
    return Report(StatusFromAnyException(), error);
  }
}

// For functions without a gf_error: runs body and returns its value, or `otherwise` when it throws or in a forked
// child.
template <class Value, class Body>
Value OrElse(Value otherwise, Body&& body) noexcept {
  if (InForkedChild()) return otherwise;
  try {
    return body();
  } catch (...) {
    return otherwise;
  }
}

// ---- Texts ---------------------------------------------------------------------------------------------------------

// A text that came in: UTF-8, and not NULL unless its length is 0. `what` names it in errors: "the handler's name".
Result<std::string_view> TextIn(const char* text, size_t length, const char* what);

// The second half of the two-call pattern; see "Strings" in gradferry.h. *length is set in every case.
Status TextOut(std::string_view text, char* buffer, size_t capacity, size_t* length);

// ---- Structs that begin with struct_size ---------------------------------------------------------------------------

// A larger struct_size than this was never meant.
inline constexpr uint32_t kMaxStructSize = 4096;

// What is wrong with the struct_size of a struct of which this library knows `known` bytes, or OK: kInvalidArgument
// when the struct is NULL or its size not sensible.
Status CheckStructSize(const void* given, size_t known, const char* name);

// kUnsupported unless the bytes behind those that this library knows are zero.
Status CheckStructTail(const void* given, size_t known, const char* name);

// A struct that came in: what an older caller's struct lacks is zero; what a newer caller's has beyond must be zero.
template <class Struct>
Result<Struct> StructIn(const Struct* given, const char* name) {
  static_assert(std::is_trivially_copyable_v<Struct> && offsetof(Struct, struct_size) == 0);
  GF_RETURN_IF_ERROR(CheckStructSize(given, sizeof(Struct), name));
  GF_RETURN_IF_ERROR(CheckStructTail(given, sizeof(Struct), name));
  Struct known{};
  std::memcpy(&known, given, std::min<size_t>(given->struct_size, sizeof(Struct)));
  known.struct_size = sizeof(Struct);
  return known;
}

// Fills a struct of the caller as far as it reaches; what this library does not know of it becomes zero. struct_size
// stays.
template <class Struct>
void StructOut(Struct filled, Struct* given) {
  uint32_t size = given->struct_size;
  filled.struct_size = size;
  std::memcpy(given, &filled, std::min<size_t>(size, sizeof(Struct)));
  if (size > sizeof(Struct)) {
    std::memset(reinterpret_cast<char*>(given) + sizeof(Struct), 0, size - sizeof(Struct));
  }
}

}  // namespace gradferry
