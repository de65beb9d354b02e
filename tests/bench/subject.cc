// See subject.h.
#include "tests/bench/subject.h"

#include <time.h>
#include <unistd.h>

#include <exception>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace gradferry::bench {
namespace {

using nlohmann::json;

int64_t out_of_time = INT64_MAX;  // of the measurement that runs

void Answer(const json& answer) { std::cout << answer.dump() << std::endl; }

json Measure(const Measurements& measurements, const std::string& line) {
  std::istringstream words(line);
  std::string name;
  int64_t count = 0;
  double seconds = 0;
  if (!(words >> name >> count >> seconds)) return {{"error", "'" + line + "' is not NAME COUNT SECONDS"}};
  out_of_time = Now() + static_cast<int64_t>(seconds * 1e9);
  const auto found = measurements.find(name);
  if (found == measurements.end()) return {{"error", "there is no measurement '" + name + "'"}};
  try {
    return {{"ns", found->second(count)}};
  } catch (const std::exception& error) {
    return {{"error", error.what()}};
  }
}

}  // namespace

int64_t Now() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

bool OutOfTime() { return Now() > out_of_time; }

Samples Time(int64_t count, const std::function<void()>& operation) {
  Samples samples;
  samples.reserve(static_cast<size_t>(count));
  int64_t before = Now();
  for (int64_t i = 0; i < count; ++i) {
    operation();
    const int64_t after = Now();
    samples.push_back(after - before);
    before = after;
    if (after > out_of_time) break;
  }
  return samples;
}

void Drive(const Measurements& measurements) {
  json names = json::array();
  for (const auto& [name, measure] : measurements) names.push_back(name);
  Answer({{"ready", names}});
  for (std::string line; std::getline(std::cin, line);) Answer(Measure(measurements, line));
  _exit(0);
}

void Serve() {
  Answer({{"ready", json::array()}});
  for (std::string line; std::getline(std::cin, line);) {
  }
  _exit(0);
}

int RunEnd(const std::function<void()>& end) {
  try {
    end();
    return 0;
  } catch (const std::exception& error) {
    Answer({{"error", error.what()}});
    return 1;
  }
}

}  // namespace gradferry::bench
