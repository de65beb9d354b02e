// See random_faults.h.
#include "tests/faults/random_faults.h"

#include <iterator>
#include <map>
#include <nlohmann/json.hpp>

#include "impl/base/live.h"
#include "tests/faults/judge.h"
#include "tests/property/compare.h"
#include "tests/property/cut.h"
#include "tests/property/generate.h"
#include "tests/property/group.h"
#include "tests/property/random.h"

namespace gradferry::faults {
namespace {

using property::Random;

// Virtual time after which no fault strikes any more.
constexpr int64_t kFaultsEndUs = 100000;
constexpr int kKinds = 20;  // of messages

std::string RandomRule(Random& random) {
  static const char* const kFaults[] = {"duplicate", "delay", "loss", "reset", "truncate", "flip"};
  const std::string fault = kFaults[random.Below(std::size(kFaults))];
  std::string rule = StrCat("{ fault = \"", fault, "\", until_us = ", kFaultsEndUs);
  if (fault == "delay")
    rule += StrCat(", delay_us = ", random.Below(2000), ", delay_max_us = ", 2000 + random.Below(9000000));
  if (fault == "duplicate") rule += StrCat(", delay_us = ", random.Below(3000));
  if (random.Chance(0.7)) rule += StrCat(", bytes = [[4, ", random.Between(1, kKinds), "]]");
  if (random.Chance(0.5)) {
    rule += StrCat(", first = ", random.Between(1, 6), ", count = 1");
  } else {
    rule += StrCat(", probability = ", random.Between(1, 30) / 100.0);
  }
  return rule + " }";
}

WorkerFault RandomFault(Random& random, int workers) {
  WorkerFault fault;
  fault.worker = static_cast<int>(random.Below(workers));
  const double kind = random.Unit();
  const int64_t from = random.Below(20000);
  const int64_t until = from + random.Between(1, 30000);
  if (kind < 0.15) {
    fault.list = "deaths";
    fault.table = StrCat("{ from_us = ", from, ", until_us = ", until, " }");
  } else if (kind < 0.25) {  // what it sends reaches nobody
    fault.list = "partitions";
    fault.table = StrCat("{ sets = [[", fault.worker + 1, "]], from_us = ", from, ", until_us = ", until, " }");
  } else {
    fault.list = "faults";
    fault.table = RandomRule(random);
  }
  return fault;
}

property::GroupOptions Options(const Case& tried) {
  property::GroupOptions options;
  options.workers = tried.program.workers;
  options.threads.assign(options.workers, 1);
  options.seed = tried.seed;
  options.virtual_time = true;
  options.latency_max_us = 1000;
  options.settings = {{"transport.checksum", "all"},   {"transport.sim.latency_min_us", "50"},
                      {"transport.sim.stall_ms", "0"}, {"call.timeout", "5s"},
                      {"liveness.lease", "2s"},  // off by default where time is virtual
                      {"backward.timeout", "20s"}};
  for (const WorkerFault& fault : tried.faults) {
    std::string& list = options.of_one[fault.worker]["transport.sim." + fault.list];
    list = list.empty() ? "[" + fault.table + "]" : list.substr(0, list.size() - 1) + ", " + fault.table + "]";
  }
  return options;
}

// Runs the program once. What is wrong with what it came to.
std::string RunOnce(const Case& tried, property::Group& group, const property::Outcome& uncut, Status* status) {
  try {
    const property::Outcome cut = RunCut(tried.program, group);
    return Compare(tried.program, uncut, cut).difference;
  } catch (const property::Failed& failed) {
    *status = failed.status;
    const std::string wrong = Judge(failed.status);
    return wrong.empty() ? "" : StrCat(wrong, ": ", failed.what());
  }
}

// Until the virtual clock has come this far.
void AwaitTime(Clock& clock, int64_t at) {
  property::Holding holding(clock);
  Future future;
  clock.Schedule(at, [&future] { future.Complete(ValueList()); });
  (void)property::Await(clock, future, "the time");
}

int64_t Struck(property::Group& group) {
  int64_t struck = 0;
  for (int i = 0; i < group.size(); ++i) {
    struck += nlohmann::json::parse(group.worker(i).InfoJson()).at("transport_counters").at("faults").get<int64_t>();
  }
  return struck;
}

}  // namespace

Case MakeCase(uint64_t seed) {
  Case made;
  made.seed = seed;
  made.program = property::Generate(seed);
  Random random(seed, /*purpose=*/200, 0);
  for (int64_t count = random.Between(1, 3); count > 0; --count) {
    made.faults.push_back(RandomFault(random, made.program.workers));
  }
  return made;
}

std::string Describe(const Case& tried) {
  std::string text = Describe(tried.program);
  for (const WorkerFault& fault : tried.faults) {
    text += StrCat("worker ", fault.worker, ": transport.sim.", fault.list, " ", fault.table, "\n");
  }
  return text;
}

Verdict Try(const Case& tried) {
  Verdict verdict;
  const property::Outcome uncut = RunUncut(tried.program);
  {
    property::Group group(Options(tried));
    AddHandlers(group);
    Status status;
    verdict.wrong = RunOnce(tried, group, uncut, &status);
    verdict.failed = !status.ok();
    verdict.struck = Struck(group);
    if (verdict.wrong.empty() && verdict.failed && verdict.struck == 0 && tried.faults.empty()) {
      verdict.wrong = "it failed without a fault: " + status.ToString();
    }
    // Delayed frames come at last, and what was seen too late breaks its connection now.
    Clock& clock = group.worker(0).clock();
    AwaitTime(clock, clock.Now() + int64_t{60} * 1000000000);
    for (int attempt = 0; attempt < 3 && verdict.wrong.empty(); ++attempt) {
      status = OkStatus();
      verdict.wrong = RunOnce(tried, group, uncut, &status);
      if (status.ok()) break;
      if (attempt == 2) verdict.wrong = "it still fails when the faults are over: " + status.ToString();
    }
  }
  if (verdict.wrong.empty() && LiveCount(LiveKind::kCalls) != 0) {
    verdict.wrong = StrCat(LiveCount(LiveKind::kCalls), " calls are left");
  }
  return verdict;
}

}  // namespace gradferry::faults
