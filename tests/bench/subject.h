// One end of a pair of processes that is measured: the driver calls, the peer serves. bench_main starts both, tells the
// driver what to measure on its standard input, a line at a time, and reads one line of JSON for each from its standard
// output. Only what a program of the system under test needs is in these processes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace gradferry::bench {

// CLOCK_MONOTONIC in ns.
int64_t Now();

// Times of single operations in ns. Where one is too short, or several run at a time, a sample is the mean of a batch.
using Samples = std::vector<int64_t>;

// Calls the operation `count` times and times each; fewer times when the measurement has used up its time.
Samples Time(int64_t count, const std::function<void()>& operation);

// Whether it has: for loops of a measurement's own.
bool OutOfTime();

// What a driver can measure: a function that makes `count` samples at most.
using Measurements = std::map<std::string, std::function<Samples(int64_t count)>>;

// Sizes in bytes that all subjects use.
inline constexpr int64_t kMiB = int64_t{1} << 20;
inline constexpr int64_t kGiB = int64_t{1} << 30;
// A call with a tensor of 64 floats, a burst with this many calls in flight, a chain, a list of small tensors.
inline constexpr int64_t kFloats = 64;
inline constexpr int64_t kInFlight = 128;
inline constexpr int64_t kBurst = 8 * kInFlight;
inline constexpr int64_t kChain = 50;
inline constexpr int64_t kManyTensors = 10000;
inline constexpr int64_t kManyTensorsFloats = 256;

// A driver's main loop. Writes {"ready": [names]} when it is called, then for each line "NAME COUNT SECONDS" either
// {"ns":
// [...]} or {"error": "..."}. At the end of the input the process ends, without orderly farewells: some subjects wait
// for their peers then.
[[noreturn]] void Drive(const Measurements& measurements);

// A peer's: writes {"ready": []} and waits for the end of the input, and of the process.
[[noreturn]] void Serve();

// Runs one end and reports what it throws as {"error": ...}; for main().
int RunEnd(const std::function<void()>& end);

}  // namespace gradferry::bench
