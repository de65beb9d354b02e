// The release, for people (gf_build_info, metrics). Programs ask for the ABI's epoch and minor, which are in
// gradferry.h.
#pragma once

namespace gradferry {

inline constexpr char kRelease[] = "0.1.0";

}  // namespace gradferry
