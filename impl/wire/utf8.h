// Strings, names and error texts are UTF-8 on the wire: languages whose strings are Unicode by definition may rely on
// it. This is the check on arrival, and the repair of texts that must be sent whatever they hold.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace gradferry {

// Well-formed by RFC 3629: no overlong forms, surrogates or code points beyond U+10FFFF. NUL is a character.
bool IsUtf8(std::string_view text);

// At most max_bytes of the text, cut between characters, with '?' for each byte that is part of no character.
std::string CleanUtf8(std::string_view text, size_t max_bytes);

}  // namespace gradferry
