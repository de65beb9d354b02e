// On which thread events run, and in which order.
#include "plugins/tensorpipe/event_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <numeric>
#include <thread>
#include <vector>

namespace gradferry::tp {
namespace {

TEST(EventQueue, RunsAnEventAtOnceWhenNothingIsInTheWay) {
  EventQueue queue;
  std::thread::id ran;
  queue.Deliver([&] { ran = std::this_thread::get_id(); });
  EXPECT_EQ(ran, std::this_thread::get_id());
}

TEST(EventQueue, NeverRunsAnEventOnTheStackOfACall) {
  EventQueue queue;
  std::promise<std::thread::id> ran;
  bool on_stack = true;
  {
    const HostCall outer;
    const HostCall inner;
    queue.Deliver([&] {
      on_stack = HostCall::OnThisStack();
      ran.set_value(std::this_thread::get_id());
    });
  }
  EXPECT_NE(ran.get_future().get(), std::this_thread::get_id());
  EXPECT_FALSE(on_stack);
}

TEST(EventQueue, KeepsTheOrderOfEventsThatWaitAndThoseThatComeLater) {
  EventQueue queue;
  std::vector<int> order;  // events do not overlap, so it needs no lock
  std::promise<void> may_go, first_runs;
  queue.Post([&, go = may_go.get_future().share()] {
    first_runs.set_value();
    go.wait();
    order.push_back(0);
  });
  first_runs.get_future().wait();
  // It has left the queue, but it has not ended: nothing may pass it.
  for (int i = 1; i < 100; ++i) queue.Deliver([&, i] { order.push_back(i); });
  EXPECT_TRUE(order.empty());
  may_go.set_value();
  queue.Stop();
  std::vector<int> expected(100);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(order, expected);
}

TEST(EventQueue, RunsNothingBesideAnEventThatRunsAtOnce) {
  for (int round = 0; round < 200; ++round) {
    EventQueue queue;
    std::atomic<int> running{0};
    std::atomic<int> ran{0};
    auto event = [&] {
      EXPECT_EQ(running.fetch_add(1), 0);
      for (int i = 0; i < 50; ++i) std::this_thread::yield();
      running.fetch_sub(1);
      ++ran;
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&, t] {
        for (int i = 0; i < 10; ++i) {
          if (t == 0) {
            queue.Post(event);
          } else {
            queue.Deliver(event);
          }
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    queue.Stop();
    EXPECT_EQ(ran, 30);
  }
}

TEST(EventQueue, QueuesWhatAnEventOnTheDispatcherRaises) {
  EventQueue queue;
  std::vector<int> order;
  queue.Post([&] {
    queue.Deliver([&] { order.push_back(2); });
    order.push_back(1);
  });
  queue.Stop();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
}

TEST(EventQueue, RunsTimedJobsWhenTheyAreDue) {
  EventQueue queue;
  std::promise<void> later;
  bool much_later = false;
  const auto now = std::chrono::steady_clock::now();
  queue.PostAt(now + std::chrono::hours(1), [&] { much_later = true; });
  queue.PostAt(now + std::chrono::milliseconds(2), [&] { later.set_value(); });
  later.get_future().wait();
  EXPECT_GE(std::chrono::steady_clock::now(), now + std::chrono::milliseconds(2));
  queue.Stop();
  EXPECT_FALSE(much_later);
}

TEST(EventQueue, DropsTimedJobsAtTheEnd) {
  bool ran = false;
  {
    EventQueue queue;
    queue.PostAt(std::chrono::steady_clock::now() + std::chrono::hours(1), [&] { ran = true; });
  }
  EXPECT_FALSE(ran);
}

}  // namespace
}  // namespace gradferry::tp
