#include "plugins/tensorpipe/framing.h"

#include <tensorpipe/common/cpu_buffer.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

constexpr unsigned char kFormat = 1;
constexpr unsigned char kLendingFormat = 2;
constexpr unsigned char kWelcome = 0;
constexpr size_t kFixedPrefix = 5;

pipe::Device Cpu() { return pipe::Device{pipe::kCpuDeviceType, 0}; }

void AppendNumber(uint32_t number, std::string* out) {
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(number >> (8 * i)));
}

void AppendLong(uint64_t number, std::string* out) {
  AppendNumber(static_cast<uint32_t>(number), out);
  AppendNumber(static_cast<uint32_t>(number >> 32), out);
}

// Of at least four bytes.
uint32_t NumberAt(const char* bytes) {
  uint32_t number = 0;
  for (int i = 0; i < 4; ++i) number |= static_cast<uint32_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  return number;
}

// Of at least eight bytes.
uint64_t LongAt(const char* bytes) { return NumberAt(bytes) | static_cast<uint64_t>(NumberAt(bytes + 4)) << 32; }

size_t CarriagesSize(uint32_t count) { return (count + 3) / 4; }

// Chooses for segment after segment.
class Chooser {
 public:
  Carriage Next(uint64_t length) {
    if (length == 0) return Carriage::kEmpty;
    if (length >= kTensorFrom) return Carriage::kTensor;
    if (length >= kPayloadFrom || inline_ + length > kMaxInline) return Carriage::kPayload;
    inline_ += length;
    return Carriage::kInline;
  }

 private:
  uint64_t inline_ = 0;
};

// number: null unless tensors are lent.
std::string MakeMetadata(const gf_transport_frame& frame, const std::vector<Carriage>& carriages,
                         const uint64_t* number) {
  const uint32_t count = frame.segment_count;
  std::string metadata;
  metadata.reserve(kFixedPrefix + CarriagesSize(count) + 4 * count + frame.header_length + kMaxInline);
  metadata.push_back(static_cast<char>(number == nullptr ? kFormat : kLendingFormat));
  AppendNumber(count, &metadata);
  metadata.resize(kFixedPrefix + CarriagesSize(count));
  for (uint32_t i = 0; i < count; ++i) {
    const unsigned bits = static_cast<unsigned>(carriages[i]) << (2 * (i % 4));
    char& byte = metadata[kFixedPrefix + i / 4];
    byte = static_cast<char>(static_cast<unsigned char>(byte) | bits);
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (carriages[i] == Carriage::kInline) AppendNumber(static_cast<uint32_t>(frame.segments[i].length), &metadata);
  }
  if (number != nullptr) AppendLong(*number, &metadata);
  for (uint32_t i = 0; i < count && number != nullptr; ++i) {
    if (carriages[i] != Carriage::kTensor) continue;
    AppendLong(reinterpret_cast<uintptr_t>(frame.segments[i].data), &metadata);
    AppendLong(frame.segments[i].length, &metadata);
  }
  metadata.append(static_cast<const char*>(frame.header), frame.header_length);
  for (uint32_t i = 0; i < count; ++i) {
    if (carriages[i] != Carriage::kInline) continue;
    metadata.append(static_cast<const char*>(frame.segments[i].data), frame.segments[i].length);
  }
  return metadata;
}

void AddSegment(const gf_transport_segment& segment, Carriage carriage, pipe::Message* message) {
  if (carriage == Carriage::kPayload) {
    message->payloads.emplace_back();
    message->payloads.back().data = segment.data;
    message->payloads.back().length = segment.length;
  } else if (carriage == Carriage::kTensor) {
    message->tensors.emplace_back();
    message->tensors.back().buffer = pipe::CpuBuffer{segment.data};
    message->tensors.back().length = segment.length;
    // Left open, it would cost a reply of the receiver.
    message->tensors.back().targetDevice = Cpu();
  }
}

Status CheckFrame(const gf_transport_frame& frame, uint64_t max_segment) {
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
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    const uint64_t length = frame.segments[i].length;
    if (length != 0 && frame.segments[i].data == nullptr) {
      return {GF_INVALID_ARGUMENT, "segment " + std::to_string(i) + " has a length but no memory"};
    }
    if (length > max_segment) {
      return {GF_OUT_OF_RANGE, "segment " + std::to_string(i) + " has " + std::to_string(length) +
                                   " bytes, and the shm transport carries at most " + std::to_string(max_segment)};
    }
  }
  return {};
}

Status Bad(const std::string& what) { return {GF_DATA_LOSS, "the peer sent a frame " + what}; }

// The parts of the metadata. Everything is checked against its length.
struct Metadata {
  uint32_t count = 0;
  std::vector<Carriage> carriages;
  std::vector<uint32_t> inline_lengths;
  bool lends = false;
  uint64_t number = 0;
  std::vector<uint64_t> addresses;
  std::vector<uint64_t> lent_lengths;
  std::string_view header;
  std::string_view inline_bytes;
};

Status ReadCarriages(std::string_view bytes, Metadata* out) {
  out->carriages.reserve(out->count);
  for (uint32_t i = 0; i < out->count; ++i) {
    out->carriages.push_back(static_cast<Carriage>((static_cast<unsigned char>(bytes[i / 4]) >> (2 * (i % 4))) & 3u));
  }
  const bool spare_bits = out->count % 4 != 0;
  if (spare_bits && (static_cast<unsigned char>(bytes.back()) >> (2 * (out->count % 4))) != 0) {
    return Bad("whose prefix has bits too many");
  }
  return {};
}

Status ReadLent(std::string_view* bytes, Metadata* out) {
  if (bytes->size() < 8) return Bad("whose prefix is cut off");
  out->number = LongAt(bytes->data());
  bytes->remove_prefix(8);
  for (Carriage carriage : out->carriages) {
    if (carriage != Carriage::kTensor) continue;
    if (bytes->size() < 16) return Bad("whose prefix is cut off");
    out->addresses.push_back(LongAt(bytes->data()));
    out->lent_lengths.push_back(LongAt(bytes->data() + 8));
    bytes->remove_prefix(16);
  }
  return {};
}

Status ReadMetadata(std::string_view bytes, Metadata* out) {
  if (bytes.size() < kFixedPrefix) return Bad("that is too short");
  const auto format = static_cast<unsigned char>(bytes[0]);
  if (format != kFormat && format != kLendingFormat) return Bad("of an unknown format");
  out->lends = format == kLendingFormat;
  out->count = NumberAt(bytes.data() + 1);
  if (out->count > kMaxSegments) return Bad("with " + std::to_string(out->count) + " segments");
  bytes.remove_prefix(kFixedPrefix);
  const size_t carriages_size = CarriagesSize(out->count);
  if (bytes.size() < carriages_size) return Bad("whose prefix is cut off");
  if (Status status = ReadCarriages(bytes.substr(0, carriages_size), out); !status.ok()) return status;
  bytes.remove_prefix(carriages_size);
  uint64_t inline_total = 0;
  for (Carriage carriage : out->carriages) {
    if (carriage != Carriage::kInline) continue;
    if (bytes.size() < 4) return Bad("whose prefix is cut off");
    out->inline_lengths.push_back(NumberAt(bytes.data()));
    inline_total += out->inline_lengths.back();
    bytes.remove_prefix(4);
  }
  if (out->lends) {
    if (Status status = ReadLent(&bytes, out); !status.ok()) return status;
  }
  if (bytes.size() <= inline_total) return Bad("without a header");
  out->header = bytes.substr(0, bytes.size() - inline_total);
  out->inline_bytes = bytes.substr(out->header.size());
  return out->header.size() <= kMaxHeader ? Status{} : Bad("whose header is too long");
}

// The lengths of the segments in their order, from the three places where they are.
class Lengths {
 public:
  Lengths(const pipe::Descriptor& descriptor, const Metadata& metadata)
      : descriptor_(descriptor), metadata_(metadata) {}

  // Never 0 but for an empty segment.
  Status Next(Carriage carriage, uint64_t* length) {
    *length = 0;
    if (carriage == Carriage::kEmpty) return {};
    if (carriage == Carriage::kInline) {
      *length = metadata_.inline_lengths[inline_++];
    } else if (carriage == Carriage::kPayload) {
      if (payload_ == descriptor_.payloads.size()) return Bad("with fewer payloads than its prefix names");
      *length = descriptor_.payloads[payload_++].length;
    } else if (metadata_.lends) {
      *length = metadata_.lent_lengths[lent_++];
    } else {
      if (tensor_ == descriptor_.tensors.size()) return Bad("with fewer tensors than its prefix names");
      const pipe::Descriptor::Tensor& tensor = descriptor_.tensors[tensor_++];
      if (!IsOnCpu(tensor)) return Bad("with a tensor that is not in main memory");
      *length = tensor.length;
    }
    return *length > 0 ? Status{} : Bad("with a segment that says it is not empty and is");
  }

  bool AtEnd() const { return payload_ == descriptor_.payloads.size() && tensor_ == descriptor_.tensors.size(); }

 private:
  // TensorPipe throws on a thread of its own when it has no channel between the two devices.
  static bool IsOnCpu(const pipe::Descriptor::Tensor& tensor) {
    return tensor.sourceDevice == Cpu() && tensor.targetDevice.has_value() && *tensor.targetDevice == Cpu();
  }

  const pipe::Descriptor& descriptor_;
  const Metadata& metadata_;
  size_t inline_ = 0;
  size_t payload_ = 0;
  size_t tensor_ = 0;
  size_t lent_ = 0;
};

std::vector<Carriage> Carriages(const gf_transport_frame& frame) {
  Chooser chooser;
  std::vector<Carriage> carriages;
  carriages.reserve(frame.segment_count);
  for (uint32_t i = 0; i < frame.segment_count; ++i) carriages.push_back(chooser.Next(frame.segments[i].length));
  return carriages;
}

}  // namespace

Status ToMessage(const gf_transport_frame& frame, uint64_t max_segment, pipe::Message* out) {
  if (Status status = CheckFrame(frame, max_segment); !status.ok()) return status;
  const std::vector<Carriage> carriages = Carriages(frame);
  pipe::Message message;
  message.metadata = MakeMetadata(frame, carriages, nullptr);
  for (uint32_t i = 0; i < frame.segment_count; ++i) AddSegment(frame.segments[i], carriages[i], &message);
  *out = std::move(message);
  return {};
}

Status ToLendingMessage(const gf_transport_frame& frame, uint64_t number, pipe::Message* out, bool* lent) {
  if (Status status = CheckFrame(frame, std::numeric_limits<uint64_t>::max()); !status.ok()) return status;
  const std::vector<Carriage> carriages = Carriages(frame);
  *lent = std::find(carriages.begin(), carriages.end(), Carriage::kTensor) != carriages.end();
  pipe::Message message;
  message.metadata = MakeMetadata(frame, carriages, *lent ? &number : nullptr);
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    if (carriages[i] != Carriage::kTensor) AddSegment(frame.segments[i], carriages[i], &message);
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
  Metadata metadata;
  if (Status status = ReadMetadata(descriptor.metadata, &metadata); !status.ok()) return status;
  Announcement announcement;
  Lengths lengths(descriptor, metadata);
  uint64_t total = 0;
  for (Carriage carriage : metadata.carriages) {
    uint64_t length = 0;
    if (Status status = lengths.Next(carriage, &length); !status.ok()) return status;
    if (length > std::numeric_limits<uint64_t>::max() / 2 - total) return Bad("of impossible size");
    total += length;
    announcement.segments.push_back({nullptr, length});
  }
  if (!lengths.AtEnd()) return Bad("with more payloads or tensors than its prefix names");
  announcement.header = metadata.header;
  announcement.inline_bytes = metadata.inline_bytes;
  announcement.carriages = std::move(metadata.carriages);
  announcement.lends = metadata.lends;
  announcement.number = metadata.number;
  announcement.addresses = std::move(metadata.addresses);
  *out = std::move(announcement);
  return {};
}

Status ToAllocation(const Announcement& announcement, const std::vector<gf_transport_segment>& filled,
                    pipe::Allocation* out) {
  pipe::Allocation allocation;
  std::string_view inline_bytes = announcement.inline_bytes;
  for (size_t i = 0; i < filled.size(); ++i) {
    const uint64_t length = announcement.segments[i].length;
    if (length == 0) continue;
    if (filled[i].data == nullptr) {
      return {GF_INTERNAL, "the host gave no memory for segment " + std::to_string(i) + " of a frame that it took"};
    }
    if (announcement.carriages[i] == Carriage::kInline) {
      std::memcpy(filled[i].data, inline_bytes.data(), length);
      inline_bytes.remove_prefix(length);
    } else if (announcement.carriages[i] == Carriage::kPayload) {
      allocation.payloads.emplace_back();
      allocation.payloads.back().data = filled[i].data;
    } else if (!announcement.lends) {
      allocation.tensors.emplace_back();
      allocation.tensors.back().buffer = pipe::CpuBuffer{filled[i].data};
    }
  }
  *out = std::move(allocation);
  return {};
}

std::vector<gf_transport_segment> LentSegments(const Announcement& announcement,
                                               const std::vector<gf_transport_segment>& filled) {
  std::vector<gf_transport_segment> lent;
  for (size_t i = 0; i < filled.size() && announcement.lends; ++i) {
    if (announcement.carriages[i] != Carriage::kTensor) continue;
    lent.push_back({filled[i].data, announcement.segments[i].length});
  }
  return lent;
}

uint64_t TotalBytes(uint64_t header_length, const gf_transport_segment* segments, size_t count) {
  uint64_t total = header_length;
  for (size_t i = 0; i < count; ++i) total += segments[i].length;
  return total;
}

}  // namespace gradferry::tp
