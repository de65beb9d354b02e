// Frames of other versions of the protocol: version 1 is read and written, of a later one Hello and HelloReply are read
// as far as they are known here, and everything else is refused.
#include <gtest/gtest.h>

#include "tests/unit/wire/wire_testing.h"

namespace gradferry {
namespace {

const std::string kHello1(
    "GF\x01\0\x01"
    "\x01\0\x02\0"
    "\x01\0\0\0g"
    "\x01\0\0\0t"
    "\x04\0"
    "\x05\0\0\0\0\0\0\0"
    "\x06\0"
    "\x02\0\0\0ps",
    37);

Hello MustDecodeHello(const std::string& header) {
  auto decoded = Decode(header, {});
  EXPECT_TRUE(decoded.ok()) << decoded.status().ToString();
  if (!decoded.ok()) return Hello();
  return std::get<Hello>(decoded->message);
}

TEST(VersionTest, AHelloOfVersion1HasTheLayoutOfVersion1) {
  Hello hello;
  hello.layout = 1;
  hello.protocol_min = 1;
  hello.protocol_max = 2;
  hello.group = "g";
  hello.name = "t";
  hello.id = 4;
  hello.incarnation = 5;
  hello.to = 6;
  hello.to_name = "ps";
  hello.capabilities = 7;  // there is no place for it
  EXPECT_EQ(MustEncode(hello).header, kHello1);
  const Hello arrived = MustDecodeHello(kHello1);
  EXPECT_EQ(arrived.layout, 1);
  EXPECT_EQ(arrived.protocol_max, 2);
  EXPECT_EQ(arrived.to_name, "ps");
  EXPECT_EQ(arrived.capabilities, 0u);
}

TEST(VersionTest, AHelloOfVersion1WithMoreBytesIsRefused) { EXPECT_FALSE(Decode(kHello1 + '\0', {}).ok()); }

TEST(VersionTest, AHelloOfALaterVersionIsReadAsFarAsItIsKnown) {
  Hello hello;
  hello.layout = 3;
  hello.protocol_min = 2;
  hello.protocol_max = 3;
  hello.name = "new";
  hello.capabilities = 7;
  std::string header = MustEncode(hello).header;
  EXPECT_EQ(FrameVersion(header), 3);
  const Hello arrived = MustDecodeHello(header + "what version 3 has added");
  EXPECT_EQ(arrived.layout, 3);
  EXPECT_EQ(arrived.name, "new");
  EXPECT_EQ(arrived.capabilities, 7u);
  // Within our own version nothing is ever added.
  SetFrameVersion(header, 2);
  EXPECT_TRUE(Decode(header, {}).ok());
  EXPECT_FALSE(Decode(header + '\0', {}).ok());
}

TEST(VersionTest, AHelloReplyOfALaterVersionIsReadAsFarAsItIsKnown) {
  HelloReply reply;
  reply.layout = 9;
  reply.name = "new";
  auto decoded = Decode(MustEncode(reply).header + "more", {});
  ASSERT_TRUE(decoded.ok()) << decoded.status().ToString();
  EXPECT_EQ(std::get<HelloReply>(decoded->message).name, "new");
}

TEST(VersionTest, OtherMessagesOfALaterVersionAreRefused) {
  for (const Message& message : SampleMessages()) {
    if (std::holds_alternative<Hello>(message) || std::holds_alternative<HelloReply>(message)) continue;
    Frame frame = MustEncode(message);
    SetFrameVersion(frame.header, 3);
    EXPECT_EQ(Decode(frame).status().code(), Code::kUnsupported) << MessageName(message);
    SetFrameVersion(frame.header, 0);
    EXPECT_EQ(Decode(frame).status().code(), Code::kUnsupported) << MessageName(message);
  }
}

TEST(VersionTest, AFrameOfVersion1HasNoKindThatCameLater) {
  Frame proof = MustEncode(HelloProof{});
  EXPECT_TRUE(Decode(proof).ok());
  SetFrameVersion(proof.header, 1);
  const Status status = Decode(proof).status();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_EQ(status.message(), "frame.kind: unknown kind 21");
  Frame call = MustEncode(Call());
  SetFrameVersion(call.header, 1);
  EXPECT_TRUE(Decode(call).ok());
}

}  // namespace
}  // namespace gradferry
