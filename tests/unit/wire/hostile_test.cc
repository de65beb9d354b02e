// Every cut, every changed byte, every lying length and 100,000 random frames: each is understood or refused, without a
// crash (the sanitizers watch), in memory that is in proportion to the bytes that came. What is understood is
// canonical: encoded again it gives the same bytes.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>
#include <random>

#include "tests/unit/wire/wire_testing.h"

namespace {
// Bytes that operator new has given to this thread. Tensor memory comes from elsewhere; limits bound it.
thread_local size_t allocated = 0;

void* CountedOrNull(size_t size) {
  allocated += size;
  return std::malloc(size == 0 ? 1 : size);
}

void* Counted(size_t size) {
  if (void* memory = CountedOrNull(size)) return memory;
  throw std::bad_alloc();
}
}  // namespace

void* operator new(size_t size) { return Counted(size); }
void* operator new[](size_t size) { return Counted(size); }
void* operator new(size_t size, const std::nothrow_t&) noexcept { return CountedOrNull(size); }
void* operator new[](size_t size, const std::nothrow_t&) noexcept { return CountedOrNull(size); }
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete[](void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace gradferry {
namespace {

// What one header byte may cost: an undefined gradient takes one byte here, a tensor and its bookkeeping there.
constexpr size_t kBytesPerHeaderByte = 512;
constexpr size_t kBytesAnyway = 8192;

WireLimits SmallLimits() {
  WireLimits limits;
  limits.message_bytes = 1 << 20;
  limits.header_bytes = 1 << 16;
  limits.tensors = 1000;
  limits.values = 10000;
  return limits;
}

bool IsRefusal(Code code) {
  return code == Code::kDataLoss || code == Code::kResourceExhausted || code == Code::kUnsupported;
}

// An error whose code we do not know becomes kUnknown, so that it is not what came.
bool HasUnknownCode(const Message& message) {
  const auto status = std::visit(
      [](const auto& m) -> Status {
        using M = std::decay_t<decltype(m)>;
        if constexpr (std::is_same_v<M, HelloReply> || std::is_same_v<M, HelloProof> || std::is_same_v<M, Reply> ||
                      std::is_same_v<M, AbortPass> || std::is_same_v<M, Ack>) {
          return m.status;
        } else {
          return OkStatus();
        }
      },
      message);
  for (auto error = status.error(); error != nullptr; error = error->cause) {
    if (error->code == Code::kUnknown) return true;
  }
  return false;
}

class HostileTest : public ::testing::Test {
 protected:
  // Decodes whatever this is and checks what holds for all of it. True when it was understood.
  bool Try(const Frame& frame) {
    const WireLimits limits = SmallLimits();
    std::vector<uint64_t> lengths;
    size_t total = 0;
    for (const std::string& segment : frame.segments) {
      lengths.push_back(segment.size());
      total += segment.size();
    }
    const size_t before = allocated;
    auto decoder = FrameDecoder::New(frame.header, lengths, limits);
    EXPECT_LE(allocated - before, kBytesAnyway + frame.header.size() * kBytesPerHeaderByte + total)
        << testing::PrintToString(frame.header);
    if (!decoder.ok()) {
      EXPECT_TRUE(IsRefusal(decoder.status().code())) << decoder.status().ToString();
      return false;
    }
    for (size_t i = 0; i < lengths.size(); ++i) {
      memcpy((*decoder)->segments()[i].data, frame.segments[i].data(), lengths[i]);
    }
    auto decoded = (*decoder)->Finish();
    if (!decoded.ok()) {
      EXPECT_TRUE(IsRefusal(decoded.status().code())) << decoded.status().ToString();
      return false;
    }
    CheckCanonical(frame, *decoded);
    return true;
  }

  void CheckCanonical(const Frame& frame, const DecodedMessage& decoded) {
    auto again = Encode(decoded.message, decoded.requires_grad, SmallLimits());
    ASSERT_TRUE(again.ok()) << again.status().ToString();
    if (HasUnknownCode(decoded.message)) return;
    // What a later version has added to a Hello is skipped; of the others only the frame says which version it is.
    if (FrameVersion(frame.header) > kProtocolVersion) return;
    SetFrameVersion(again->header, FrameVersion(frame.header));
    EXPECT_EQ(again->header, frame.header);
    ASSERT_EQ(again->segments.size(), frame.segments.size());
    for (size_t i = 0; i < frame.segments.size(); ++i) EXPECT_EQ(again->segments[i].size(), frame.segments[i].size());
  }

  static std::vector<Frame> SampleFrames() {
    std::vector<Frame> frames;
    for (const Message& message : SampleMessages()) frames.push_back(MustEncode(message));
    return frames;
  }
};

TEST_F(HostileTest, EveryCutHeaderIsRefused) {
  for (const Frame& frame : SampleFrames()) {
    for (size_t size = 0; size < frame.header.size(); ++size) {
      EXPECT_FALSE(Try({frame.header.substr(0, size), frame.segments})) << size;
      EXPECT_FALSE(Try({frame.header.substr(0, size), {}})) << size;
    }
    EXPECT_TRUE(Try(frame));
  }
}

TEST_F(HostileTest, EveryHeaderWithMoreBytesIsRefused) {
  for (const Frame& frame : SampleFrames()) {
    for (int byte = 0; byte < 256; ++byte) {
      EXPECT_FALSE(Try({frame.header + static_cast<char>(byte), frame.segments}));
    }
    EXPECT_FALSE(Try({frame.header + std::string(1000, '\0'), frame.segments}));
    EXPECT_FALSE(Try({frame.header + frame.header, frame.segments}));
  }
}

TEST_F(HostileTest, EveryChangedByteIsUnderstoodOrRefused) {
  size_t understood = 0, refused = 0;
  for (const Frame& original : SampleFrames()) {
    Frame frame = original;
    for (size_t i = 0; i < frame.header.size(); ++i) {
      for (int change = 1; change < 256; ++change) {
        frame.header[i] = static_cast<char>(original.header[i] ^ change);
        ++(Try(frame) ? understood : refused);
      }
      frame.header[i] = original.header[i];
    }
  }
  EXPECT_GT(understood, 10000u);  // ids and numbers may be anything
  EXPECT_GT(refused, 10000u);
}

template <class T>
std::vector<T> LyingValues(T old, size_t left) {
  const T max = std::numeric_limits<T>::max();
  return {0,
          1,
          static_cast<T>(old + 1),
          static_cast<T>(old - 1),
          static_cast<T>(left),
          static_cast<T>(left + 1),
          static_cast<T>(left - 1),
          static_cast<T>(left / 8),
          max,
          static_cast<T>(max - 1),
          static_cast<T>(max / 2),
          static_cast<T>(max / 2 + 1),
          static_cast<T>(max / 8),
          static_cast<T>(max / 8 + 1),
          static_cast<T>(~old)};
}

TEST_F(HostileTest, EveryLyingLengthIsUnderstoodOrRefused) {
  const auto lie = [this](const Frame& original, auto zero) {
    using T = decltype(zero);
    Frame frame = original;
    for (size_t i = 0; i + sizeof(T) <= frame.header.size(); ++i) {
      T old;
      memcpy(&old, &original.header[i], sizeof old);
      for (const T value : LyingValues<T>(old, original.header.size() - i - sizeof(T))) {
        memcpy(&frame.header[i], &value, sizeof value);
        Try(frame);
      }
      frame.header = original.header;
    }
  };
  for (const Frame& frame : SampleFrames()) {
    lie(frame, uint8_t{0});
    lie(frame, uint16_t{0});
    lie(frame, uint32_t{0});
    lie(frame, uint64_t{0});
  }
}

TEST_F(HostileTest, SegmentsCutOrGrownAreRefused) {
  for (const Frame& original : SampleFrames()) {
    for (size_t i = 0; i < original.segments.size(); ++i) {
      const std::string& bytes = original.segments[i];
      for (size_t size = 0; size < 2 * bytes.size() + 200; ++size) {
        if (size == bytes.size()) continue;
        Frame frame = original;
        frame.segments[i].resize(size);
        EXPECT_FALSE(Try(frame));
      }
      Frame missing = original;
      missing.segments.erase(missing.segments.begin() + static_cast<std::ptrdiff_t>(i));
      EXPECT_FALSE(Try(missing));
      Frame twice = original;
      twice.segments.push_back(bytes);
      EXPECT_FALSE(Try(twice));
    }
  }
}

TEST_F(HostileTest, EveryChangedByteOfASegmentIsUnderstoodOrRefused) {
  for (const Frame& original : SampleFrames()) {
    Frame frame = original;
    for (std::string& segment : frame.segments) {
      for (char& byte : segment) {
        const char old = byte;
        for (const int change : {1, 2, 0x40, 0x80, 0xff}) {
          byte = static_cast<char>(old ^ change);
          Try(frame);
        }
        byte = old;
      }
    }
  }
}

// One frame with a few random faults.
class Mutator {
 public:
  explicit Mutator(uint32_t seed) : random_(seed) {}

  Frame Mutate(const std::vector<Frame>& frames) {
    Frame frame = frames[Below(frames.size())];
    for (size_t faults = 1 + Below(4); faults > 0; --faults) Fault(frame, frames[Below(frames.size())]);
    return frame;
  }

  Frame Noise() {
    Frame frame{std::string("GF", 2), {}};
    frame.header += static_cast<char>(1 + Below(3));
    frame.header += '\0';
    frame.header += static_cast<char>(1 + Below(22));
    for (size_t size = Below(200); size > 0; --size) {
      // Small numbers lead further than large ones.
      frame.header += static_cast<char>(Below(2) == 0 ? 0 : Below(2) == 0 ? Below(10) : Below(256));
    }
    return frame;
  }

 private:
  size_t Below(size_t bound) { return bound == 0 ? 0 : random_() % bound; }

  void Fault(Frame& frame, const Frame& other) {
    std::string& header = frame.header;
    const size_t at = Below(header.size());
    switch (Below(7)) {
      case 0:
        header[at] = static_cast<char>(random_());
        break;
      case 1:
        header[at] = static_cast<char>(header[at] ^ (1 << Below(8)));
        break;
      case 2:
        header.erase(at, 1 + Below(16));
        break;
      case 3:
        header.insert(at, 1 + Below(16), static_cast<char>(Below(8)));
        break;
      case 4:
        header.insert(at, other.header.substr(Below(other.header.size()), 1 + Below(40)));
        break;
      case 5:
        header = header.substr(0, at) + other.header.substr(Below(other.header.size()));
        break;
      default:
        if (frame.segments.empty()) {
          frame.segments.emplace_back(Below(100), 'x');
        } else {
          frame.segments[Below(frame.segments.size())].resize(Below(300));
        }
    }
    if (header.empty()) header = "G";
  }

  std::mt19937_64 random_;
};

TEST_F(HostileTest, RandomFaultsAreUnderstoodOrRefused) {
  const std::vector<Frame> frames = SampleFrames();
  Mutator mutator(1);
  size_t understood = 0;
  for (int i = 0; i < 100000; ++i) understood += Try(mutator.Mutate(frames));
  EXPECT_GT(understood, 1000u);
}

TEST_F(HostileTest, RandomBytesAreUnderstoodOrRefused) {
  Mutator mutator(2);
  for (int i = 0; i < 100000; ++i) Try(mutator.Noise());
}

// The worst that a peer can ask for by few bytes: many elements of one byte each, and lists that promise more lists.
TEST_F(HostileTest, ManyTinyElementsCostInProportion) {
  EXPECT_TRUE(Try(MustEncode(PropagateGradients{1, 2, {3, 4}, 5, false, std::vector<at::Tensor>(1000)})));
  Call call;
  call.arguments.assign(10000, Value());
  EXPECT_TRUE(Try(MustEncode(call)));
  call.arguments.assign(1000, Value(at::Tensor()));
  EXPECT_TRUE(Try(MustEncode(call)));
  std::string header = MustEncode(Call()).header;
  header.resize(header.size() - 4);  // the count of arguments
  for (int i = 0; i < 20; ++i) {
    const uint32_t count = 9000;
    header.append(reinterpret_cast<const char*>(&count), 4);
    header += '\x07';
  }
  EXPECT_FALSE(Try({header + std::string(50000, '\0'), {}}));
}

}  // namespace
}  // namespace gradferry
