// What the two ends of a connection say to each other besides frames: messages of TensorPipe with metadata alone.
//
//   byte 0      kControl (a frame has its format there, a welcome 0)
//   byte 1      kind
//   then        its fields, little endian
#pragma once

#include <tensorpipe/core/message.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "plugins/tensorpipe/cma.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

constexpr unsigned char kControl = 0xC0;

enum class ControlKind : uint8_t {
  kOffer = 1,    // where my record is; write this challenge into yours
  kWritten = 2,  // your challenge is in my record
  kVerdict = 3,  // whether I can read you; then send me large segments by address
  kDone = 4,     // the frame of this number has been copied
};

struct Control {
  ControlKind kind = ControlKind::kDone;
  int64_t pid = 0;        // kOffer
  uint64_t location = 0;  // kOffer
  Challenge challenge{};  // kOffer
  bool works = false;     // kVerdict
  std::string reason;     // kVerdict, when it does not
  uint64_t number = 0;    // kDone
};

::tensorpipe::Message ToMessage(const Control& control);
bool IsControl(const ::tensorpipe::Descriptor& descriptor);
// GF_DATA_LOSS when it is malformed.
Status ParseControl(std::string_view metadata, Control* out);

}  // namespace gradferry::tp
