// Frames as messages of TensorPipe, and what a peer may say that is none.
#include "plugins/tensorpipe/framing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <list>
#include <random>
#include <string>
#include <vector>

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

constexpr uint64_t kAnySegment = std::numeric_limits<uint64_t>::max();

pipe::Device Cpu() { return pipe::Device(pipe::kCpuDeviceType, 0); }

// What arrives when a message is sent.
pipe::Descriptor DescriptorOf(const pipe::Message& message) {
  pipe::Descriptor descriptor;
  descriptor.metadata = message.metadata;
  for (const auto& payload : message.payloads) {
    descriptor.payloads.emplace_back();
    descriptor.payloads.back().length = payload.length;
  }
  for (const auto& tensor : message.tensors) {
    descriptor.tensors.emplace_back();
    descriptor.tensors.back().length = tensor.length;
    descriptor.tensors.back().sourceDevice = Cpu();
    descriptor.tensors.back().targetDevice = Cpu();
  }
  return descriptor;
}

struct Sample {
  explicit Sample(const std::vector<uint64_t>& lengths) {
    uint64_t total = 0;
    for (uint64_t length : lengths) total += length;
    memory.resize(total);
    uint64_t offset = 0;
    for (uint64_t length : lengths) {
      segments.push_back({length > 0 ? memory.data() + offset : nullptr, length});
      offset += length;
    }
    frame.struct_size = sizeof(frame);
    frame.segment_count = static_cast<uint32_t>(segments.size());
    frame.header = header.data();
    frame.header_length = header.size();
    frame.segments = segments.data();
    status = ToMessage(frame, kAnySegment, &message);
  }

  std::string header = "the header";
  std::string memory;
  std::vector<gf_transport_segment> segments;
  gf_transport_frame frame{};
  pipe::Message message;
  Status status;
};

TEST(Framing, ChoosesHowASegmentTravelsByItsSize) {
  const Sample sample({0, 1, kPayloadFrom, kTensorFrom, kPayloadFrom - 1, 0, kTensorFrom - 1, 3 * kTensorFrom});
  ASSERT_TRUE(sample.status.ok()) << sample.status.text;
  ASSERT_EQ(sample.message.payloads.size(), 2u);
  EXPECT_EQ(sample.message.payloads[0].data, sample.segments[2].data);
  EXPECT_EQ(sample.message.payloads[1].length, kTensorFrom - 1);
  ASSERT_EQ(sample.message.tensors.size(), 2u);
  EXPECT_EQ(sample.message.tensors[1].length, 3 * kTensorFrom);
  EXPECT_TRUE(*sample.message.tensors[0].targetDevice == Cpu());
  EXPECT_EQ(sample.message.metadata.size(), 5 + 2 + 2 * 4 + sample.header.size() + 1 + kPayloadFrom - 1);
}

TEST(Framing, BoundsWhatTravelsInTheMetadata) {
  const Sample sample({kMaxInline / 2, kMaxInline / 2, 1, 0, 7});
  EXPECT_EQ(sample.message.payloads.size(), 2u);
}

TEST(Framing, GivesBackHeaderAndSegmentsInOrder) {
  const std::vector<uint64_t> lengths = {5, 0, kTensorFrom,     7, kPayloadFrom,
                                         0, 0, kTensorFrom * 2, 1, kPayloadFrom + 3};
  Sample sample(lengths);
  sample.memory.replace(0, 5, "first");
  sample.memory.replace(5 + kTensorFrom, 7, "seventh");
  ASSERT_TRUE(ToMessage(sample.frame, kAnySegment, &sample.message).ok());
  const pipe::Descriptor descriptor = DescriptorOf(sample.message);
  Announcement announcement;
  const Status status = FromDescriptor(descriptor, &announcement);
  ASSERT_TRUE(status.ok()) << status.text;
  EXPECT_EQ(announcement.header, sample.header);
  ASSERT_EQ(announcement.segments.size(), lengths.size());
  for (size_t i = 0; i < lengths.size(); ++i) {
    EXPECT_EQ(announcement.segments[i].length, lengths[i]);
    EXPECT_EQ(announcement.segments[i].data, nullptr);
  }
  // What is inline is copied to the host's memory, and that of the others goes where each travels.
  std::string memory(sample.memory.size(), '?');
  std::vector<gf_transport_segment> filled = sample.segments;
  for (gf_transport_segment& segment : filled) {
    if (segment.length == 0) continue;
    segment.data = memory.data() + (static_cast<char*>(segment.data) - sample.memory.data());
  }
  pipe::Allocation allocation;
  ASSERT_TRUE(ToAllocation(announcement, filled, &allocation).ok());
  EXPECT_EQ(memory.substr(0, 6), "first?");
  EXPECT_EQ(memory.substr(5 + kTensorFrom, 8), "seventh?");
  ASSERT_EQ(allocation.payloads.size(), 2u);
  EXPECT_EQ(allocation.payloads[1].data, filled[9].data);
  ASSERT_EQ(allocation.tensors.size(), 2u);
  EXPECT_EQ(allocation.tensors[1].buffer.unwrap<pipe::CpuBuffer>().ptr, filled[7].data);
  for (size_t i : {0, 4, 7}) {
    std::vector<gf_transport_segment> forgotten = filled;
    forgotten[i].data = nullptr;
    EXPECT_EQ(ToAllocation(announcement, forgotten, &allocation).code, GF_INTERNAL);
  }
}

TEST(Framing, TellsAWelcomeFromAFrame) {
  pipe::Descriptor welcome = DescriptorOf(WelcomeMessage());
  EXPECT_TRUE(IsWelcome(welcome));
  Announcement announcement;
  EXPECT_EQ(FromDescriptor(welcome, &announcement).code, GF_DATA_LOSS);
  welcome.payloads.emplace_back();
  EXPECT_FALSE(IsWelcome(welcome));
  EXPECT_FALSE(IsWelcome(DescriptorOf(Sample({}).message)));
}

TEST(Framing, RefusesFramesBeyondItsLimits) {
  Sample sample({1});
  sample.frame.header_length = 0;
  EXPECT_EQ(ToMessage(sample.frame, kAnySegment, &sample.message).code, GF_INVALID_ARGUMENT);
  sample.frame.header_length = kMaxHeader + 1;
  EXPECT_EQ(ToMessage(sample.frame, kAnySegment, &sample.message).code, GF_OUT_OF_RANGE);
  sample.frame.header_length = 1;
  sample.frame.segment_count = kMaxSegments + 1;
  EXPECT_EQ(ToMessage(sample.frame, kAnySegment, &sample.message).code, GF_OUT_OF_RANGE);
  sample.frame.segment_count = 1;
  EXPECT_TRUE(ToMessage(sample.frame, 1, &sample.message).ok());
  EXPECT_EQ(ToMessage(sample.frame, 0, &sample.message).code, GF_OUT_OF_RANGE);
  sample.segments[0].data = nullptr;
  EXPECT_EQ(ToMessage(sample.frame, kAnySegment, &sample.message).code, GF_INVALID_ARGUMENT);
}

// A descriptor that is right, with one thing made wrong. Its metadata: 1, 3 0 0 0, carriages 0b11'10'01, length 4 0 0
// 0, the header, four bytes.
template <class Change>
Status Changed(Change change) {
  const Sample sample({kPayloadFrom, kTensorFrom, 4});
  pipe::Descriptor descriptor = DescriptorOf(sample.message);
  Announcement announcement;
  EXPECT_TRUE(FromDescriptor(descriptor, &announcement).ok());
  EXPECT_EQ(descriptor.metadata[5], 0x39);
  change(descriptor);
  return FromDescriptor(descriptor, &announcement);
}

TEST(Framing, RefusesDescriptorsThatContradictThemselves) {
  using D = pipe::Descriptor;
  const std::vector<std::function<void(D&)>> lies = {
      [](D& d) { d.metadata.clear(); },
      [](D& d) { d.metadata.resize(4); },
      [](D& d) { d.metadata.resize(5); },
      [](D& d) { d.metadata.resize(9); },       // within the inline length
      [](D& d) { d.metadata.resize(10 + 4); },  // no header
      [](D& d) { d.metadata[0] = 2; },          // another format
      [](D& d) { d.metadata[1] = 2; },          // a segment less: bits too many
      [](D& d) { d.metadata[1] = 1; },
      [](D& d) { d.metadata[4] = '\x7F'; },  // two thousand million segments
      [](D& d) { d.metadata[5] = 0x15; },    // payloads only
      [](D& d) { d.metadata[5] = 0x2A; },    // tensors only
      [](D& d) { d.metadata[5] = 0x3F; },    // inline only
      [](D& d) { d.metadata[5] = 0x79; },    // bits behind the last segment
      [](D& d) { d.metadata[6] = 0; },       // an empty inline segment
      [](D& d) { d.metadata[6] = 100; },     // inline bytes that are not there
      [](D& d) { d.metadata[9] = '\xFF'; },
      [](D& d) { d.metadata += std::string(kMaxHeader, 'x'); },  // too long a header
      [](D& d) { d.payloads.clear(); },
      [](D& d) { d.payloads.emplace_back(); },
      [](D& d) { d.payloads[0].length = 0; },
      [](D& d) { d.tensors.clear(); },
      [](D& d) { d.tensors.push_back(d.tensors[0]); },
      [](D& d) { d.tensors[0].length = 0; },
      [](D& d) { d.tensors[0].sourceDevice = pipe::Device("cuda", 0); },
      [](D& d) { d.tensors[0].targetDevice = pipe::Device("cpu", 1); },
      [](D& d) { d.tensors[0].targetDevice.reset(); },
      [](D& d) { d.payloads[0].length = d.tensors[0].length = uint64_t{1} << 63; },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    const Status status = Changed(lies[i]);
    EXPECT_EQ(status.code, GF_DATA_LOSS) << i;
    EXPECT_FALSE(status.text.empty());
  }
}

TEST(Framing, NeverReadsBeyondRandomBytes) {
  std::mt19937 random(7);
  int good = 0;
  for (int i = 0; i < 200000; ++i) {
    pipe::Descriptor descriptor;
    descriptor.metadata.resize(random() % 40);
    for (char& byte : descriptor.metadata) byte = static_cast<char>(random());
    if (!descriptor.metadata.empty()) descriptor.metadata[0] = 1;
    if (descriptor.metadata.size() > 4) {
      descriptor.metadata[1] = static_cast<char>(random() % 5);
      std::fill_n(descriptor.metadata.begin() + 2, 3, '\0');
    }
    for (size_t j = 6; j < descriptor.metadata.size(); ++j) {
      if (random() % 2 == 0) descriptor.metadata[j] = static_cast<char>(random() % 4);
    }
    for (unsigned j = 0; j < random() % 4; ++j) {
      descriptor.payloads.emplace_back();
      descriptor.payloads.back().length = random() % 3;
    }
    Announcement announcement;
    if (!FromDescriptor(descriptor, &announcement).ok()) continue;
    ++good;
    EXPECT_LT(announcement.header.size() + announcement.inline_bytes.size(), descriptor.metadata.size());
    std::list<std::string> memory;
    std::vector<gf_transport_segment> filled;
    for (const gf_transport_segment& segment : announcement.segments) {
      memory.emplace_back(segment.length, '\0');
      filled.push_back({memory.back().data(), segment.length});
    }
    pipe::Allocation allocation;
    EXPECT_TRUE(ToAllocation(announcement, filled, &allocation).ok());
    EXPECT_EQ(allocation.payloads.size(), descriptor.payloads.size());
  }
  EXPECT_GT(good, 100);
}

}  // namespace
}  // namespace gradferry::tp
