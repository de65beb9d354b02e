// The fault matrix: every kind of message times everything that can happen to a frame on its way. Whatever it is, each
// call and each pass ends in time, with what it would have come to without the fault or with a typed error; nothing is
// left; and the next step, in the same context and in a new one, is exact.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <map>
#include <ostream>
#include <string>
#include <vector>

#include "tests/faults/judge.h"
#include "tests/faults/training.h"

namespace gradferry::faults {
namespace {

struct Kind {
  const char* name;
  const char* bytes;                                 // as in transport.sim.faults, see docs/protocol.md
  StepOptions step;                                  // in which it is sent
  std::map<std::string, std::string> settings = {};  // of all workers
};

StepOptions Plain() { return {}; }
StepOptions HookFails() {
  StepOptions options;
  options.hook_fails = true;
  return options;
}
StepOptions ChosenInputs() {
  StepOptions options;
  options.chosen_inputs = true;
  return options;
}
StepOptions Profiled() {
  StepOptions options;
  options.calls_are_profiled = true;
  return options;
}
StepOptions PassOfW1() {
  StepOptions options;
  options.pass_of_w1 = true;
  return options;
}
StepOptions CallIsCancelled() {
  StepOptions options;
  options.call_is_cancelled = true;
  return options;
}

StepOptions TransferIsGivenUp() {
  StepOptions options;
  options.transfer_is_given_up = true;
  return options;
}

// All tensors of a step have 24 bytes.
const std::map<std::string, std::string> kInChunks = {{"transport.chunk_bytes", "8"}};
// Short beside the second that the cancelled call takes.
const std::map<std::string, std::string> kAsks = {{"liveness.interval", "300ms"}};
const std::map<std::string, std::string> kLeases = {{"liveness.lease", "300ms"}};

const std::vector<Kind>& Kinds() {
  static const auto* const kinds = new std::vector<Kind>{
      {"Hello", "[[4, 1]]", Plain()},
      {"HelloReply", "[[4, 2]]", Plain()},
      {"Goodbye", "[[4, 3]]", Plain()},
      {"Call", "[[4, 4]]", Plain()},
      {"Reply", "[[4, 5]]", Plain()},
      {"Cancel", "[[4, 6]]", CallIsCancelled()},
      {"RpcWithAutogradCall", "[[4, 7], [21, 4]]", Plain()},
      {"RpcWithAutogradReply", "[[4, 7], [21, 5]]", Plain()},
      {"MarkSendFunctions", "[[4, 8]]", Plain()},
      {"MarkFinished", "[[4, 9]]", Plain()},
      {"PropagateGradients", "[[4, 10]]", Plain()},
      {"AbortPass", "[[4, 11]]", HookFails()},
      {"CleanupAutogradContext", "[[4, 12]]", Plain()},
      {"Ack", "[[4, 13]]", Plain()},
      {"MarkNeeded", "[[4, 14]]", ChosenInputs()},
      {"RequestTurn", "[[4, 15]]", PassOfW1()},
      {"EndTurn", "[[4, 16]]", PassOfW1()},
      {"RpcWithProfiling", "[[4, 17]]", Profiled()},
      {"Heartbeat", "[[4, 18]]", CallIsCancelled(), kAsks},
      {"ContextsAlive", "[[4, 19]]", CallIsCancelled(), kLeases},
      {"ContextsGone", "[[4, 20]]", CallIsCancelled(), kLeases},
      {"TensorChunk", "[[4, 22]]", Plain(), kInChunks},
      {"TransferGivenUp", "[[4, 23]]", TransferIsGivenUp(), kInChunks},
      {"RpcWithAutogradInChunks", "[[4, 7]]", Plain(), kInChunks},
      {"PropagateGradientsInChunks", "[[4, 10]]", Plain(), kInChunks},
      {"AbortPassAmongChunks", "[[4, 11]]", HookFails(), kInChunks},
  };
  return *kinds;
}

void PrintTo(const Kind& kind, std::ostream* out) { *out << kind.name; }

struct Fault {
  const char* name;
  const char* rule;
  // So many steps after the fault may fail: it may be seen only when the connection is used again.
  int failures = 2;
};

const std::vector<Fault>& Faults() {
  static const auto* const faults = new std::vector<Fault>{
      {"Lost", R"(fault = "loss")"},
      {"Reset", R"(fault = "reset")"},
      {"Duplicated", R"(fault = "duplicate")"},
      {"DuplicatedLater", R"(fault = "duplicate", delay_us = 700)"},
      {"Late", R"(fault = "delay", delay_us = 25_000_000)", /*failures=*/8},
      {"Truncated", R"(fault = "truncate", part = "header")"},
      {"CutShort", R"(fault = "truncate", part = "segments")"},
      {"HeaderFlipped", R"(fault = "flip", part = "header")"},
      {"SegmentFlipped", R"(fault = "flip", part = "segments")"},
  };
  return *faults;
}

class Matrix : public ::testing::TestWithParam<Kind> {
 protected:
  static std::vector<at::Tensor> Expected(StepOptions options) {
    options.hook_fails = false;
    options.context_is_kept = false;
    Training training({});
    return training.Step(options).gradients;
  }

  static std::string Differ(const std::vector<at::Tensor>& wanted, const std::vector<at::Tensor>& got) {
    if (wanted.size() != got.size()) return "there are not as many gradients";
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (got[i].defined() != wanted[i].defined()) {
        return StrCat("gradient ", i, " is ", got[i].defined() ? "" : "not ", "there");
      }
      if (!got[i].defined()) continue;
      if (!at::equal(wanted[i], got[i])) return StrCat("gradient ", i, " is\n", got[i], "\ninstead of\n", wanted[i]);
    }
    return "";
  }

  // One place of the matrix. What went wrong, or nothing; struck: whether the fault happened.
  static std::string Try(const Kind& kind, const std::string& rule, int failures, int sender, bool* struck) {
    std::map<int, std::map<std::string, std::string>> settings;
    for (int worker = 0; worker < 3; ++worker) settings[worker] = kind.settings;
    settings[sender]["transport.sim.faults"] = "[{ " + rule + " }]";
    const auto expected_first = Expected(kind.step), expected = Expected(StepOptions());
    Training training(settings);
    int failed = 0;
    for (int step = 0; step < failures + 2; ++step) {
      StepOptions options = step == 0 ? kind.step : StepOptions();
      options.context_is_kept = true;
      const Outcome outcome = training.Step(options);
      const std::string where = StrCat("step ", step, ", ", outcome.what, ": ");
      if (outcome.late > kLate) return StrCat(where, "ended ", outcome.late / 1e6, " ms after its deadline");
      if (outcome.status.ok()) {
        if (options.hook_fails) return where + "the pass did not fail";
        const std::string difference = Differ(step == 0 ? expected_first : expected, outcome.gradients);
        if (!difference.empty()) return where + difference;
        // A context in which something failed is as good as a new one; after a good step there is a new one.
        training.Release();
        const std::string left = training.LeftBehind();
        if (!left.empty()) return where + "left behind: " + left;
      } else {
        if (!options.hook_fails && training.Struck(sender) == 0) return where + outcome.status.ToString();
        // The pass of w1 may have gone well although w0 has not heard of it.
        // A context ends with its lease, too, where whoever made it could not be asked.
        const bool lease_ended = kind.settings.count("liveness.lease") > 0 && outcome.status.code() == Code::kNotFound;
        if (lease_ended) training.ReleaseIfThere();
        if (options.pass_of_w1) training.Release();
        const std::string wrong = options.hook_fails ? "" : Judge(outcome.status);
        if (!wrong.empty()) return StrCat(where, wrong, ": ", outcome.status.ToString());
        if (++failed > failures) return StrCat(where, "failed again: ", outcome.status.ToString());
      }
    }
    const std::string wrong = training.Close();
    *struck = training.Struck(sender) > 0;
    return wrong;
  }
};

TEST_P(Matrix, EndsInTimeExactOrWithATypedErrorAndLeavesNothing) {
  const Kind& kind = GetParam();
  for (const Fault& fault : Faults()) {
    int struck_times = 0;
    for (int sender = 0; sender < 3; ++sender) {
      for (int receiver = 0; receiver < 3; ++receiver) {
        if (receiver == sender) continue;
        for (int nth = 1; nth <= 3; ++nth) {
          const std::string rule =
              StrCat(fault.rule, ", bytes = ", kind.bytes, ", to = [", receiver + 1, "], first = ", nth, ", count = 1");
          SCOPED_TRACE(StrCat("worker w", sender, ": { ", rule, " }"));
          bool struck = false;
          const std::string wrong = Try(kind, rule, fault.failures, sender, &struck);
          EXPECT_EQ(wrong, "");
          if (!struck) break;
          ++struck_times;
        }
      }
    }
    const std::string name = fault.name;
    if (name != "CutShort" && name != "SegmentFlipped") {
      EXPECT_GT(struck_times, 0) << fault.name;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Faults, Matrix, ::testing::ValuesIn(Kinds()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace gradferry::faults
