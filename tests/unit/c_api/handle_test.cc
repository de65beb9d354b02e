// Unit tests of c_api/handle.h, on handles of a kind that the library has (gf_list) and one that only tests know.
#include "c_api/handle.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

// Opaque, as the header's handles are. They borrow the kinds of a config and a worker, whose pools they do not share.
struct test_thing;
struct test_other;
struct test_quarantined;

namespace gradferry {

struct Thing {
  std::shared_ptr<int> payload;
};

template <>
struct HandleTraits<test_thing> {
  using Object = Thing;
  static constexpr LiveKind kKind = LiveKind::kConfigs;
};
template <>
struct HandleTraits<test_other> {
  using Object = std::string;
  static constexpr LiveKind kKind = LiveKind::kWorkers;
};

template <>
struct HandleTraits<test_quarantined> {
  using Object = int;
  static constexpr LiveKind kKind = LiveKind::kFutures;
};

namespace {

using ::testing::HasSubstr;

template <class Handle>
std::string MessageOf(Handle* handle) {
  auto got = Get(handle);
  EXPECT_FALSE(got.ok());
  EXPECT_EQ(got.status().code(), Code::kInvalidArgument);
  return got.status().message();
}

TEST(HandleTest, GivesItsObjectUntilTheLastReferenceIsGivenBack) {
  auto payload = std::make_shared<int>(7);
  auto* handle = MakeHandle<test_thing>(Thing{payload});
  ASSERT_TRUE(Get(handle).ok());
  EXPECT_EQ(*(*Get(handle))->payload, 7);
  EXPECT_EQ(RefHandle(handle), handle);
  UnrefHandle(handle);
  EXPECT_TRUE(Get(handle).ok());
  EXPECT_EQ(payload.use_count(), 2);
  UnrefHandle(handle);
  EXPECT_EQ(payload.use_count(), 1);
}

TEST(HandleTest, ConstHandlesAreRead) {
  auto* handle = MakeHandle<test_other>("text");
  const test_other* constant = handle;
  EXPECT_EQ(**Get(constant), "text");
  UnrefHandle(handle);
}

TEST(HandleTest, WhatIsNoLiveHandleOfItsKindIsRefusedWithTheReason) {
  auto* thing = MakeHandle<test_thing>(Thing{});
  auto* other = MakeHandle<test_other>("x");
  EXPECT_EQ(MessageOf<test_thing>(nullptr), "a gf_config is wanted, got NULL");
  EXPECT_EQ(MessageOf(reinterpret_cast<test_thing*>(other)), "a gf_config is wanted, got a gf_worker");
  EXPECT_EQ(MessageOf(reinterpret_cast<test_thing*>(reinterpret_cast<char*>(thing) + 4)),
            "a gf_config is wanted, got a pointer that is no handle");
  alignas(std::max_align_t) char memory[64] = {};
  EXPECT_THAT(MessageOf(reinterpret_cast<test_thing*>(memory)), HasSubstr("no handle"));
  // What looks like a head, but lies where none can.
  const uint32_t magic = kHandleMagic + static_cast<uint32_t>(LiveKind::kConfigs);
  std::memcpy(memory + 8, &magic, sizeof(magic));
  EXPECT_THAT(MessageOf(reinterpret_cast<test_thing*>(memory + 8)), HasSubstr("no handle"));
  UnrefHandle(thing);
  EXPECT_EQ(MessageOf(thing), "the gf_config was given back already");
  UnrefHandle(other);
}

TEST(HandleTest, RefAndUnrefOfWhatIsNoLiveHandleDoNothing) {
  auto* thing = MakeHandle<test_thing>(Thing{});
  auto* other = MakeHandle<test_other>("x");
  UnrefHandle<test_thing>(nullptr);
  EXPECT_EQ(RefHandle<test_thing>(nullptr), nullptr);
  UnrefHandle(reinterpret_cast<test_thing*>(other));
  EXPECT_TRUE(Get(other).ok());
  EXPECT_EQ(RefHandle(reinterpret_cast<test_thing*>(other)), nullptr);
  UnrefHandle(thing);
  UnrefHandle(thing);
  EXPECT_EQ(RefHandle(thing), nullptr);
  EXPECT_EQ(Peek(thing), nullptr);
  // The second unref did not put the cell into the pool twice.
  std::vector<test_thing*> things;
  for (int i = 0; i < 1000; ++i) things.push_back(MakeHandle<test_thing>(Thing{}));
  std::sort(things.begin(), things.end());
  EXPECT_EQ(std::unique(things.begin(), things.end()), things.end());
  for (test_thing* each : things) UnrefHandle(each);
  UnrefHandle(other);
}

// With a pool of its own, where no other test has left free cells; also once its cells are being reused.
TEST(HandleTest, AStaleHandleIsSeenUntilTheQuarantineIsOver) {
  for (int round = 0; round < 3; ++round) {
    auto* stale = MakeHandle<test_quarantined>(1);
    UnrefHandle(stale);
    for (size_t i = 0; i < kQuarantine; ++i) {
      auto* next = MakeHandle<test_quarantined>(1);
      ASSERT_NE(next, stale) << round << ", " << i;
      UnrefHandle(next);
    }
    EXPECT_FALSE(Get(stale).ok());
  }
}

TEST(HandleTest, CellsAreReusedAfterwards) {
  std::vector<test_thing*> seen;
  for (size_t i = 0; i < 20 * kQuarantine; ++i) {
    auto* next = MakeHandle<test_thing>(Thing{});
    seen.push_back(next);
    UnrefHandle(next);
  }
  std::sort(seen.begin(), seen.end());
  seen.erase(std::unique(seen.begin(), seen.end()), seen.end());
  // Other tests may have left free cells; without reuse it would be all of them.
  EXPECT_LE(seen.size(), 8 * kQuarantine);
}

TEST(HandleTest, CountsByKindAndAltogether) {
  int64_t things = LiveCount(LiveKind::kConfigs);
  int64_t handles = LiveCount(LiveKind::kHandles);
  auto* thing = MakeHandle<test_thing>(Thing{});
  EXPECT_EQ(LiveCount(LiveKind::kConfigs), things + 1);
  EXPECT_EQ(LiveCount(LiveKind::kHandles), handles + 1);
  RefHandle(thing);  // another reference, not another handle
  EXPECT_EQ(LiveCount(LiveKind::kConfigs), things + 1);
  UnrefHandle(thing);
  UnrefHandle(thing);
  UnrefHandle(thing);
  EXPECT_EQ(LiveCount(LiveKind::kConfigs), things);
  EXPECT_EQ(LiveCount(LiveKind::kHandles), handles);
}

TEST(HandleTest, ManyThreadsMakeShareAndGiveBack) {
  auto payload = std::make_shared<int>(1);
  auto* shared = MakeHandle<test_thing>(Thing{payload});
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) {
        RefHandle(shared);
        auto* mine = MakeHandle<test_thing>(Thing{payload});
        EXPECT_TRUE(Get(mine).ok());
        UnrefHandle(mine);
        UnrefHandle(shared);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(payload.use_count(), 2);
  UnrefHandle(shared);
  EXPECT_EQ(payload.use_count(), 1);
}

}  // namespace
}  // namespace gradferry
