// See utf8.h.
#include "impl/wire/utf8.h"

#include <cstdint>
#include <cstring>

namespace gradferry {
namespace {

bool IsContinuation(unsigned char byte) { return (byte & 0xC0) == 0x80; }

// The length of the character that starts the text, 0 when none does. The second byte's range rules out overlong forms
// (E0, F0), surrogates (ED) and what lies beyond U+10FFFF (F4).
size_t FirstCharacter(std::string_view text) {
  const auto at = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  if (text.size() < length) return 0;
  const unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  const unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  if (at(1) < low || at(1) > high) return 0;
  for (size_t i = 2; i < length; ++i) {
    if (!IsContinuation(at(i))) return 0;
  }
  return length;
}

// How many of the first bytes are ASCII, counted in eights.
size_t AsciiBlocks(std::string_view text) {
  size_t size = 0;
  for (; size + 8 <= text.size(); size += 8) {
    uint64_t block;
    std::memcpy(&block, text.data() + size, 8);
    if ((block & 0x8080808080808080u) != 0) break;
  }
  return size;
}

}  // namespace

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    text.remove_prefix(AsciiBlocks(text));
    // A block that is not all ASCII, or the end.
    for (size_t step = 0; step < 8 && !text.empty(); ++step) {
      const size_t length = FirstCharacter(text);
      if (length == 0) return false;
      text.remove_prefix(length);
    }
  }
  return true;
}

std::string CleanUtf8(std::string_view text, size_t max_bytes) {
  std::string clean;
  while (!text.empty()) {
    const size_t length = FirstCharacter(text);
    if (clean.size() + (length == 0 ? 1 : length) > max_bytes) break;
    if (length == 0) {
      clean += '?';
      text.remove_prefix(1);
    } else {
      clean += text.substr(0, length);
      text.remove_prefix(length);
    }
  }
  return clean;
}

}  // namespace gradferry
