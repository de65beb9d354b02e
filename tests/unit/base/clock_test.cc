#include "impl/base/clock.h"

#include <gtest/gtest.h>

#include <future>

namespace gradferry {
namespace {

constexpr int64_t kHour = int64_t{3600} * 1000000000;
constexpr int64_t kMillisecond = 1000000;

// The thread sleeps until the earliest timer it knows of; each of these has to reach it all the same.
TEST(SteadyClockTest, ATimerFiresBeforeALaterOneAndAfterACancelledOne) {
  const auto clock = NewSteadyClock();
  const TimerId late = clock->Schedule(clock->Now() + kHour, [] {});
  const TimerId cancelled = clock->Schedule(clock->Now() + kHour / 2, [] { ADD_FAILURE(); });
  clock->Cancel(cancelled);
  for (int i = 0; i < 50; ++i) {
    std::promise<int64_t> fired;
    const int64_t at = clock->Now() + (i % 2) * kMillisecond;
    clock->Schedule(at, [&] { fired.set_value(clock->Now()); });
    auto future = fired.get_future();
    ASSERT_EQ(future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_GE(future.get(), at);
  }
  clock->Cancel(late);
}

TEST(SteadyClockTest, AnEarlierTimerOvertakesAllThatItsThreadSleepsFor) {
  const auto clock = NewSteadyClock();
  std::promise<void> first, second;
  clock->Schedule(clock->Now() + 300 * kMillisecond, [&] { second.set_value(); });
  clock->Schedule(clock->Now() + 100 * kMillisecond, [&] { first.set_value(); });
  auto later = second.get_future();
  ASSERT_EQ(first.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
  EXPECT_EQ(later.wait_for(std::chrono::seconds(20)), std::future_status::ready);
}

TEST(SteadyClockTest, StopEndsItWhileItSleeps) {
  const auto clock = NewSteadyClock();
  clock->Schedule(clock->Now() + kHour, [] { ADD_FAILURE(); });
  clock->Stop();
  EXPECT_EQ(clock->Schedule(clock->Now(), [] { ADD_FAILURE(); }), 0u);
}

}  // namespace
}  // namespace gradferry
