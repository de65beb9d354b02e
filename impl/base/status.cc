// See status.h.
#include "impl/base/status.h"

#include <exception>
#include <new>

namespace gradferry {

const char* CodeName(Code code) {
  switch (code) {
    case Code::kOk:
      return "OK";
    case Code::kCancelled:
      return "CANCELLED";
    case Code::kUnknown:
      return "UNKNOWN";
    case Code::kInvalidArgument:
      return "INVALID_ARGUMENT";
    case Code::kDeadlineExceeded:
      return "DEADLINE_EXCEEDED";
    case Code::kNotFound:
      return "NOT_FOUND";
    case Code::kAlreadyExists:
      return "ALREADY_EXISTS";
    case Code::kPermissionDenied:
      return "PERMISSION_DENIED";
    case Code::kResourceExhausted:
      return "RESOURCE_EXHAUSTED";
    case Code::kFailedPrecondition:
      return "FAILED_PRECONDITION";
    case Code::kAborted:
      return "ABORTED";
    case Code::kOutOfRange:
      return "OUT_OF_RANGE";
    case Code::kUnimplemented:
      return "UNIMPLEMENTED";
    case Code::kInternal:
      return "INTERNAL";
    case Code::kUnavailable:
      return "UNAVAILABLE";
    case Code::kDataLoss:
      return "DATA_LOSS";
    case Code::kUnauthenticated:
      return "UNAUTHENTICATED";
    case Code::kClosed:
      return "CLOSED";
    case Code::kPeerLost:
      return "PEER_LOST";
    case Code::kPassAborted:
      return "PASS_ABORTED";
    case Code::kUnsupported:
      return "UNSUPPORTED";
    case Code::kReentrant:
      return "REENTRANT";
  }
  return "UNKNOWN_CODE";
}

bool IsKnownCode(int32_t code) { return (code >= 0 && code <= 16) || (code >= 64 && code <= 68); }

const std::string& Status::message() const {
  static const std::string* const empty = new std::string;
  return error_ ? error_->message : *empty;
}

namespace {
template <class Edit>
Status Edited(const std::shared_ptr<const Error>& error, Edit edit) {
  if (!error) return Status();
  Error copy = *error;
  edit(copy);
  return Status(std::move(copy));
}

void SetIfEmpty(std::string& field, std::string_view value) {
  if (field.empty()) field = value;
}
}  // namespace

Status Status::WithDomain(std::string_view domain) const {
  return Edited(error_, [&](Error& e) {
    if (e.domain == "core") e.domain = domain;
  });
}
Status Status::WithWorker(std::string_view worker) const {
  return Edited(error_, [&](Error& e) { SetIfEmpty(e.worker, worker); });
}
Status Status::WithOperation(std::string_view operation) const {
  return Edited(error_, [&](Error& e) { SetIfEmpty(e.operation, operation); });
}
Status Status::WithPeer(std::string_view peer) const {
  return Edited(error_, [&](Error& e) { SetIfEmpty(e.peer, peer); });
}
Status Status::WithElapsed(int64_t ns) const {
  return Edited(error_, [&](Error& e) {
    if (e.elapsed_ns == 0) e.elapsed_ns = ns;
  });
}
Status Status::WithRetry(Retry retry) const {
  return Edited(error_, [&](Error& e) {
    if (e.retry == Retry::kNever) e.retry = retry;
  });
}

Status Status::Wrap(Code code, std::string message) const {
  if (ok()) return Status();
  Error outer;
  outer.code = code;
  outer.message = std::move(message);
  outer.domain = error_->domain;
  outer.cause = error_;
  return Status(std::move(outer));
}

std::string Status::ToString() const {
  if (ok()) return "OK";
  std::string text;
  for (const Error* e = error_.get(); e != nullptr; e = e->cause.get()) {
    if (!text.empty()) text += "; caused by ";
    text += CodeName(e->code);
    text += ": ";
    text += e->message;
    std::string facts;
    auto fact = [&](const char* name, const std::string& value) {
      if (!value.empty()) facts += StrCat(facts.empty() ? "" : ", ", name, " ", value);
    };
    fact("worker", e->worker);
    fact("operation", e->operation);
    fact("peer", e->peer);
    if (e->elapsed_ns > 0) facts += StrCat(facts.empty() ? "" : ", ", "after ", e->elapsed_ns / 1000000.0, " ms");
    if (!facts.empty()) text += StrCat(" [", facts, "]");
  }
  return text;
}

Status StatusFromCurrentException() {
  try {
    throw;
  } catch (const StatusException& e) {
    return e.status();
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, "out of memory");
  } catch (const std::exception& e) {
    return Status(Code::kUnknown, e.what());
  } catch (...) {
    return Status(Code::kUnknown, "an exception that is no std::exception was thrown");
  }
}

}  // namespace gradferry
