// Explores many seeds of random programs with random faults (random_faults.h); shrinks the first that goes wrong and
// prints it. Each case runs in a process of its own, so that crashes and hangs are found, and shrunk, like all else.
//
//   explore_main [--seeds N] [--from S]    N seeds from S on (10000 from 1)
//   explore_main --seed S                  this one; shrinks it when it goes wrong
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "impl/base/status.h"
#include "tests/faults/random_faults.h"
#include "tests/property/group.h"

namespace gradferry::faults {
namespace {

constexpr int kTimeLimitMs = 60000;

// What is wrong with a case; empty: nothing.
std::string TryApart(const Case& tried) {
  int ends[2];
  if (pipe(ends) != 0) return "pipe failed";
  const pid_t child = fork();
  if (child == 0) {
    close(ends[0]);
    property::SetStuckAfter(std::chrono::seconds(20));
    std::string wrong;
    try {
      wrong = Try(tried).wrong;
    } catch (const std::exception& error) {
      wrong = error.what();
    }
    wrong = wrong.empty() ? "+" : "-" + wrong.substr(0, 4000);
    const bool written = write(ends[1], wrong.data(), wrong.size()) > 0;
    _exit(written ? 0 : 1);
  }
  close(ends[1]);
  char text[4096];
  pollfd wait{ends[0], POLLIN, 0};
  const bool came = poll(&wait, 1, kTimeLimitMs) > 0;
  const ssize_t length = came ? read(ends[0], text, sizeof(text)) : 0;
  close(ends[0]);
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  if (!came) return "it did not end";
  if (length <= 0) return "it crashed";
  return std::string(text + 1, text + length);
}

// A case that is smaller in one place.
using Candidates = std::vector<Case>;

bool IsUsed(const property::Program& program, size_t function, int value) {
  for (const property::Step& step : program.functions[function].steps) {
    for (int input : step.inputs) {
      if (input == value) return true;
    }
  }
  for (int result : program.functions[function].results) {
    if (result == value) return true;
  }
  if (function != 0) return false;
  for (const property::PassPlan& pass : program.passes) {
    for (const property::Root& root : pass.roots) {
      if (root.value == value) return true;
    }
  }
  return false;
}

Candidates Smaller(const Case& large) {
  Candidates all;
  auto add = [&](const std::function<void(Case&)>& change) {
    all.push_back(large);
    change(all.back());
  };
  const auto& program = large.program;
  for (size_t i = 0; i < large.faults.size(); ++i) {
    add([i](Case& c) { c.faults.erase(c.faults.begin() + static_cast<ptrdiff_t>(i)); });
  }
  for (size_t p = 0; program.passes.size() > 1 && p < program.passes.size(); ++p) {
    add([p](Case& c) { c.program.passes.erase(c.program.passes.begin() + static_cast<ptrdiff_t>(p)); });
  }
  for (size_t p = 0; p < program.passes.size(); ++p) {
    for (size_t r = 0; program.passes[p].roots.size() > 1 && r < program.passes[p].roots.size(); ++r) {
      add([=](Case& c) {
        auto& roots = c.program.passes[p].roots;
        roots.erase(roots.begin() + static_cast<ptrdiff_t>(r));
      });
    }
  }
  for (size_t f = 0; f < program.functions.size(); ++f) {
    const auto& steps = program.functions[f].steps;
    for (size_t s = steps.size(); s-- > 0;) {
      bool used = false;
      for (int output : steps[s].outputs) used = used || IsUsed(program, f, output);
      if (!used) {
        add([=](Case& c) {
          auto& shorter = c.program.functions[f].steps;
          shorter.erase(shorter.begin() + static_cast<ptrdiff_t>(s));
        });
      }
      if (steps[s].worker >= 0 && steps[s].op != property::Op::kMetric) {
        add([=](Case& c) { c.program.functions[f].steps[s].worker = -1; });
      }
      if (steps[s].in_background) add([=](Case& c) { c.program.functions[f].steps[s].in_background = false; });
      if (steps[s].fails_first) add([=](Case& c) { c.program.functions[f].steps[s].fails_first = false; });
    }
  }
  // A probability becomes one frame that it strikes.
  for (size_t i = 0; i < large.faults.size(); ++i) {
    const std::string& table = large.faults[i].table;
    const size_t begin = table.find("probability = ");
    if (begin == std::string::npos) continue;
    const size_t end = table.find_first_of(",}", begin);
    for (int nth = 1; nth <= 12; ++nth) {
      add([&, nth](Case& c) {
        c.faults[i].table = table.substr(0, begin) + StrCat("first = ", nth, ", count = 1 ") + table.substr(end);
      });
    }
  }
  return all;
}

Case Shrink(Case large, std::string* wrong) {
  for (bool smaller = true; smaller;) {
    smaller = false;
    for (Case& candidate : Smaller(large)) {
      const std::string still = TryApart(candidate);
      if (still.empty()) continue;
      large = std::move(candidate);
      *wrong = still;
      smaller = true;
      break;
    }
  }
  return large;
}

// Whether all went well.
bool Explore(uint64_t from, uint64_t seeds) {
  for (uint64_t seed = from; seed < from + seeds; ++seed) {
    if ((seed - from) % 500 == 499) {
      std::printf("%lu seeds\n", static_cast<unsigned long>(seed - from + 1));
      std::fflush(stdout);
    }
    const Case tried = MakeCase(seed);
    std::string wrong = TryApart(tried);
    if (wrong.empty()) continue;
    std::printf("seed %lu: %s\nshrinking\n", static_cast<unsigned long>(seed), wrong.c_str());
    std::fflush(stdout);
    const Case smallest = Shrink(tried, &wrong);
    std::printf("%s\n%s\nTo repeat it: ./dev soak faults --seed %lu\n", wrong.c_str(), Describe(smallest).c_str(),
                static_cast<unsigned long>(seed));
    return false;
  }
  std::printf("%lu seeds from %lu on went as promised\n", static_cast<unsigned long>(seeds),
              static_cast<unsigned long>(from));
  return true;
}

int Main(int count, char** arguments) {
  uint64_t from = 1, seeds = 10000;
  for (int i = 1; i < count; ++i) {
    const std::string name = arguments[i];
    char* end = nullptr;
    const uint64_t value = i + 1 < count ? std::strtoull(arguments[i + 1], &end, 10) : 0;
    const bool number = end != nullptr && *end == '\0' && end != arguments[i + 1];
    if (!number || (name != "--seeds" && name != "--from" && name != "--seed")) {
      std::fprintf(stderr, "usage: [--seeds N] [--from S] [--seed S]; '%s' is not that\n", name.c_str());
      return 2;
    }
    ++i;
    if (name != "--seeds") from = value;
    if (name == "--seeds") seeds = value;
    if (name == "--seed") seeds = 1;
  }
  return Explore(from, seeds) ? 0 : 1;
}

}  // namespace
}  // namespace gradferry::faults

int main(int count, char** arguments) { return gradferry::faults::Main(count, arguments); }
