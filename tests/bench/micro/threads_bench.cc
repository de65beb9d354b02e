// Handing work from thread to thread: a task to the pool, an outcome to who waits for it, an entry to a queue, a timer.
#include <benchmark/benchmark.h>

#include <memory>

#include "c_api/queue.h"
#include "impl/base/clock.h"
#include "impl/base/executor.h"
#include "impl/rpc/future.h"
#include "impl/rpc/metrics.h"

namespace gradferry {
namespace {

// There and back: two hops.
void ExecutorHop(benchmark::State& state) {
  Executor executor(1, nullptr);
  for (auto _ : state) {
    const auto done = std::make_shared<Future>();
    executor.Post([done] { done->Complete(ValueList()); });
    done->Wait(kNever);
  }
  executor.Stop();
}
BENCHMARK(ExecutorHop)->UseRealTime();

void FutureCompletedBeforeTheWait(benchmark::State& state) {
  for (auto _ : state) {
    auto future = std::make_shared<Future>();
    future->Complete(ValueList());
    future->Wait(kNever);
    benchmark::DoNotOptimize(future->outcome());
  }
}
BENCHMARK(FutureCompletedBeforeTheWait);

void QueuePushAndNext(benchmark::State& state) {
  CompletionQueue queue;
  for (auto _ : state) {
    queue.Push(QueueEntry());
    benchmark::DoNotOptimize(queue.Next(1, 0));
  }
}
BENCHMARK(QueuePushAndNext);

// A deadline that is taken back, as that of nearly every call is.
void TimerSetAndCancelled(benchmark::State& state) {
  const auto clock = NewSteadyClock();
  for (auto _ : state) clock->Cancel(clock->Schedule(clock->Now() + 60'000'000'000, [] {}));
}
BENCHMARK(TimerSetAndCancelled);

void CountMetric(benchmark::State& state) {
  static RpcMetrics metrics;
  for (auto _ : state) Add(metrics.frames_sent);
}
BENCHMARK(CountMetric)->Threads(1)->Threads(2);

}  // namespace
}  // namespace gradferry
