// The checksum against published values, and the two ways to compute it against each other.
#include "impl/base/crc32c.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>

namespace gradferry {
namespace {

using Extend = uint32_t (*)(uint32_t, const void*, size_t);

class Crc32cTest : public ::testing::TestWithParam<Extend> {
 protected:
  uint32_t Of(const std::string& bytes) { return GetParam()(0, bytes.data(), bytes.size()); }
};

INSTANTIATE_TEST_SUITE_P(Both, Crc32cTest, ::testing::Values(&ExtendCrc32c, &ExtendCrc32cByTables));

// RFC 3720, appendix B.4, and the check value of the catalogues of CRCs.
TEST_P(Crc32cTest, KnownVectors) {
  std::string ascending, descending;
  for (int i = 0; i < 32; ++i) {
    ascending += static_cast<char>(i);
    descending += static_cast<char>(31 - i);
  }
  EXPECT_EQ(Of(""), 0u);
  EXPECT_EQ(Of("123456789"), 0xE3069283u);
  EXPECT_EQ(Of(std::string(32, '\0')), 0x8A9136AAu);
  EXPECT_EQ(Of(std::string(32, '\xff')), 0x62A8AB43u);
  EXPECT_EQ(Of(ascending), 0x46DD794Eu);
  EXPECT_EQ(Of(descending), 0x113FDB5Cu);
}

TEST_P(Crc32cTest, NoBytesMayHaveNoAddress) { EXPECT_EQ(GetParam()(7, nullptr, 0), 7u); }

TEST_P(Crc32cTest, PartsGiveTheSameAsTheWhole) {
  std::mt19937 random(1);
  std::string bytes;
  for (int i = 0; i < 300; ++i) bytes += static_cast<char>(random());
  const uint32_t whole = Of(bytes);
  for (size_t split = 0; split <= bytes.size(); ++split) {
    const uint32_t first = GetParam()(0, bytes.data(), split);
    EXPECT_EQ(GetParam()(first, bytes.data() + split, bytes.size() - split), whole) << split;
  }
}

TEST(Crc32cAgreementTest, BothWaysAgreeOnEveryLengthAndAlignment) {
  std::mt19937 random(2);
  std::string bytes;
  for (int i = 0; i < 200; ++i) bytes += static_cast<char>(random());
  for (size_t begin = 0; begin < 9; ++begin) {
    for (size_t size = 0; begin + size <= bytes.size(); ++size) {
      ASSERT_EQ(ExtendCrc32c(5, bytes.data() + begin, size), ExtendCrc32cByTables(5, bytes.data() + begin, size));
    }
  }
}

TEST(Crc32cAgreementTest, EveryChangedBitChangesIt) {
  std::string bytes(64, 'x');
  const uint32_t before = Crc32c(bytes);
  for (size_t bit = 0; bit < 8 * bytes.size(); ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_NE(Crc32c(bytes), before);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
  }
}

}  // namespace
}  // namespace gradferry
