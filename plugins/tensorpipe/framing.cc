#include "plugins/tensorpipe/framing.h"

#include <tensorpipe/common/cpu_buffer.h>

#include <limits>
#include <string>

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

constexpr unsigned char kFormat = 1;
constexpr unsigned char kWelcome = 0;
constexpr size_t kFixedPrefix = 5;

enum Carriage : unsigned { kEmpty = 0, kPayload = 1, kTensor = 2 };

pipe::Device Cpu() { return pipe::Device{pipe::kCpuDeviceType, 0}; }

size_t PrefixSize(uint32_t count) { return kFixedPrefix + (count + 3) / 4; }

Carriage CarriageOf(uint64_t length) {
  if (length == 0) return kEmpty;
  return length < kTensorFrom ? kPayload : kTensor;
}

std::string MakePrefix(const gf_transport_frame& frame) {
  const uint32_t count = frame.segment_count;
  std::string prefix(PrefixSize(count), '\0');
  prefix[0] = static_cast<char>(kFormat);
  for (int i = 0; i < 4; ++i) prefix[1 + i] = static_cast<char>(count >> (8 * i));
  for (uint32_t i = 0; i < count; ++i) {
    const unsigned bits = CarriageOf(frame.segments[i].length) << (2 * (i % 4));
    char& byte = prefix[kFixedPrefix + i / 4];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | bits);
  }
  return prefix;
}

void AddSegment(const gf_transport_segment& segment, pipe::Message* message) {
  switch (CarriageOf(segment.length)) {
    case kEmpty:
      return;
    case kPayload:
      message->payloads.emplace_back();
      message->payloads.back().data = segment.data;
      message->payloads.back().length = segment.length;
      return;
    case kTensor:
      message->tensors.emplace_back();
      message->tensors.back().buffer = pipe::CpuBuffer{segment.data};
      message->tensors.back().length = segment.length;
      // Left open, it would cost a reply of the receiver.
      message->tensors.back().targetDevice = Cpu();
      return;
  }
}

Status Bad(const std::string& what) { return {GF_DATA_LOSS, "the peer sent a frame " + what}; }

// Payloads and tensors of a descriptor in the order of the segments.
class Reader {
 public:
  explicit Reader(const pipe::Descriptor& descriptor) : descriptor_(descriptor) {}

  Status Next(unsigned carriage, uint64_t* length) {
    *length = 0;
    if (carriage == kEmpty) return {};
    if (carriage == kPayload) return NextPayload(length);
    if (carriage == kTensor) return NextTensor(length);
    return Bad("with a segment that travels in an unknown way");
  }

  bool AtEnd() const { return payload_ == descriptor_.payloads.size() && tensor_ == descriptor_.tensors.size(); }

 private:
  Status NextPayload(uint64_t* length) {
    if (payload_ == descriptor_.payloads.size()) return Bad("with fewer payloads than its prefix names");
    *length = descriptor_.payloads[payload_++].length;
    return *length > 0 ? Status{} : Bad("with an empty payload");
  }

  Status NextTensor(uint64_t* length) {
    if (tensor_ == descriptor_.tensors.size()) return Bad("with fewer tensors than its prefix names");
    const pipe::Descriptor::Tensor& tensor = descriptor_.tensors[tensor_++];
    // TensorPipe throws on a thread of its own when it has no channel between the two devices.
    const bool on_cpu =
        tensor.sourceDevice == Cpu() && tensor.targetDevice.has_value() && *tensor.targetDevice == Cpu();
    if (!on_cpu) return Bad("with a tensor that is not in main memory");
    *length = tensor.length;
    return *length > 0 ? Status{} : Bad("with an empty tensor");
  }

  const pipe::Descriptor& descriptor_;
  size_t payload_ = 0;
  size_t tensor_ = 0;
};

// The prefix' fixed part and the bounds of everything in the metadata.
Status ReadPrefix(std::string_view metadata, uint32_t* count, std::string_view* carriages, std::string_view* header) {
  if (metadata.size() < kFixedPrefix) return Bad("that is too short");
  if (static_cast<unsigned char>(metadata[0]) != kFormat) return Bad("of an unknown format");
  *count = 0;
  for (int i = 0; i < 4; ++i) *count |= static_cast<uint32_t>(static_cast<unsigned char>(metadata[1 + i])) << (8 * i);
  if (*count > kMaxSegments) return Bad("with " + std::to_string(*count) + " segments");
  const size_t prefix_size = PrefixSize(*count);
  if (metadata.size() <= prefix_size) return Bad("without a header");
  if (metadata.size() - prefix_size > kMaxHeader) return Bad("whose header is too long");
  *carriages = metadata.substr(kFixedPrefix, prefix_size - kFixedPrefix);
  *header = metadata.substr(prefix_size);
  if (*count % 4 != 0 && (static_cast<unsigned char>(carriages->back()) >> (2 * (*count % 4))) != 0) {
    return Bad("whose prefix has bits too many");
  }
  return {};
}

}  // namespace

Status ToMessage(const gf_transport_frame& frame, uint64_t max_segment, pipe::Message* out) {
  if (frame.header == nullptr || frame.header_length == 0) {
    return {GF_INVALID_ARGUMENT, "a frame needs a header of at least one byte"};
  }
  if (frame.header_length > kMaxHeader) {
    return {GF_OUT_OF_RANGE, "a header of " + std::to_string(frame.header_length) + " bytes exceeds the limit of " +
                                 std::to_string(kMaxHeader)};
  }
  if (frame.segment_count > kMaxSegments) {
    return {GF_OUT_OF_RANGE, "a frame of " + std::to_string(frame.segment_count) + " segments exceeds the limit of " +
                                 std::to_string(kMaxSegments)};
  }
  pipe::Message message;
  message.metadata = MakePrefix(frame);
  message.metadata.append(static_cast<const char*>(frame.header), frame.header_length);
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    if (frame.segments[i].length != 0 && frame.segments[i].data == nullptr) {
      return {GF_INVALID_ARGUMENT, "segment " + std::to_string(i) + " has a length but no memory"};
    }
    if (frame.segments[i].length > max_segment) {
      return {GF_OUT_OF_RANGE, "segment " + std::to_string(i) + " has " + std::to_string(frame.segments[i].length) +
                                   " bytes, and the shm transport carries at most " + std::to_string(max_segment)};
    }
    AddSegment(frame.segments[i], &message);
  }
  *out = std::move(message);
  return {};
}

pipe::Message WelcomeMessage() {
  pipe::Message message;
  message.metadata.assign(1, static_cast<char>(kWelcome));
  return message;
}

bool IsWelcome(const pipe::Descriptor& descriptor) {
  return descriptor.metadata.size() == 1 && static_cast<unsigned char>(descriptor.metadata[0]) == kWelcome &&
         descriptor.payloads.empty() && descriptor.tensors.empty();
}

Status FromDescriptor(const pipe::Descriptor& descriptor, Announcement* out) {
  uint32_t count = 0;
  std::string_view carriages;
  Announcement announcement;
  if (Status status = ReadPrefix(descriptor.metadata, &count, &carriages, &announcement.header); !status.ok()) {
    return status;
  }
  Reader reader(descriptor);
  uint64_t total = 0;
  announcement.segments.resize(count);
  announcement.is_tensor.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    const unsigned carriage = (static_cast<unsigned char>(carriages[i / 4]) >> (2 * (i % 4))) & 3u;
    uint64_t length = 0;
    if (Status status = reader.Next(carriage, &length); !status.ok()) return status;
    if (length > std::numeric_limits<uint64_t>::max() / 2 - total) return Bad("of impossible size");
    total += length;
    announcement.segments[i] = {nullptr, length};
    announcement.is_tensor[i] = carriage == kTensor;
  }
  if (!reader.AtEnd()) return Bad("with more payloads or tensors than its prefix names");
  *out = std::move(announcement);
  return {};
}

Status ToAllocation(const Announcement& announcement, const std::vector<gf_transport_segment>& filled,
                    pipe::Allocation* out) {
  pipe::Allocation allocation;
  for (size_t i = 0; i < filled.size(); ++i) {
    if (announcement.segments[i].length == 0) continue;
    if (filled[i].data == nullptr) {
      return {GF_INTERNAL, "the host gave no memory for segment " + std::to_string(i) + " of a frame that it took"};
    }
    if (announcement.is_tensor[i]) {
      allocation.tensors.emplace_back();
      allocation.tensors.back().buffer = pipe::CpuBuffer{filled[i].data};
    } else {
      allocation.payloads.emplace_back();
      allocation.payloads.back().data = filled[i].data;
    }
  }
  *out = std::move(allocation);
  return {};
}

uint64_t TotalBytes(uint64_t header_length, const gf_transport_segment* segments, size_t count) {
  uint64_t total = header_length;
  for (size_t i = 0; i < count; ++i) total += segments[i].length;
  return total;
}

}  // namespace gradferry::tp
