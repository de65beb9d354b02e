// What the tests of the wire share: frames that cross an imaginary network, messages of every kind, and messages as
// texts that can be compared. The texts are written by hand, field by field, so that a field which both the encoder and
// the decoder forget is noticed.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "impl/wire/frame.h"

namespace gradferry {

// A frame as a network has it: bytes.
struct Frame {
  std::string header;
  std::vector<std::string> segments;
};

Frame CopyOf(const EncodedFrame& encoded);
Result<Frame> Encode(const Message& message, const std::vector<bool>& record_grad = {}, const WireLimits& limits = {});
// Fails the test when the message cannot be encoded.
Frame MustEncode(const Message& message, const std::vector<bool>& record_grad = {}, const WireLimits& limits = {});

// Both phases of decoding.
Result<DecodedMessage> Decode(std::string_view header, const std::vector<std::string>& segments,
                              const WireLimits& limits = {});
Result<DecodedMessage> Decode(const Frame& frame, const WireLimits& limits = {});

// Everything of a message: all fields, error chains, tensors with dtype, sizes, strides and bytes.
std::string Show(const Message& message);
std::string Show(const at::Tensor& tensor);

// An error with every field set and three links.
Status SampleStatus();

// Tensors of every form: dense, transposed, channels_last, expanded, empty, scalar, sparse, undefined; every dtype.
std::vector<at::Tensor> SampleTensors();

// One or more messages of every kind, small ones.
std::vector<Message> SampleMessages();

// Messages with every kind of value, nested, and tensors of every form and size.
std::vector<Message> LargeMessages();

}  // namespace gradferry
