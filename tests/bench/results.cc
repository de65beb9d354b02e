// See results.h.
#include "tests/bench/results.h"

#include <utility>

namespace gradferry::bench {
namespace {

constexpr double kMostSteal = 0.01;
constexpr double kMostOthers = 0.1;

bool Undisturbed(const Disturbance& round) { return round.steal <= kMostSteal && round.others <= kMostOthers; }

std::vector<int> Quiet(const std::vector<Disturbance>& rounds) {
  std::vector<int> quiet;
  for (size_t i = 0; i < rounds.size(); ++i) {
    if (Undisturbed(rounds[i])) quiet.push_back(static_cast<int>(i));
  }
  return quiet;
}

}  // namespace

void Results::AddSlice(const std::string& measurement, const std::string& subject, int round, Slice slice) {
  if (!slice.ns.empty()) slices_[measurement][subject][round] = std::move(slice);
}

const Results::Slices* Results::SlicesOf(const std::string& measurement, const std::string& subject) const {
  const auto by_subject = slices_.find(measurement);
  if (by_subject == slices_.end()) return nullptr;
  const auto slices = by_subject->second.find(subject);
  return slices == by_subject->second.end() ? nullptr : &slices->second;
}

bool Results::OnlyUndisturbed() const {
  const size_t quiet = Quiet(disturbances_).size();
  return quiet >= 3 && 2 * quiet >= disturbances_.size();
}

std::vector<int> Results::UsedRounds() const {
  if (OnlyUndisturbed()) return Quiet(disturbances_);
  std::vector<int> all;
  for (size_t i = 0; i < disturbances_.size(); ++i) all.push_back(static_cast<int>(i));
  return all;
}

std::optional<Summary> Results::Find(const std::string& measurement, const std::string& subject) const {
  const Slices* slices = SlicesOf(measurement, subject);
  if (slices == nullptr) return std::nullopt;
  Summary summary;
  std::vector<double> medians, all;
  for (const int round : UsedRounds()) {
    const auto found = slices->find(round);
    if (found == slices->end()) continue;
    const Slice& slice = found->second;
    medians.push_back(Median(slice.ns));
    all.insert(all.end(), slice.ns.begin(), slice.ns.end());
    summary.cpu_driver += slice.cpu_driver;
    summary.cpu_peer += slice.cpu_peer;
  }
  if (all.empty()) return std::nullopt;
  summary.samples = all.size();
  summary.median = Median(medians);
  summary.interval = MedianInterval(medians);
  summary.cpu_driver *= 1e9 / static_cast<double>(all.size());
  summary.cpu_peer *= 1e9 / static_cast<double>(all.size());
  summary.p50 = Percentile(all, 50);
  summary.p99 = Percentile(std::move(all), 99);
  return summary;
}

std::optional<double> Results::Value(const std::string& name, const std::string& subject) const {
  const auto by_subject = values_.find(name);
  if (by_subject == values_.end()) return std::nullopt;
  const auto value = by_subject->second.find(subject);
  if (value == by_subject->second.end()) return std::nullopt;
  return value->second;
}

std::optional<double> Results::Ratio(const std::string& measurement, const std::string& subject,
                                     const std::string& other_measurement, const std::string& other) const {
  const Slices* ours = SlicesOf(measurement, subject);
  const Slices* others = SlicesOf(other_measurement, other);
  if (ours == nullptr || others == nullptr) return std::nullopt;
  std::vector<double> ratios;
  for (const int round : UsedRounds()) {
    const auto a = ours->find(round), b = others->find(round);
    if (a != ours->end() && b != others->end()) ratios.push_back(Median(a->second.ns) / Median(b->second.ns));
  }
  if (ratios.empty()) return std::nullopt;
  return Median(ratios);
}

nlohmann::json Results::ToJson() const {
  using nlohmann::json;
  json rounds = json::array();
  for (const Disturbance& round : disturbances_) {
    rounds.push_back({{"steal", round.steal}, {"others", round.others}, {"undisturbed", Undisturbed(round)}});
  }
  json measurements = json::object();
  for (const auto& [measurement, by_subject] : slices_) {
    for (const auto& [subject, slices] : by_subject) {
      const auto summary = Find(measurement, subject);
      if (!summary) continue;
      json medians = json::object();
      for (const auto& [round, slice] : slices) medians[std::to_string(round)] = Median(slice.ns);
      measurements[measurement][subject] = {{"median_ns", summary->median},
                                            {"interval_ns", {summary->interval.low, summary->interval.high}},
                                            {"p50_ns", summary->p50},
                                            {"p99_ns", summary->p99},
                                            {"cpu_driver_ns", summary->cpu_driver},
                                            {"cpu_peer_ns", summary->cpu_peer},
                                            {"samples", summary->samples},
                                            {"round_medians_ns", medians}};
    }
  }
  return {{"rounds", rounds}, {"measurements", measurements}, {"values", values_}, {"failures", failures_}};
}

}  // namespace gradferry::bench
