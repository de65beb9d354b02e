// Random programs with random faults. GF_FAULT_SEEDS (500) says how many; a failure prints the case and the command
// that repeats and shrinks it.
#include "tests/faults/random_faults.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "tests/property/group.h"

namespace gradferry::faults {
namespace {

TEST(RandomFaults, LeadToExactGradientsOrTypedErrorsAndLeaveNothing) {
  const char* text = std::getenv("GF_FAULT_SEEDS");
  const uint64_t seeds = text == nullptr || *text == '\0' ? 500 : std::strtoull(text, nullptr, 10);
  property::SetStuckAfter(std::chrono::seconds(30));
  int struck = 0, failed = 0;
  for (uint64_t seed = 1; seed <= seeds && !HasFailure(); ++seed) {
    const Case tried = MakeCase(seed);
    const Verdict verdict = [&] {
      try {
        return Try(tried);
      } catch (const property::Stuck& stuck) {
        // Its threads cannot be ended.
        std::fprintf(stderr, "seed %lu: %s\n%s", static_cast<unsigned long>(seed), stuck.what(),
                     Describe(tried).c_str());
        std::_Exit(1);
      }
    }();
    EXPECT_EQ(verdict.wrong, "") << Describe(tried) << "To repeat and shrink it: ./dev soak faults --seed " << seed;
    struck += verdict.struck > 0;
    failed += verdict.failed;
  }
  std::printf("faults struck %d of %d programs, %d failed\n", struck, static_cast<int>(seeds), failed);
  EXPECT_GT(struck, static_cast<int>(seeds) / 4);
}

}  // namespace
}  // namespace gradferry::faults
