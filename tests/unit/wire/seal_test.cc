// The seal of a frame: what it says, and that no damage to a header passes it.
#include "impl/wire/seal.h"

#include <gtest/gtest.h>

#include "tests/unit/wire/wire_testing.h"

namespace gradferry {
namespace {

TEST(SealTest, ComesBackAsItWasWritten) {
  for (const Seal& seal :
       {Seal{0, std::nullopt}, Seal{17, 0}, Seal{UINT64_MAX, 0xdeadbeef}, Seal{18, std::nullopt, /*in_chunks=*/true}}) {
    std::string header = "the message";
    AppendSeal(header, seal);
    EXPECT_EQ(header.size(), 11 + kSealBytes);
    EXPECT_EQ(header.substr(0, 11), "the message");
    const auto read = ReadSeal(header);
    ASSERT_TRUE(read.ok()) << read.status().ToString();
    EXPECT_EQ(read->sequence, seal.sequence);
    EXPECT_EQ(read->segments, seal.segments);
    EXPECT_EQ(read->in_chunks, seal.in_chunks);
  }
}

TEST(SealTest, TheExampleOfTheProtocolIsTrue) {
  std::string header("GF\x02\x00\x03\x00\x00\x00\x00", 9);  // Goodbye without a reason
  AppendSeal(header, {2, std::nullopt});
  EXPECT_EQ(header.substr(9, 13), std::string("\x02\0\0\0\0\0\0\0\0\0\0\0\0", 13));
  EXPECT_EQ(header.substr(22), std::string("\xef\x7e\xc2\x9d", 4));
}

TEST(SealTest, NoChangedBitPasses) {
  for (const Message& message : SampleMessages()) {
    std::string header = MustEncode(message).header;
    AppendSeal(header, {5, std::nullopt});
    for (size_t bit = 0; bit < 8 * header.size(); ++bit) {
      std::string damaged = header;
      damaged[bit / 8] = static_cast<char>(damaged[bit / 8] ^ (1 << (bit % 8)));
      EXPECT_EQ(ReadSeal(damaged).status().code(), Code::kDataLoss) << MessageName(message) << " bit " << bit;
    }
  }
}

TEST(SealTest, NoCutHeaderPasses) {
  std::string header = MustEncode(SampleMessages()[3]).header;
  AppendSeal(header, {5, 6});
  for (size_t size = 0; size < header.size(); ++size) {
    EXPECT_EQ(ReadSeal(header.substr(0, size)).status().code(), Code::kDataLoss) << size;
  }
}

TEST(SealTest, WhatComesInChunksIsNotCovered) {
  std::string header = "the message";
  AppendSeal(header, {5, 6, /*in_chunks=*/true});
  EXPECT_EQ(ReadSeal(header).status().code(), Code::kDataLoss);
}

}  // namespace
}  // namespace gradferry
