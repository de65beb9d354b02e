// See goals.h.
#include "tests/bench/goals.h"

#include <cstdio>
#include <functional>
#include <string>

namespace gradferry::bench {
namespace {

using Measure = std::function<std::optional<double>(const std::string& transport)>;

std::string Number(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

class Judge {
 public:
  Judge(const Results& results, const std::vector<Subject>& subjects) : results_(results) {
    for (const Subject& subject : subjects) {
      if (subject.kind == Kind::kOurs) ours_.push_back(subject.name);
    }
  }

  // The best of our transports is to have at most `limit`.
  void Best(const std::string& what, double limit, const std::string& unit, const Measure& measure) {
    Goal goal{what, "at most " + Number(limit) + unit, std::nullopt, "", false};
    for (const std::string& transport : ours_) {
      const auto value = measure(transport);
      if (!value || (goal.value && *goal.value <= *value)) continue;
      goal.value = value;
      goal.by = transport;
    }
    goal.met = goal.value && *goal.value <= limit;
    goals_.push_back(std::move(goal));
  }

  // Each of our transports is to, but those that busy themselves on request (shm).
  void Each(const std::string& what, double limit, const std::string& unit, const Measure& measure) {
    Goal goal{what, "at most " + Number(limit) + unit, std::nullopt, "", false};
    for (const std::string& transport : ours_) {
      if (transport == "tensorpipe_shm") continue;
      const auto value = measure(transport);
      if (!value || (goal.value && *goal.value >= *value)) continue;
      goal.value = value;
      goal.by = transport;
    }
    goal.met = goal.value && *goal.value <= limit;
    goals_.push_back(std::move(goal));
  }

  // This transport is to have at least `limit` of a speed.
  void AtLeast(const std::string& what, const std::string& transport, double limit, const std::string& unit,
               std::optional<double> value) {
    const bool met = value && *value >= limit;
    goals_.push_back({what, "at least " + Number(limit) + unit, value, transport, met});
  }

  Measure AgainstStock(const std::string& measurement) const {
    return [=](const std::string& transport) { return results_.Ratio(measurement, transport, measurement, "stock"); };
  }
  Measure ValueOf(const std::string& name) const {
    return [=](const std::string& transport) { return results_.Value(name, transport); };
  }
  // How much of the raw speed a transport has.
  std::optional<double> OfRaw(const std::string& measurement, const std::string& transport,
                              const std::string& raw) const {
    return results_.Ratio(measurement, raw, measurement, transport);
  }

  std::vector<Goal> goals_;

 private:
  const Results& results_;
  std::vector<std::string> ours_;
};

}  // namespace

std::vector<Goal> JudgeGoals(const Results& results, const std::vector<Subject>& subjects) {
  Judge judge(results, subjects);
  judge.Best("call, 64 floats", 0.25, "x stock", judge.AgainstStock("add"));
  judge.Best("the same in an autograd context", 0.25, "x stock", judge.AgainstStock("add_context"));
  judge.Best("empty inline handler over Thrift/Unix", 2, "x a raw Unix echo", [&](const std::string& transport) {
    return transport == "thrift_unix" ? results.Ratio("empty", transport, "echo", "raw_unix") : std::nullopt;
  });
  judge.Best("context, call, backward, release", 0.25, "x stock", judge.AgainstStock("step"));
  judge.Best("backward through a chain of 50 calls", 0.2, "x stock", judge.AgainstStock("chain"));
  std::optional<double> rate;
  std::string fastest;
  for (const Subject& subject : subjects) {
    if (subject.kind != Kind::kOurs) continue;
    const auto ratio = results.Ratio("in_flight", "stock", "in_flight", subject.name);
    if (ratio && (!rate || *ratio > *rate)) rate = ratio, fastest = subject.name;
  }
  judge.AtLeast("rate with 128 calls in flight", fastest, 5, "x stock's", rate);
  judge.Best("64 MiB to the peer", 0.3, "x stock", judge.AgainstStock("send_64mib"));
  judge.Best("256 MiB to the peer", 0.3, "x stock", judge.AgainstStock("send_256mib"));
  judge.AtLeast("64 MiB over TensorPipe/cma", "tensorpipe", 0.85, "x process_vm_readv",
                judge.OfRaw("send_64mib", "tensorpipe", "raw_vm"));
  judge.AtLeast("64 MiB over Thrift/Unix", "thrift_unix", 0.85, "x a raw Unix stream",
                judge.OfRaw("send_64mib", "thrift_unix", "raw_unix"));
  judge.AtLeast("64 MiB over Thrift with TLS", "thrift_tls", 0.8, "x a raw TLS pair",
                judge.OfRaw("send_64mib", "thrift_tls", "raw_tls_tcp"));
  judge.Best("10,000 tensors of 1 KiB in one call", 0.33, "x stock", judge.AgainstStock("many_tensors"));
  judge.Best("p99 of a call", 4, "x its p50", [&](const std::string& transport) -> std::optional<double> {
    const auto idle = results.Find("add", transport);
    if (!idle) return std::nullopt;
    return idle->p99 / idle->p50;
  });
  judge.Best("p99 of a call beside a transfer of 1 GiB", 5, "x its p50 without",
             [&](const std::string& transport) -> std::optional<double> {
               const auto idle = results.Find("add", transport);
               const auto busy = results.Value("busy_p99", transport);
               if (!idle || !busy) return std::nullopt;
               return *busy / idle->p50;
             });
  judge.Each("an idle worker's CPU", 0.5, " % of a core", judge.ValueOf("idle_cpu"));
  judge.Each("an idle worker's wake-ups", 10, " a second", judge.ValueOf("idle_wakeups"));
  judge.Each("memory of the receiver of 1 GiB", 1.02, " GiB", judge.ValueOf("receiver_peak_gib"));
  judge.Each("memory of its sender beyond the tensor", 16, " MiB", judge.ValueOf("sender_peak_mib"));
  judge.Each("bytes copied in user space for each of a tensor's, off TLS", 0.005, "",
             [&](const std::string& transport) -> std::optional<double> {
               if (transport == "thrift_tls") return std::nullopt;
               return results.Value("copied_bytes", transport);
             });
  return judge.goals_;
}

}  // namespace gradferry::bench
