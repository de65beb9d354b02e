// The introduction, as the accepting and as the dialling side see it: u8, bit 0: whether this worker has a secret; then
// a header.
#include <variant>

#include "impl/rpc/handshake.h"
#include "impl/wire/decoder.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Identity self;
  self.group = "g";
  self.name = "ps";
  self.id = 3;
  if ((data[0] & 1) != 0) {
    self.secret = "a secret of the group";
    self.protocol_min = 2;
  }
  const auto decoded = DecodeHeader(AsText(data + 1, size - 1), FuzzLimits());
  if (!decoded.ok()) return 0;
  AcceptHandshake acceptor(&self);
  DialHandshake dialler(&self, 1, "other");
  if (const auto* hello = std::get_if<Hello>(&decoded->message)) {
    const HelloReply reply = acceptor.OnHello(*hello, {});
    Require(reply.status.ok() || !acceptor.wants_proof(), "who is refused is asked for a proof");
    Require(EncodeFrame(reply, {}, FuzzLimits()).ok(), "the answer to a Hello cannot be written");
  } else if (const auto* reply = std::get_if<HelloReply>(&decoded->message)) {
    Require(!dialler.OnReply(*reply, {}).ok() || self.secret.empty(), "a proof was guessed");
  } else if (const auto* proof = std::get_if<HelloProof>(&decoded->message)) {
    Require(!acceptor.OnProof(*proof).ok(), "a proof was guessed");
  }
  return 0;
}
