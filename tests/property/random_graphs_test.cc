// Distributed backward is exact: random programs, each run uncut by libtorch alone and cut over 2 to 5 workers. Every
// gradient must be what torch::autograd::grad says, and what has none there has none here.
//
// GF_PROPERTY_SEEDS (2000) says how many programs, GF_PROPERTY_FIRST_SEED (1) with which to begin. A failure prints the
// program and the command that repeats it.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>

#include "impl/base/live.h"
#include "tests/property/compare.h"
#include "tests/property/cut.h"
#include "tests/property/generate.h"
#include "tests/property/random.h"

namespace gradferry::property {
namespace {

uint64_t FromEnvironment(const char* variable, uint64_t fallback) {
  const char* text = std::getenv(variable);
  return text == nullptr || *text == '\0' ? fallback : std::strtoull(text, nullptr, 10);
}

// Groups are used for many programs, each for at most so many.
constexpr int kProgramsPerGroup = 50;

class Groups {
 public:
  Group& For(const Program& program) {
    Random random(program.seed, /*purpose=*/100, 0);
    GroupOptions options;
    options.workers = program.workers;
    for (int i = 0; i < program.workers; ++i) options.threads.push_back(random.Chance(0.5) ? 1 : 2);
    options.virtual_time = random.Chance(0.5);
    options.latency_max_us = options.virtual_time && random.Chance(0.7) ? 1000 : 0;
    options.seed = random.Next();
    const Kind kind(program.workers, options.virtual_time, options.latency_max_us);
    Used& used = groups_[kind];
    if (!used.group || ++used.programs > kProgramsPerGroup) {
      used.group.reset();
      used.group = std::make_unique<Group>(options);
      used.programs = 1;
      AddHandlers(*used.group);
    }
    return *used.group;
  }
  void Clear() { groups_.clear(); }

 private:
  using Kind = std::tuple<int, bool, int>;
  struct Used {
    std::unique_ptr<Group> group;
    int programs = 0;
  };
  std::map<Kind, Used> groups_;
};

std::string Report(const Program& program, const std::string& what) {
  return StrCat(what, "\n\n", Describe(program), "\nTo repeat this: GF_PROPERTY_FIRST_SEED=", program.seed,
                " GF_PROPERTY_SEEDS=1 ./dev test property\n");
}

struct Totals {
  int programs = 0, without_roots = 0, calls = 0, steps = 0;
  int gradients = 0, bit_exact = 0, sparse = 0, absent = 0, hooks = 0;
};

void Count(const Program& program, const Outcome& uncut, const Comparison& comparison, Totals* totals) {
  ++totals->programs;
  totals->without_roots += uncut.roots.empty();
  totals->steps += program.steps;
  for (const Function& function : program.functions) {
    for (const Step& step : function.steps) totals->calls += step.op == Op::kCall || step.worker >= 0;
  }
  totals->gradients += comparison.gradients;
  totals->bit_exact += comparison.bit_exact;
  totals->sparse += comparison.sparse;
  totals->absent += comparison.absent;
  totals->hooks += static_cast<int>(uncut.observations.hooks().size());
}

// An empty text, or what went wrong.
std::string Try(const Program& program, Groups& groups, Totals* totals) {
  try {
    const Outcome uncut = RunUncut(program);
    const Outcome cut = RunCut(program, groups.For(program));
    const Comparison comparison = Compare(program, uncut, cut);
    Count(program, uncut, comparison, totals);
    return comparison.difference;
  } catch (const Stuck& stuck) {
    // Its threads cannot be ended; what follows would only fail for that.
    std::fprintf(stderr, "%s", Report(program, stuck.what()).c_str());
    std::fflush(stderr);
    std::_Exit(1);
  } catch (const std::exception& error) {
    return error.what();
  }
}

TEST(RandomGraphs, HaveTheGradientsOfTheUncutGraph) {
  const uint64_t first = FromEnvironment("GF_PROPERTY_FIRST_SEED", 1);
  const uint64_t seeds = FromEnvironment("GF_PROPERTY_SEEDS", 2000);
  Groups groups;
  Totals totals;
  int failures = 0;
  for (uint64_t seed = first; seed < first + seeds && failures < 5; ++seed) {
    const Program program = Generate(seed);
    const std::string difference = Try(program, groups, &totals);
    if (difference.empty()) continue;
    ADD_FAILURE() << Report(program, StrCat("seed ", seed, ": ", difference));
    ++failures;
    groups.Clear();
  }
  groups.Clear();
  std::printf(
      "%d programs (%d without roots) of %d steps and %d calls in all; %d gradients, %d of them bit for bit, "
      "%d sparse; %d leaves without one; %d hooks\n",
      totals.programs, totals.without_roots, totals.steps, totals.calls, totals.gradients, totals.bit_exact,
      totals.sparse, totals.absent, totals.hooks);
  for (LiveKind kind :
       {LiveKind::kAutogradContexts, LiveKind::kSendFunctions, LiveKind::kRecvFunctions, LiveKind::kPasses}) {
    EXPECT_EQ(LiveCount(kind), 0) << "of kind " << static_cast<uint32_t>(kind);
  }
}

}  // namespace
}  // namespace gradferry::property
