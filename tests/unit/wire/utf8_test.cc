// UTF-8: what is refused, and what becomes of texts that are not.
#include "impl/wire/utf8.h"

#include <gtest/gtest.h>

namespace gradferry {
namespace {

std::string EncodedCodePoint(uint32_t code) {
  std::string text;
  if (code < 0x80) {
    text += static_cast<char>(code);
  } else if (code < 0x800) {
    text += static_cast<char>(0xC0 | code >> 6);
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    text += static_cast<char>(0xE0 | code >> 12);
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    text += static_cast<char>(0xF0 | code >> 18);
    text += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    text += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    text += static_cast<char>(0x80 | (code & 0x3F));
  }
  return text;
}

TEST(Utf8Test, AcceptsEveryCodePointButSurrogates) {
  for (uint32_t code = 0; code <= 0x110000; ++code) {
    const bool valid = code <= 0x10FFFF && (code < 0xD800 || code > 0xDFFF);
    ASSERT_EQ(IsUtf8(EncodedCodePoint(code)), valid) << std::hex << code;
  }
}

TEST(Utf8Test, RefusesOverlongStrayAndCutCharacters) {
  for (const char* text :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF",
        "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x9A", "\xC3(", "\xE2\x82(", "a\xC3\xBC\xBC"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
    // Also where whole blocks are looked at.
    EXPECT_FALSE(IsUtf8("sixteen letters." + std::string(text))) << text;
    EXPECT_FALSE(IsUtf8(std::string(text) + "sixteen letters.")) << text;
  }
}

TEST(Utf8Test, AcceptsLongMixedText) {
  std::string text;
  for (int i = 0; i < 100; ++i)
    text += std::string(i % 11, 'a') + "\xC3\xBC" + std::string(i % 7, 'b') + "\xF0\x9F\x9A\xA2";
  EXPECT_TRUE(IsUtf8(text));
  EXPECT_TRUE(IsUtf8(std::string(9, '\0')));
  EXPECT_TRUE(IsUtf8(""));
}

TEST(Utf8Test, CleaningReplacesBadBytesAndCutsBetweenCharacters) {
  EXPECT_EQ(CleanUtf8("a\xFF\xC3\xBC\xE2\x82", 100), "a?\xC3\xBC??");
  EXPECT_EQ(CleanUtf8("a\xC3\xBC", 2), "a");
  EXPECT_EQ(CleanUtf8("a\xC3\xBC", 3), "a\xC3\xBC");
  EXPECT_EQ(CleanUtf8("abc", 0), "");
}

}  // namespace
}  // namespace gradferry
