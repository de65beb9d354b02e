// The timer that runs while there is a reason.
#include "impl/rpc/ticker.h"

#include <gtest/gtest.h>

#include <map>
#include <thread>
#include <vector>

namespace gradferry {
namespace {

// Time goes where it is told to go; timers run then.
class ManualClock final : public Clock {
 public:
  int64_t Now() const override { return now_; }
  TimerId Schedule(int64_t at, std::function<void()> fn) override {
    timers_[++last_] = {at, std::move(fn)};
    return last_;
  }
  void Cancel(TimerId timer) override { timers_.erase(timer); }

  size_t timers() const { return timers_.size(); }
  int64_t due() const { return timers_.begin()->second.first; }
  // Runs the one timer at this time.
  void RunAt(int64_t at) {
    now_ = at;
    auto node = timers_.extract(timers_.begin());
    node.mapped().second();
  }

 private:
  int64_t now_ = 1000;
  TimerId last_ = 0;
  std::map<TimerId, std::pair<int64_t, std::function<void()>>> timers_;
};

class TickerTest : public ::testing::Test {
 protected:
  TickerTest() {
    ticker_ = std::make_shared<Ticker>(&clock_, 10, 100, [this](int64_t now, int64_t grace) {
      looks_.emplace_back(now, grace);
      return next_;
    });
  }

  ManualClock clock_;
  std::vector<std::pair<int64_t, int64_t>> looks_;
  int64_t next_ = kNever;
  std::shared_ptr<Ticker> ticker_;
};

TEST_F(TickerTest, WithoutAReasonThereIsNoTimer) {
  EXPECT_EQ(clock_.timers(), 0u);
  {
    const TickerReason one(ticker_);
    EXPECT_EQ(clock_.timers(), 1u);
    const TickerReason two(ticker_);
    EXPECT_EQ(clock_.timers(), 1u);
  }
  EXPECT_EQ(clock_.timers(), 0u);
}

TEST_F(TickerTest, LooksWhenItWasAskedToWithinItsBounds) {
  const TickerReason reason(ticker_);
  EXPECT_EQ(clock_.due(), 1010);
  clock_.RunAt(1010);
  EXPECT_EQ(clock_.due(), 1110);  // never is too late
  next_ = 1140;
  clock_.RunAt(1110);
  EXPECT_EQ(clock_.due(), 1140);
  next_ = 1;
  clock_.RunAt(1140);
  EXPECT_EQ(clock_.due(), 1150);
  EXPECT_EQ(looks_.back(), std::make_pair(int64_t{1140}, int64_t{1000}));
}

TEST_F(TickerTest, NothingCountsFromBeforeTheReason) {
  { const TickerReason reason(ticker_); }
  {
    const TickerReason reason(ticker_);
    clock_.RunAt(5000);
  }
  const TickerReason reason(ticker_);
  clock_.RunAt(5010);
  EXPECT_EQ(looks_.back(), std::make_pair(int64_t{5010}, int64_t{5000}));
}

TEST_F(TickerTest, NothingCountsFromWhileTheProcessStoodStill) {
  const TickerReason reason(ticker_);
  clock_.RunAt(1110);  // late by a whole interval: within what a busy machine does
  EXPECT_EQ(looks_.back().second, 1000);
  clock_.RunAt(clock_.due() + 101);
  EXPECT_EQ(looks_.back().second, looks_.back().first);
}

TEST_F(TickerTest, StopsForGood) {
  const TickerReason reason(ticker_);
  ticker_->Stop();
  EXPECT_EQ(clock_.timers(), 0u);
  const TickerReason another(ticker_);
  EXPECT_EQ(clock_.timers(), 0u);
}

TEST(TickerThreadsTest, ReasonsComeAndGoOnManyThreads) {
  const auto clock = NewSteadyClock();
  std::atomic<int> looks{0};
  auto ticker = std::make_shared<Ticker>(clock.get(), 1000, 10000, [&](int64_t, int64_t) { return ++looks, kNever; });
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      for (int n = 0; n < 5000; ++n) const TickerReason reason(ticker);
    });
  }
  for (std::thread& thread : threads) thread.join();
  {
    // It still works after all that.
    const int before = looks;
    const TickerReason reason(ticker);
    while (looks == before) std::this_thread::yield();
  }
  ticker->Stop();
  clock->Stop();
}

}  // namespace
}  // namespace gradferry
