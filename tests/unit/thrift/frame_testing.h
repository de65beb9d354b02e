// Frames as bytes, and back, without a connection.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <list>
#include <string>
#include <vector>

#include "plugins/thrift/frame_reader.h"
#include "plugins/thrift/frame_writer.h"
#include "tests/support/plugin/host.h"

namespace gradferry::thrift::testing {

using plugin_testing::Bytes;
using plugin_testing::Frame;

// What OutFrame makes of a frame.
inline std::string Encoded(const Frame& frame) {
  std::vector<gf_transport_segment> segments;
  for (const std::string& bytes : frame.segments) {
    segments.push_back({bytes.empty() ? nullptr : const_cast<char*>(bytes.data()), bytes.size()});
  }
  gf_transport_frame raw{};
  raw.struct_size = sizeof(raw);
  raw.segment_count = static_cast<uint32_t>(segments.size());
  raw.header = frame.header.data();
  raw.header_length = frame.header.size();
  raw.segments = segments.data();
  EXPECT_TRUE(CheckFrame(raw).ok()) << CheckFrame(raw).text;
  const OutFrame out(raw);
  std::string bytes;
  for (size_t i = 0; i < out.piece_count(); ++i) {
    bytes.append(static_cast<const char*>(out.pieces()[i].iov_base), out.pieces()[i].iov_len);
  }
  EXPECT_EQ(bytes.size(), out.total());
  return bytes;
}

// A reader with somebody who takes what it reads.
class Reading final : private FrameReader::Sink {
 public:
  // Feeds it the bytes, at most so many at a time as `most` says. Stops at the first error.
  Status Feed(const std::string& bytes, const std::function<size_t()>& most) {
    size_t fed = 0;
    while (fed < bytes.size()) {
      iovec pieces[FrameReader::kMaxPieces];
      const size_t count = reader_.Want(pieces);
      EXPECT_GE(count, 1u);
      EXPECT_LE(count, FrameReader::kMaxPieces);
      size_t left = std::min(std::max<size_t>(1, most()), bytes.size() - fed), took = 0;
      for (size_t i = 0; i < count && left > 0; ++i) {
        const size_t step = std::min(left, pieces[i].iov_len);
        std::memcpy(pieces[i].iov_base, bytes.data() + fed, step);
        fed += step;
        took += step;
        left -= step;
        room_ = std::max(room_, pieces[i].iov_len);
      }
      EXPECT_GT(took, 0u);
      if (Status status = reader_.Took(took); !status.ok()) return status;
    }
    return {};
  }
  Status Feed(const std::string& bytes) {
    return Feed(bytes, [] { return ~size_t{0}; });
  }

  const std::vector<Frame>& frames() const { return frames_; }
  const FrameReader& reader() const { return reader_; }
  uint64_t most_asked() const { return most_asked_; }  // of the host's memory, for one frame
  size_t room() const { return room_; }                // the largest piece

  uint64_t max_message = 0;
  std::vector<std::string> messages;
  int32_t refuse = GF_OK;

 private:
  Status OnDescriptor(const gf_transport_frame& frame, gf_transport_segment* segments) override {
    if (refuse != GF_OK) return {refuse, "refused"};
    coming_ = {};
    coming_.header.assign(static_cast<const char*>(frame.header), frame.header_length);
    uint64_t asked = 0;
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      asked += frame.segments[i].length;
      coming_.segments.emplace_back(frame.segments[i].length, '\0');
    }
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      if (frame.segments[i].length != 0) segments[i].data = coming_.segments[i].data();
    }
    most_asked_ = std::max(most_asked_, asked);
    return {};
  }
  void OnWholeFrame(uint64_t bytes) override {
    uint64_t sum = coming_.header.size();
    for (const std::string& segment : coming_.segments) sum += segment.size();
    EXPECT_EQ(bytes, sum);
    frames_.push_back(std::move(coming_));
  }
  uint64_t MaxMessage() override { return max_message; }
  Status OnMessage(std::string_view message) override {
    messages.emplace_back(message);
    return {};
  }

  FrameReader reader_{this};
  Frame coming_;
  std::vector<Frame> frames_;
  uint64_t most_asked_ = 0;
  size_t room_ = 0;
};

}  // namespace gradferry::thrift::testing
