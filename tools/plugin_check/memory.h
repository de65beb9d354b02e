// Memory that notices who touches it when: each block has pages of its own with one that nobody may touch behind its
// last byte, may be made read-only, and can be taken away. A plugin that touches it then is stopped, and the rule
// named.
#pragma once

#include <cstddef>
#include <cstdint>

namespace gradferry::check {

enum class BlockUse : uint8_t {
  kSentBytes,   // header and segments of a frame that is sent
  kSentStruct,  // its struct and array of segments
  kReceived,    // what the host gave for a frame that arrives
  kBuffer,      // a buffer for a text
};

// Copies of a Block are the same block. It is never unmapped while the process lives, so that it stays known.
class Block {
 public:
  Block() = default;
  // length may be 0.
  Block(size_t length, BlockUse use);

  char* data() const { return data_; }
  size_t length() const { return length_; }

  void MakeReadOnly() const;
  // It is the host's again: whoever touches it now breaks a rule.
  void TakeAway() const;

 private:
  char* base_ = nullptr;
  size_t pages_ = 0;  // bytes of whole pages, without the one behind
  char* data_ = nullptr;
  size_t length_ = 0;
  size_t index_ = 0;
};

// Before the plugin is loaded: SIGSEGV and SIGBUS name the rule when it was a block that was touched.
void WatchBlocks();

}  // namespace gradferry::check
