// Who gets room when there is little.
#include "impl/rpc/windows.h"

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace gradferry {
namespace {

constexpr WindowSize kNoLimit{};

class WindowsTest : public ::testing::Test {
 protected:
  ~WindowsTest() override {
    if (windows_) windows_->Close();
  }
  void Open(WindowSize of_worker, WindowSize of_peer) {
    windows_ = std::make_shared<Windows>(of_worker, of_peer);
    for (WorkerId peer = 1; peer <= 3; ++peer) windows_->Announced(peer, kNoLimit);
  }
  // Room now, kept under this name; or it waits, and the name is in went_ when there is room.
  bool Start(const std::string& name, WorkerId peer, uint64_t bytes = 0) {
    auto room = windows_->TakeOrWait(
        peer, bytes, [this, name](Windows::Room given) { Went(name, std::move(given)); }, &tickets_[name]);
    if (room) Went(name, std::move(room));
    return rooms_[name] != nullptr;
  }
  void End(const std::string& name) { const auto room = std::move(rooms_[name]); }
  void Went(const std::string& name, Windows::Room room) {
    went_.push_back(room ? name : name + " told");
    rooms_[name] = std::move(room);
  }

  using Names = std::vector<std::string>;
  std::shared_ptr<Windows> windows_;
  std::map<std::string, Windows::Room> rooms_;
  std::map<std::string, uint64_t> tickets_;
  Names went_;
  std::string full_;
};

TEST_F(WindowsTest, CallsBeyondAPeersWindowWaitInOrder) {
  Open(kNoLimit, {2, UINT64_MAX});
  EXPECT_TRUE(Start("a", 1));
  EXPECT_TRUE(Start("b", 1));
  EXPECT_FALSE(Start("c", 1));
  EXPECT_FALSE(Start("d", 1));
  EXPECT_EQ(windows_->waiting(), 2u);
  EXPECT_EQ(windows_->waiting(1), 2u);
  End("b");
  EXPECT_EQ(went_, (Names{"a", "b", "c"}));
  End("a");
  EXPECT_EQ(went_, (Names{"a", "b", "c", "d"}));
  EXPECT_EQ(windows_->waiting(), 0u);
}

TEST_F(WindowsTest, AFullPeerDoesNotHoldOthersBack) {
  Open({3, UINT64_MAX}, {1, UINT64_MAX});
  EXPECT_TRUE(Start("a", 1));
  EXPECT_FALSE(Start("b", 1));
  EXPECT_TRUE(Start("c", 2));
  EXPECT_FALSE(windows_->Take(1, 0, &full_));
  EXPECT_TRUE(windows_->Take(3, 0, &full_));
}

TEST_F(WindowsTest, PeersTakeTurnsAtTheWorkersWindow) {
  Open({1, UINT64_MAX}, kNoLimit);
  EXPECT_TRUE(Start("first", 1));
  for (const char* name : {"a1", "a2", "a3"}) Start(name, 1);
  for (const char* name : {"b1", "b2"}) Start(name, 2);
  Start("c1", 3);
  std::string last = "first";
  for (int i = 0; i < 6; ++i) {
    End(last);
    last = went_.back();
  }
  EXPECT_EQ(went_, (Names{"first", "a1", "b1", "c1", "a2", "b2", "a3"}));
}

TEST_F(WindowsTest, BytesCount) {
  Open(kNoLimit, {UINT64_MAX, 100});
  EXPECT_TRUE(Start("a", 1, 60));
  EXPECT_TRUE(Start("b", 1, 40));
  EXPECT_FALSE(Start("c", 1, 30));
  EXPECT_FALSE(Start("d", 1, 0));  // it fits, but is not first
  EXPECT_EQ(windows_->waiting(1), 2u);
  End("b");
  EXPECT_EQ(went_, (Names{"a", "b", "c", "d"}));
}

TEST_F(WindowsTest, WhatIsLargerThanTheWindowGoesAlone) {
  Open({UINT64_MAX, 100}, kNoLimit);
  EXPECT_TRUE(Start("small", 1, 1));
  EXPECT_FALSE(Start("huge", 1, 1000));
  EXPECT_FALSE(Start("other", 2, 1));  // it would fit, but then there would never be room
  EXPECT_FALSE(windows_->Take(3, 1, &full_));
  EXPECT_EQ(full_, "others wait already");
  End("small");
  EXPECT_EQ(went_, (Names{"small", "huge"}));
  End("huge");
  EXPECT_EQ(went_, (Names{"small", "huge", "other"}));
}

TEST_F(WindowsTest, WhatIsNeverHeldBackCounts) {
  Open(kNoLimit, {2, 100});
  auto gradients = windows_->Count(1, 500);
  EXPECT_FALSE(Start("a", 1, 1));
  gradients = nullptr;
  EXPECT_EQ(went_, Names{"a"});
}

TEST_F(WindowsTest, TheFullOneIsNamed) {
  Open({4, 1000}, {2, 100});
  auto keep = windows_->Take(1, 60, &full_);
  EXPECT_FALSE(windows_->Take(1, 60, &full_));
  EXPECT_EQ(full_, "limits.bytes_per_peer (100)");
  auto second = windows_->Take(1, 1, &full_);
  EXPECT_FALSE(windows_->Take(1, 1, &full_));
  EXPECT_EQ(full_, "limits.calls_per_peer (2)");
  auto large = windows_->Take(2, 930, &full_);
  EXPECT_FALSE(windows_->Take(3, 20, &full_));
  EXPECT_EQ(full_, "limits.bytes (1000)");
  auto fourth = windows_->Take(3, 0, &full_);
  EXPECT_FALSE(windows_->Take(3, 0, &full_));
  EXPECT_EQ(full_, "limits.calls (4)");
}

TEST_F(WindowsTest, ThePeersOwnWindowHoldsWhenItIsSmaller) {
  Open(kNoLimit, {10, 1000});
  windows_->Announced(1, {1, 100});
  EXPECT_TRUE(Start("a", 1));
  EXPECT_FALSE(windows_->Take(1, 0, &full_));
  EXPECT_EQ(full_, "limits.requests of the peer (1)");
  EXPECT_FALSE(Start("b", 1));
  windows_->Announced(1, {3, 100});
  EXPECT_EQ(went_, (Names{"a", "b"}));
  EXPECT_TRUE(Start("c", 1, 50));
  windows_->Announced(1, {9, 100});
  EXPECT_FALSE(windows_->Take(1, 1, &full_));
  EXPECT_EQ(full_, "limits.memory_per_peer of the peer (50)");
  EXPECT_TRUE(windows_->Takes(1, 100));
  EXPECT_FALSE(windows_->Takes(1, 102));
  EXPECT_TRUE(windows_->Takes(7, UINT64_MAX));  // it has not said anything yet
}

TEST_F(WindowsTest, WhoIsTakenBackIsNotServed) {
  Open({UINT64_MAX, 100}, kNoLimit);
  Start("a", 1, 90);
  Start("huge", 1, 1000);
  Start("b", 2, 10);
  EXPECT_TRUE(windows_->TakeBack(1, tickets_["huge"], &full_));
  EXPECT_EQ(full_, "limits.bytes (100)");
  EXPECT_FALSE(windows_->TakeBack(1, tickets_["huge"], &full_));
  EXPECT_EQ(went_, (Names{"a", "b"}));  // it was in the way
}

TEST_F(WindowsTest, WhoWaitsIsToldOfTheEnd) {
  Open({1, UINT64_MAX}, kNoLimit);
  Start("a", 1);
  Start("b", 2);
  windows_->Close();
  EXPECT_EQ(went_, (Names{"a", "b told"}));
  EXPECT_FALSE(Start("c", 3));
  EXPECT_EQ(went_, (Names{"a", "b told", "c told"}));
}

TEST_F(WindowsTest, ManyThreadsGetRoomAndNeverTooMuch) {
  auto windows = std::make_shared<Windows>(WindowSize{3, UINT64_MAX}, WindowSize{2, UINT64_MAX});
  std::atomic<int> inside{0}, most{0}, ended{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 500; ++i) {
        auto work = [&](Windows::Room room) {
          const int now = ++inside;
          for (int seen = most; now > seen && !most.compare_exchange_weak(seen, now);) {
          }
          --inside;
          ++ended;
          room = nullptr;
        };
        uint64_t ticket = 0;
        if (auto room = windows->TakeOrWait(t % 2, 1, work, &ticket)) work(std::move(room));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(ended, 2000);
  EXPECT_LE(most, 3);
  EXPECT_EQ(windows->waiting(), 0u);
}

}  // namespace
}  // namespace gradferry
