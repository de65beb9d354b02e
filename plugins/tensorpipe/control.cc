#include "plugins/tensorpipe/control.h"

#include <cstring>

namespace gradferry::tp {
namespace {

constexpr size_t kLongestReason = 300;

void Append(uint64_t number, std::string* out) {
  for (int i = 0; i < 8; ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}

bool Take(std::string_view* bytes, uint64_t* number) {
  if (bytes->size() < 8) return false;
  *number = 0;
  for (size_t i = 0; i < 8; ++i) *number |= static_cast<uint64_t>(static_cast<unsigned char>((*bytes)[i])) << (8 * i);
  bytes->remove_prefix(8);
  return true;
}

bool ParseOffer(std::string_view rest, Control* out) {
  uint64_t pid = 0;
  if (!Take(&rest, &pid) || !Take(&rest, &out->location) || rest.size() != out->challenge.size()) return false;
  // Negative ones and 0 mean something else to the kernel.
  if (pid == 0 || pid > INT32_MAX) return false;
  out->pid = static_cast<int64_t>(pid);
  std::memcpy(out->challenge.data(), rest.data(), rest.size());
  return true;
}

bool ParseVerdict(std::string_view rest, Control* out) {
  if (rest.empty() || rest.size() > 1 + kLongestReason) return false;
  out->works = rest[0] == 1;
  for (char c : rest.substr(1)) out->reason += c >= ' ' && c <= '~' ? c : '?';  // it goes to a log
  return true;
}

}  // namespace

::tensorpipe::Message ToMessage(const Control& control) {
  ::tensorpipe::Message message;
  std::string& bytes = message.metadata;
  bytes.push_back(static_cast<char>(kControl));
  bytes.push_back(static_cast<char>(control.kind));
  if (control.kind == ControlKind::kOffer) {
    Append(static_cast<uint64_t>(control.pid), &bytes);
    Append(control.location, &bytes);
    bytes.append(reinterpret_cast<const char*>(control.challenge.data()), control.challenge.size());
  } else if (control.kind == ControlKind::kVerdict) {
    bytes.push_back(control.works ? 1 : 0);
    bytes += control.reason.substr(0, kLongestReason);
  } else if (control.kind == ControlKind::kDone) {
    Append(control.number, &bytes);
  }
  return message;
}

bool IsControl(const ::tensorpipe::Descriptor& descriptor) {
  return !descriptor.metadata.empty() && static_cast<unsigned char>(descriptor.metadata[0]) == kControl &&
         descriptor.payloads.empty() && descriptor.tensors.empty();
}

Status ParseControl(std::string_view metadata, Control* out) {
  const Status bad = {GF_DATA_LOSS, "the peer sent a control message that is malformed"};
  if (metadata.size() < 2) return bad;
  out->kind = static_cast<ControlKind>(metadata[1]);
  std::string_view rest = metadata.substr(2);
  switch (out->kind) {
    case ControlKind::kOffer:
      return ParseOffer(rest, out) ? Status{} : bad;
    case ControlKind::kWritten:
      return rest.empty() ? Status{} : bad;
    case ControlKind::kVerdict:
      return ParseVerdict(rest, out) ? Status{} : bad;
    case ControlKind::kDone:
      return Take(&rest, &out->number) && rest.empty() ? Status{} : bad;
  }
  return bad;
}

}  // namespace gradferry::tp
