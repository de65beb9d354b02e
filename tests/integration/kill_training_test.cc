// A training over 3 to 5 processes of which one dies at a random moment: all others learn of it soon, with its name,
// are clean soon after, and train on exactly, without a restart.
//
// GF_KILL_RUNS (3) says how many trainings over each way, GF_KILL_FIRST_SEED (1) with which seed to begin. Prints the
// longest times.
#include <gtest/gtest.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/live.h"
#include "tests/support/c_abi/process.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int64_t FromEnvironment(const char* variable, int64_t fallback) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? fallback : std::atoll(text);
}

class Training {
 public:
  Training(const std::string& way, int size, const Settings& more) {
    // What the processes inherit is there before they start.
    UseWay(NewConfig(), way, "worker0");
    for (int rank = 0; rank < size; ++rank) {
      std::vector<std::string> arguments = {way, std::to_string(rank), std::to_string(size), Reports(rank),
                                            "group.rendezvous=file://" + folder_.File("rendezvous")};
      for (const auto& [key, value] : more) arguments.push_back(key + "=" + value);
      processes_.push_back(std::make_unique<Process>("trainer_main", arguments));
    }
  }

  Process& process(int rank) { return *processes_[static_cast<size_t>(rank)]; }

  // The report of that kind; one that says something else has happened fails the test.
  nlohmann::json WaitFor(int rank, const std::string& event) {
    nlohmann::json found;
    Eventually([&] {
      std::ifstream file(Reports(rank));
      for (std::string line; std::getline(file, line);) {
        const auto report = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
        if (!report.is_discarded() && report["event"] == event) found = report;
      }
      return !found.is_null();
    });
    if (found.is_null()) {
      std::ifstream file(Reports(rank));
      throw std::runtime_error("worker" + std::to_string(rank) + " did not report that it " + event + ", but:\n" +
                               std::string(std::istreambuf_iterator<char>(file), {}));
    }
    return found;
  }

 private:
  std::string Reports(int rank) const { return folder_.File("reports" + std::to_string(rank)); }

  const TemporaryFolder folder_;
  std::vector<std::unique_ptr<Process>> processes_;
};

struct Longest {
  int64_t error = 0, clean = 0;  // ns after the death
};

// signal: how the victim dies. SIGSTOP: it only falls silent, and is killed at the end.
void RunOne(const std::string& way, uint32_t seed, int signal, const Settings& settings, Longest* longest) {
  std::mt19937 random(seed);
  const int size = 3 + static_cast<int>(random() % 3),
            victim = static_cast<int>(random() % static_cast<uint32_t>(size));
  const std::string name = "worker" + std::to_string(victim);
  Training training(way, size, settings);
  for (int rank = 0; rank < size; ++rank) training.WaitFor(rank, "ready");
  for (int rank = 0; rank < size; ++rank) training.process(rank).Write("begin\n");
  for (int rank = 0; rank < size; ++rank) training.WaitFor(rank, "trains");
  // Any moment of a step.
  std::this_thread::sleep_for(std::chrono::microseconds(random() % 100000));
  const int64_t death = Now();
  training.process(victim).Signal(signal);
  if (signal == SIGKILL) {
    EXPECT_EQ(training.process(victim).Wait(), -SIGKILL);
  } else {
    training.process(victim).WaitUntilStopped();
  }
  std::vector<int> survivors;
  for (int rank = 0; rank < size; ++rank) {
    if (rank != victim) survivors.push_back(rank);
  }
  for (int rank : survivors) {
    const auto failed = training.WaitFor(rank, "failed"), clean = training.WaitFor(rank, "clean");
    const std::string error = failed["error"];
    EXPECT_NE(error.find(name), std::string::npos) << error;
    EXPECT_TRUE(error.rfind("PEER_LOST", 0) == 0 || error.rfind("UNAVAILABLE", 0) == 0 ||
                error.rfind("PASS_ABORTED", 0) == 0)
        << error;
    longest->error = std::max(longest->error, failed["at"].get<int64_t>() - death);
    longest->clean = std::max(longest->clean, clean["at"].get<int64_t>() - death);
  }
  for (int rank : survivors) training.process(rank).Write(std::to_string(victim) + "\n");
  for (int rank : survivors) EXPECT_EQ(training.WaitFor(rank, "went on")["exact"], true) << rank;
  for (int rank : survivors) training.process(rank).CloseInput();
  for (int rank : survivors) EXPECT_EQ(training.process(rank).Wait(), 0) << rank;
}

// What a machine that runs other tests at the same time may take longer; the figures that are printed tell more.
constexpr int64_t kLoaded = 3 * kSecond;

// Every error comes within `limit` of the death, and all is clean a second later.
void RunMany(const std::string& way, int signal, const Settings& settings, int64_t limit) {
  // Half of them for silence, each of which takes its limit.
  const auto all = static_cast<uint32_t>(FromEnvironment("GF_KILL_RUNS", 3));
  const uint32_t runs = signal == SIGKILL ? all : (all + 1) / 2;
  const auto first = static_cast<uint32_t>(FromEnvironment("GF_KILL_FIRST_SEED", 1));
  Longest longest;
  for (uint32_t seed = first; seed < first + runs && !::testing::Test::HasFailure(); ++seed) {
    SCOPED_TRACE("to repeat this: GF_KILL_RUNS=1 GF_KILL_FIRST_SEED=" + std::to_string(seed));
    RunOne(way, seed, signal, settings, &longest);
    EXPECT_LT(longest.error, limit);
    EXPECT_LT(longest.clean, limit + kSecond + kLoaded);
  }
  std::printf("%u trainings: every error within %.1f ms of the death, everyone clean within %.1f ms\n", runs,
              static_cast<double>(longest.error) / kMillisecond, static_cast<double>(longest.clean) / kMillisecond);
}

class KillTrainingTest : public ::testing::TestWithParam<std::string> {};

TEST_P(KillTrainingTest, SurvivorsOfAKilledWorkerTrainOnExactly) { RunMany(GetParam(), SIGKILL, {}, kSecond); }

TEST_P(KillTrainingTest, SurvivorsOfAWorkerThatStandsStillTrainOnExactly) {
  RunMany(GetParam(), SIGSTOP,
          {{"liveness.interval", "200ms"}, {"liveness.suspect", "400ms"}, {"liveness.lost", "1500ms"}},
          1500 * kMillisecond + kSecond);
}

// A training takes seconds, and a death shows on TCP as it does beneath TLS.
GF_OVER(KillTrainingTest, "tensorpipe", "thrift_unix", "thrift_tls");

}  // namespace
}  // namespace gf
