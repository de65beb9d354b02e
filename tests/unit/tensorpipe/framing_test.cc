// Frames as messages of TensorPipe, and what a peer may say that is none.
#include "plugins/tensorpipe/framing.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <limits>
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

TEST(Framing, SendsSmallSegmentsAsPayloadsLargeOnesAsTensorsAndEmptyOnesNot) {
  const Sample sample({0, 1, kTensorFrom, kTensorFrom - 1, 0, 3 * kTensorFrom});
  ASSERT_TRUE(sample.status.ok()) << sample.status.text;
  ASSERT_EQ(sample.message.payloads.size(), 2u);
  EXPECT_EQ(sample.message.payloads[0].data, sample.segments[1].data);
  EXPECT_EQ(sample.message.payloads[1].length, kTensorFrom - 1);
  ASSERT_EQ(sample.message.tensors.size(), 2u);
  EXPECT_EQ(sample.message.tensors[1].length, 3 * kTensorFrom);
  EXPECT_TRUE(*sample.message.tensors[0].targetDevice == Cpu());
}

TEST(Framing, GivesBackHeaderAndLengthsInOrder) {
  const std::vector<uint64_t> lengths = {5, 0, kTensorFrom, 7, 0, 0, kTensorFrom * 2, 1, 9};
  const Sample sample(lengths);
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
  // The memory of the host goes where each segment travels.
  std::vector<gf_transport_segment> filled = sample.segments;
  pipe::Allocation allocation;
  ASSERT_TRUE(ToAllocation(announcement, filled, &allocation).ok());
  ASSERT_EQ(allocation.payloads.size(), 4u);
  EXPECT_EQ(allocation.payloads[1].data, sample.segments[3].data);
  ASSERT_EQ(allocation.tensors.size(), 2u);
  EXPECT_EQ(allocation.tensors[1].buffer.unwrap<pipe::CpuBuffer>().ptr, sample.segments[6].data);
  filled[8].data = nullptr;
  EXPECT_EQ(ToAllocation(announcement, filled, &allocation).code, GF_INTERNAL);
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

// A descriptor that is right, with one thing made wrong.
template <class Change>
Status Changed(Change change) {
  const Sample sample({5, kTensorFrom, 0});
  pipe::Descriptor descriptor = DescriptorOf(sample.message);
  Announcement announcement;
  EXPECT_TRUE(FromDescriptor(descriptor, &announcement).ok());
  change(descriptor);
  return FromDescriptor(descriptor, &announcement);
}

TEST(Framing, RefusesDescriptorsThatContradictThemselves) {
  using D = pipe::Descriptor;
  const std::vector<std::function<void(D&)>> lies = {
      [](D& d) { d.metadata.clear(); },
      [](D& d) { d.metadata.resize(4); },
      [](D& d) { d.metadata.resize(6); },                        // no header
      [](D& d) { d.metadata[0] = 2; },                           // another format
      [](D& d) { d.metadata[1] = 1; },                           // the tensor is behind the last segment
      [](D& d) { d.metadata[4] = '\x7F'; },                      // two thousand million segments
      [](D& d) { d.metadata[5] = static_cast<char>(0x3F); },     // unknown carriages
      [](D& d) { d.metadata[5] = static_cast<char>(0x49); },     // bits behind the last segment
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
  for (int i = 0; i < 20000; ++i) {
    pipe::Descriptor descriptor;
    descriptor.metadata.resize(random() % 40);
    for (char& byte : descriptor.metadata) byte = static_cast<char>(random());
    if (!descriptor.metadata.empty()) descriptor.metadata[0] = 1;
    if (descriptor.metadata.size() > 4) std::fill_n(descriptor.metadata.begin() + 2, 3, '\0');
    for (unsigned j = 0; j < random() % 4; ++j) {
      descriptor.payloads.emplace_back();
      descriptor.payloads.back().length = random() % 3;
    }
    Announcement announcement;
    if (!FromDescriptor(descriptor, &announcement).ok()) continue;
    EXPECT_LE(announcement.header.size(), descriptor.metadata.size());
    EXPECT_GE(announcement.segments.size(), descriptor.payloads.size());
  }
}

}  // namespace
}  // namespace gradferry::tp
