// Errors as values. A Status is either OK or a shared, immutable Error with everything that gf_error shows: what
// failed, where, on which worker, and why (the chain of causes). Used by every layer below the C boundary; exceptions
// exist only at libtorch's edge, where StatusFromCurrentException turns them into one of these.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace gradferry {

// The numbers of gradferry.h.
enum class Code : int32_t {
  kOk = 0,
  kCancelled = 1,
  kUnknown = 2,
  kInvalidArgument = 3,
  kDeadlineExceeded = 4,
  kNotFound = 5,
  kAlreadyExists = 6,
  kPermissionDenied = 7,
  kResourceExhausted = 8,
  kFailedPrecondition = 9,
  kAborted = 10,
  kOutOfRange = 11,
  kUnimplemented = 12,
  kInternal = 13,
  kUnavailable = 14,
  kDataLoss = 15,
  kUnauthenticated = 16,
  kClosed = 64,
  kPeerLost = 65,
  kPassAborted = 66,
  kUnsupported = 67,
  kReentrant = 68,
};

// "DEADLINE_EXCEEDED"; "UNKNOWN_CODE" for a number that is none.
const char* CodeName(Code code);
bool IsKnownCode(int32_t code);

enum class Retry : uint8_t { kNever = 0, kSamePeer = 1, kOtherPeer = 2 };

class Status;

struct Error {
  Code code = Code::kUnknown;
  std::string message;
  std::string domain = "core";
  std::string worker;     // where it happened
  std::string operation;  // the operator, handler, node or message concerned
  std::string peer;       // the other worker involved
  std::string backtrace;
  int64_t elapsed_ns = 0;
  Retry retry = Retry::kNever;
  std::shared_ptr<const Error> cause;
};

class [[nodiscard]] Status {
 public:
  Status() = default;  // OK
  Status(Code code, std::string message) : error_(std::make_shared<Error>()) {
    error_->code = code;
    error_->message = std::move(message);
  }
  explicit Status(Error error) : error_(std::make_shared<Error>(std::move(error))) {}
  explicit Status(std::shared_ptr<const Error> error) : error_(std::const_pointer_cast<Error>(std::move(error))) {}

  bool ok() const { return error_ == nullptr; }
  Code code() const { return error_ ? error_->code : Code::kOk; }
  const std::string& message() const;
  std::shared_ptr<const Error> error() const { return error_; }

  // Each returns a copy with one more fact; they do nothing to OK and do not overwrite a fact that is there already.
  Status WithDomain(std::string_view domain) const;  // overwrites "core"
  Status WithWorker(std::string_view worker) const;
  Status WithOperation(std::string_view operation) const;
  Status WithPeer(std::string_view peer) const;
  Status WithElapsed(int64_t ns) const;
  Status WithRetry(Retry retry) const;
  // A new error with this one as its cause.
  Status Wrap(Code code, std::string message) const;

  // The whole chain in one line: "CODE: message [worker w, operation o, peer p, 12 ms]; caused by CODE: ...".
  std::string ToString() const;

 private:
  std::shared_ptr<Error> error_;  // immutable once shared
};

// A value or a Status that is not OK.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}  // NOLINT: implicit by design
  Result(Status status) : status_(std::move(status)) {
    if (status_.ok()) status_ = Status(Code::kInternal, "a Result was made from an OK status without a value");
  }

  bool ok() const { return value_.has_value(); }
  const Status& status() const { return status_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }

 private:
  std::optional<T> value_;
  Status status_;
};

inline Status OkStatus() { return Status(); }
inline Status InvalidArgument(std::string message) { return Status(Code::kInvalidArgument, std::move(message)); }
inline Status NotFound(std::string message) { return Status(Code::kNotFound, std::move(message)); }
inline Status FailedPrecondition(std::string message) { return Status(Code::kFailedPrecondition, std::move(message)); }
inline Status Internal(std::string message) { return Status(Code::kInternal, std::move(message)); }

// A Status on its way through code that is not ours and knows exceptions only (libtorch, which runs our hooks). Thrown
// there and nowhere else; StatusFromCurrentException gives the Status back.
class StatusException final : public std::exception {
 public:
  explicit StatusException(Status status) : status_(std::move(status)), text_(status_.ToString()) {}
  const char* what() const noexcept override { return text_.c_str(); }
  const Status& status() const { return status_; }

 private:
  Status status_;
  std::string text_;
};

// Within a catch block: what was thrown, as a Status. std::bad_alloc is kResourceExhausted, any other
// std::exception kUnknown with its what(), anything else kUnknown.
Status StatusFromCurrentException();

// Joins its arguments (anything that std::ostream takes) into a string.
template <class... Args>
std::string StrCat(const Args&... args);

}  // namespace gradferry

// Returns from the enclosing function when expr (a Status) is not OK.
#define GF_RETURN_IF_ERROR(expr)                                                      \
  do {                                                                                \
    if (::gradferry::Status gf_status_ = (expr); !gf_status_.ok()) return gf_status_; \
  } while (false)

#define GF_CONCAT_INNER_(a, b) a##b
#define GF_CONCAT_(a, b) GF_CONCAT_INNER_(a, b)
// GF_ASSIGN_OR_RETURN(auto x, F()): declares x with the value of the Result, or returns its Status.
#define GF_ASSIGN_OR_RETURN(declaration, expr) GF_ASSIGN_OR_RETURN_(GF_CONCAT_(gf_result_, __LINE__), declaration, expr)
#define GF_ASSIGN_OR_RETURN_(name, declaration, expr) \
  auto name = (expr);                                 \
  if (!name.ok()) return name.status();               \
  declaration = std::move(*name)

#include <sstream>

namespace gradferry {
template <class... Args>
std::string StrCat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}
}  // namespace gradferry
