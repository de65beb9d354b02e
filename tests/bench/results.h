// What came out: for each measurement and subject its slices, one a round, and single values besides; what follows from
// them; as JSON.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "tests/bench/pair.h"
#include "tests/bench/plan.h"
#include "tests/bench/statistics.h"

namespace gradferry::bench {

// What others did to a round.
struct Disturbance {
  double steal = 0;   // of the machine's time
  double others = 0;  // cores that processes other than those of the bench kept busy
};

// What is said of a measurement of a subject; times in ns.
struct Summary {
  double median = 0;  // of the rounds' medians
  Interval interval;
  double p50 = 0;  // of all samples
  double p99 = 0;
  double cpu_driver = 0;  // of a sample
  double cpu_peer = 0;
  size_t samples = 0;
};

class Results {
 public:
  void AddSlice(const std::string& measurement, const std::string& subject, int round, Slice slice);
  void AddRound(const Disturbance& disturbance) { disturbances_.push_back(disturbance); }
  // A number of another kind: "idle_cpu".
  void AddValue(const std::string& name, const std::string& subject, double value) { values_[name][subject] = value; }
  // Why a subject, or a measurement of it, is missing.
  void AddFailure(const std::string& what, const std::string& why) { failures_[what] = why; }

  std::optional<Summary> Find(const std::string& measurement, const std::string& subject) const;
  std::optional<double> Value(const std::string& name, const std::string& subject) const;
  // The median over rounds of how many times longer one took than another; another measurement of it, if need be.
  std::optional<double> Ratio(const std::string& measurement, const std::string& subject,
                              const std::string& other_measurement, const std::string& other) const;

  // Rounds that count: those that were not disturbed, if there are enough of them, else all.
  std::vector<int> UsedRounds() const;
  bool OnlyUndisturbed() const;
  const std::vector<Disturbance>& disturbances() const { return disturbances_; }
  const std::map<std::string, std::string>& failures() const { return failures_; }

  nlohmann::json ToJson() const;

 private:
  using Slices = std::map<int, Slice>;  // by round
  const Slices* SlicesOf(const std::string& measurement, const std::string& subject) const;

  std::map<std::string, std::map<std::string, Slices>> slices_;
  std::map<std::string, std::map<std::string, double>> values_;
  std::vector<Disturbance> disturbances_;
  std::map<std::string, std::string> failures_;
};

}  // namespace gradferry::bench
