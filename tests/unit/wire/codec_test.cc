// Numbers and bytes within bounds.
#include "impl/wire/codec.h"

#include <gtest/gtest.h>

#include <limits>

namespace gradferry {
namespace {

TEST(CodecTest, NumbersAreLittleEndianAndOfFixedWidth) {
  Writer writer(100);
  writer.Number<uint8_t>(1);
  writer.Number<uint16_t>(0x0203);
  writer.Number<uint32_t>(0x04050607);
  writer.Number<int64_t>(-2);
  writer.Number<double>(1.0);
  EXPECT_EQ(writer.Take(),
            std::string("\x01\x03\x02\x07\x06\x05\x04\xfe\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\xf0\x3f", 23));
}

TEST(CodecTest, ReaderGivesBackWhatWasWritten) {
  Writer writer(100);
  writer.Number(std::numeric_limits<int64_t>::min());
  writer.Raw("abc");
  writer.Number<uint16_t>(65535);
  const std::string bytes = writer.Take();
  Reader reader(bytes);
  int64_t number = 0;
  uint16_t last = 0;
  std::string_view raw;
  ASSERT_TRUE(reader.Number(&number));
  ASSERT_TRUE(reader.Raw(3, &raw));
  ASSERT_TRUE(reader.Number(&last));
  EXPECT_EQ(number, std::numeric_limits<int64_t>::min());
  EXPECT_EQ(raw, "abc");
  EXPECT_EQ(last, 65535);
  EXPECT_EQ(reader.left(), 0u);
}

TEST(CodecTest, ReaderStopsAtTheEnd) {
  Reader reader("1234567");
  uint64_t number = 42;
  std::string_view raw = "as it was";
  EXPECT_FALSE(reader.Number(&number));
  EXPECT_EQ(number, 42u);
  EXPECT_FALSE(reader.Raw(8, &raw));
  EXPECT_FALSE(reader.Raw(SIZE_MAX, &raw));
  EXPECT_EQ(raw, "as it was");
  EXPECT_EQ(reader.left(), 7u);
  EXPECT_TRUE(reader.Raw(7, &raw));
  EXPECT_TRUE(reader.Raw(0, &raw));
  EXPECT_FALSE(reader.Raw(1, &raw));
}

TEST(CodecTest, WriterStopsAtItsLimitAndStaysFull) {
  Writer writer(10);
  writer.Number<uint64_t>(1);
  EXPECT_FALSE(writer.full());
  writer.Raw("abc");
  EXPECT_TRUE(writer.full());
  EXPECT_EQ(writer.size(), 8u);
  writer.Number<uint8_t>(1);  // would fit, but would be in the wrong place
  EXPECT_EQ(writer.size(), 8u);
}

}  // namespace
}  // namespace gradferry
