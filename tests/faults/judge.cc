// See judge.h.
#include "tests/faults/judge.h"

namespace gradferry::faults {
namespace {

bool IsExpected(Code code) {
  switch (code) {
    case Code::kDeadlineExceeded:
    case Code::kPeerLost:
    case Code::kUnavailable:
    case Code::kDataLoss:
    case Code::kPassAborted:
    case Code::kCancelled:
    case Code::kAborted:
    case Code::kNotFound:     // a worker that could not reach the maker of the context has given it up
    case Code::kUnsupported:  // the first frame of a connection, damaged where its version stands
      return true;
    default:
      return false;
  }
}

}  // namespace

std::string Judge(const Status& status) {
  bool named = false;
  for (auto error = status.error(); error; error = error->cause) {
    if (!IsExpected(error->code)) return "the code is " + std::string(CodeName(error->code));
    named = named || !error->worker.empty() || !error->peer.empty();
  }
  if (!named) return "no worker is named";
  if (status.code() != Code::kPassAborted && status.error()->operation.empty()) return "no operation is named";
  return "";
}

}  // namespace gradferry::faults
