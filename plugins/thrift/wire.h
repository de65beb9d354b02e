// Thrift's binary protocol as far as this plugin writes and reads it by hand: numbers, big endian, and the bytes around
// the fields of `frame` in gradferry.thrift. One frame on the wire:
//
//   i32   length of all that follows
//   i32   0x80010004: version 1, one-way
//   i32   5, "frame"
//   i32   sequence number; 0
//   0B 00 01  field 1, binary:          i32 length, the header
//   0F 00 02  field 2, list of i64:     0A, i32 count, i64 the length of each segment
//   0F 00 03  field 3, list of binary:  0B, i32 count, for each segment: i32 length, its bytes
//   00    end of the arguments
#pragma once

#include <endian.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace gradferry::thrift {

// What the plugin takes: a header is kept in memory of ours until the host has seen it.
constexpr uint64_t kMaxHeader = 1024 * 1024;
constexpr uint32_t kMaxSegments = 64 * 1024;
constexpr uint64_t kMaxMessage = 0x7FFFFFFF;  // the length is an i32

// Sizes of the parts above.
constexpr size_t kLengthSize = 4;
constexpr size_t kPrefixSize = 28;      // until the header's bytes
constexpr size_t kListHeaderSize = 8;   // field 2 without its elements; field 3 as well
constexpr size_t kMessageStart = 13;    // version and name, which follow the length
constexpr size_t kSequenceOffset = 17;  // from the beginning of the frame
constexpr size_t kHeaderFieldOffset = 21;

constexpr char kFrameStart[kMessageStart + 1] =
    "\x80\x01\x00\x04\x00\x00\x00\x05"
    "frame";
constexpr char kHeaderField[] = {0x0B, 0x00, 0x01};
constexpr char kLengthsField[] = {0x0F, 0x00, 0x02, 0x0A};
constexpr char kSegmentsField[] = {0x0F, 0x00, 0x03, 0x0B};

inline void Store32(char* to, uint32_t value) {
  value = htobe32(value);
  std::memcpy(to, &value, sizeof(value));
}
inline void Store64(char* to, uint64_t value) {
  value = htobe64(value);
  std::memcpy(to, &value, sizeof(value));
}
inline uint32_t Load32(const char* from) {
  uint32_t value;
  std::memcpy(&value, from, sizeof(value));
  return be32toh(value);
}
inline uint64_t Load64(const char* from) {
  uint64_t value;
  std::memcpy(&value, from, sizeof(value));
  return be64toh(value);
}

// The bytes of a frame's descriptor, all before the first segment.
constexpr uint64_t DescriptorSize(uint64_t header_length, uint64_t segments) {
  return kPrefixSize + header_length + 2 * kListHeaderSize + 8 * segments;
}

}  // namespace gradferry::thrift
