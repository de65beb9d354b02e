#include "impl/tensor/large_memory.h"

#include <gtest/gtest.h>

#include <cstring>
#include <thread>
#include <vector>

namespace gradferry {
namespace {

TEST(LargeMemoryTest, WhatWasGivenBackIsTakenAgain) {
  void* first = nullptr;
  {
    const c10::DataPtr memory = LargeMemory()->allocate(kLargeMemoryBytes);
    first = memory.get();
    std::memset(first, 1, kLargeMemoryBytes);
  }
  const uint64_t kept = KeptLargeMemory();
  EXPECT_GE(kept, kLargeMemoryBytes);
  const c10::DataPtr again = LargeMemory()->allocate(kLargeMemoryBytes - 1000);
  EXPECT_EQ(again.get(), first);
  EXPECT_EQ(KeptLargeMemory(), kept - kLargeMemoryBytes);
  const c10::DataPtr other = LargeMemory()->allocate(kLargeMemoryBytes);
  EXPECT_NE(other.get(), first);
}

TEST(LargeMemoryTest, NeitherMuchMoreThanNeededNorTooLittleIsTaken) {
  void* first = nullptr;
  {
    const c10::DataPtr memory = LargeMemory()->allocate(8 * kLargeMemoryBytes);
    first = memory.get();
  }
  EXPECT_NE(LargeMemory()->allocate(kLargeMemoryBytes).get(), first);
  EXPECT_NE(LargeMemory()->allocate(9 * kLargeMemoryBytes).get(), first);
}

TEST(LargeMemoryTest, NoMoreIsKeptThanItsLimit) {
  {
    std::vector<c10::DataPtr> many;
    for (uint64_t bytes = 0; bytes < 2 * kKeptBytes; bytes += kKeptBytes / 4) {
      many.push_back(LargeMemory()->allocate(kKeptBytes / 4));
    }
    const c10::DataPtr huge = LargeMemory()->allocate(2 * kKeptBytes);
  }
  EXPECT_LE(KeptLargeMemory(), kKeptBytes);
  EXPECT_GT(KeptLargeMemory(), kKeptBytes / 2);
}

TEST(LargeMemoryTest, AnImpossibleSizeIsBadAlloc) {
  EXPECT_THROW((void)LargeMemory()->allocate(SIZE_MAX), std::bad_alloc);
  EXPECT_THROW((void)LargeMemory()->allocate(SIZE_MAX / 2), std::bad_alloc);
}

TEST(LargeMemoryTest, ThreadsShareIt) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([i] {
      for (int round = 0; round < 50; ++round) {
        const c10::DataPtr memory = LargeMemory()->allocate(kLargeMemoryBytes);
        auto* const byte = static_cast<volatile char*>(memory.get());
        *byte = static_cast<char>(i);
        std::this_thread::yield();
        EXPECT_EQ(*byte, static_cast<char>(i));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace
}  // namespace gradferry
