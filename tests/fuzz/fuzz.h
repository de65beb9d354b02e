// What the fuzz targets share. Each *_fuzz.cc has one libFuzzer entry, LLVMFuzzerTestOneInput: some bytes, decoded by
// one decoder of ours. What it must never do is crash, hang, or take memory out of proportion; what a decoder makes of
// the bytes must be the same when it is written and read again.
//
// Built with --config=fuzz they are fuzzers (./dev soak fuzz). Built as usual, replay.cc runs the entry over the
// corpus, so that whatever was found once stays found; corpus_main.cc makes the corpus from real messages.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "impl/wire/frame.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace gradferry {

inline std::string_view AsText(const uint8_t* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }

// Small enough that no input takes long, and that each limit is met.
inline WireLimits FuzzLimits() {
  WireLimits limits;
  limits.message_bytes = 1 << 20;
  limits.header_bytes = 1 << 16;
  limits.tensors = 1000;
  limits.values = 10000;
  return limits;
}

// Ends the process: what must hold does not.
inline void Require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "fuzz: %s\n", what);
  std::abort();
}

// Decodes a frame whose segments lie one after the other in `bytes`, repeated as often as is needed, and requires that
// what was understood is written again in the same way.
void DecodeWhole(std::string_view header, const std::vector<uint64_t>& lengths, std::string_view bytes);

}  // namespace gradferry
