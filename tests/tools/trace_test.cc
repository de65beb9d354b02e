// Traces of several workers, merged by the command: by the rules of the format, and the arrows with time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/c_abi/group.h"
#include "tests/tools/run_command.h"
#include "tools/gradferry/library.h"
#include "tools/gradferry/merge.h"

namespace gf {
namespace {

using gradferry::command::Failure;
using gradferry::command::MergeTraces;
using nlohmann::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// What Perfetto and chrome://tracing ask of a file; "" when it keeps all of it.
std::string BrokenRule(const json& document) {
  if (!document["traceEvents"].is_array()) return "no array traceEvents";
  struct Slice {
    double start, end;
  };
  using Row = std::pair<int64_t, int64_t>;
  std::map<Row, std::vector<Slice>> rows;
  std::map<std::string, std::vector<json>> flows;
  for (const json& e : document["traceEvents"]) {
    const std::string phase = e.value("ph", "");
    if (phase.empty() || !e["pid"].is_number_integer() || !e["tid"].is_number_integer() || !e["name"].is_string()) {
      return "an event without ph, pid, tid or name: " + e.dump();
    }
    if (phase == "M") {
      if (e["name"] != "process_name" && e["name"] != "thread_name") return "unknown metadata: " + e.dump();
      if (!e["args"]["name"].is_string()) return "metadata without a name: " + e.dump();
      continue;
    }
    if (!e["ts"].is_number() || !e["cat"].is_string()) return "an event without ts or cat: " + e.dump();
    if (phase == "X") {
      if (!e["dur"].is_number() || e["dur"] < 0) return "a slice without dur: " + e.dump();
      rows[{e["pid"], e["tid"]}].push_back({e["ts"], e["ts"].get<double>() + e["dur"].get<double>()});
    } else if (phase == "s" || phase == "f") {
      if (!e["id"].is_string() && !e["id"].is_number()) return "an arrow without id: " + e.dump();
      if (phase == "f" && e["bp"] != "e") return "an arrow's end that binds to the next slice: " + e.dump();
      flows[e["id"].dump()].push_back(e);
    } else {
      return "an unknown phase: " + e.dump();
    }
  }
  constexpr double kRounding = 0.01;
  for (auto& [row, slices] : rows) {
    std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
      return std::make_pair(a.start, -a.end) < std::make_pair(b.start, -b.end);
    });
    std::vector<Slice> open;
    for (const Slice& slice : slices) {
      while (!open.empty() && open.back().end <= slice.start + kRounding) open.pop_back();
      if (!open.empty() && slice.end > open.back().end + kRounding) return "slices of one row that cross";
      open.push_back(slice);
    }
  }
  for (const auto& [id, ends] : flows) {
    if (ends.size() != 2 || ends[0]["ph"] == ends[1]["ph"]) return "an arrow without two ends: " + id;
    if (ends[0]["name"] != ends[1]["name"] || ends[0]["cat"] != ends[1]["cat"]) return "ends that differ: " + id;
    for (const json& end : ends) {
      const double at = end["ts"];
      bool bound = false;
      for (const Slice& s : rows[{end["pid"], end["tid"]}]) {
        bound = bound || (s.start <= at + kRounding && at <= s.end + kRounding);
      }
      if (!bound) return "an arrow's end outside of all slices: " + end.dump();
    }
  }
  return "";
}

// By how much arrows go back in time, at most; and how many there are of each name.
double Backwards(const json& document, std::map<std::string, int>* counts) {
  std::map<std::string, std::pair<double, double>> times;
  for (const json& e : document["traceEvents"]) {
    if (e["ph"] == "s") times[e["id"]].first = e["ts"], ++(*counts)[e["name"]];
    if (e["ph"] == "f") times[e["id"]].second = e["ts"];
  }
  double most = 0;
  for (const auto& [id, pair] : times) most = std::max(most, pair.first - pair.second);
  return most;
}

json Shifted(json trace, double us) {
  for (json& e : trace["traceEvents"]) {
    if (e.contains("ts")) e["ts"] = e["ts"].get<double>() + us;
  }
  return trace;
}

class TraceMergeTest : public LiveTest {
 protected:
  // A step over two others, traced: calls, answers, gradients.
  std::vector<json> Record() {
    Group group("tensorpipe", {"a", "b", "c"});
    for (size_t i = 0; i < 3; ++i) Call(gf_worker_trace_start, group[i], uint64_t{0});
    for (int i = 0; i < 20; ++i) {
      const Tensor x = WithGrad(Floats({}, {3}));
      const Context context = NewContext(group[0]);
      const Tensor y = RemoteOp(group[0], "b", In(context), "aten::mul.Tensor", x, x);
      Backward(context, {RemoteOp(group[0], "c", In(context), "aten::neg", y)});
      Release(context);
    }
    std::vector<json> traces;
    for (size_t i = 0; i < 3; ++i) traces.push_back(TraceOf(group[i]));
    return traces;
  }
};

TEST_F(TraceMergeTest, ClocksThatDifferAreAlignedAndEachMessageHasItsArrow) {
  const std::vector<json> traces = Record();
  const TemporaryFolder folder;
  constexpr double kAhead[] = {0, 5e6, -7e9};
  std::string files;
  for (size_t i = 0; i < 3; ++i) {
    files += " " + folder.Write(std::to_string(i) + ".json", Shifted(traces[i], kAhead[i]).dump());
  }
  const Ran ran = RunGradferry("trace merge" + files + " -o " + folder.File("merged.json"));
  ASSERT_EQ(ran.status, 0) << ran.err;
  std::ifstream file(folder.File("merged.json"));
  const json merged = json::parse(file);
  EXPECT_EQ(BrokenRule(merged), "");
  std::map<std::string, int> counts;
  const double backwards = Backwards(merged, &counts);
  double error = 0;
  for (size_t i = 0; i < 3; ++i) {
    const json& worker = merged["otherData"]["workers"][std::string(1, static_cast<char>('a' + i))];
    ASSERT_TRUE(worker["error_us"].is_number());
    error = std::max(error, worker["error_us"].get<double>());
    EXPECT_NEAR(worker["offset_us"], -kAhead[i], worker["error_us"].get<double>() + 0.01);
  }
  EXPECT_LE(backwards, 2 * error + 0.01);
  EXPECT_EQ(counts["aten::mul.Tensor"], 20);
  EXPECT_EQ(counts["aten::neg"], 20);
  EXPECT_EQ(counts["aten::neg: answer"], 20);
  EXPECT_EQ(counts["gradients"], 80);  // to c, back, to b, back
}

TEST_F(TraceMergeTest, TracesOfOneWorkerAndWorkersThatDoNotTalkAreFine) {
  const std::vector<json> traces = Record();
  EXPECT_EQ(BrokenRule(MergeTraces({{"a.json", traces[0]}})), "");
  // b and c talk to a only, whose trace is not there.
  const json merged = MergeTraces({{"b.json", traces[1]}, {"c.json", traces[2]}});
  EXPECT_EQ(BrokenRule(merged), "");
  EXPECT_EQ(merged["otherData"]["workers"]["b"]["error_us"], 0);
}

std::string ErrorOfMerge(std::vector<gradferry::command::Trace> traces) {
  try {
    MergeTraces(std::move(traces));
  } catch (const Failure& failure) {
    return failure.what();
  }
  return "";
}

TEST_F(TraceMergeTest, WhatIsNoTraceIsNamed) {
  const json good = {{"traceEvents", json::array()}, {"otherData", {{"worker", "a"}}}};
  EXPECT_EQ(ErrorOfMerge({{"good.json", good}}), "");
  EXPECT_THAT(ErrorOfMerge({{"good.json", good}, {"again.json", good}}), HasSubstr("again.json are both of worker a"));
  for (const char* bad : {"3", "{}", R"({"traceEvents": []})", R"({"traceEvents": [3], "otherData": {"worker": "a"}})",
                          R"({"traceEvents": [{"ph": "X"}], "otherData": {"worker": "a"}})",
                          R"({"traceEvents": [], "otherData": {"worker": 3}})"}) {
    EXPECT_THAT(ErrorOfMerge({{"bad.json", json::parse(bad)}}), HasSubstr("bad.json is no trace of a worker")) << bad;
  }
  const TemporaryFolder folder;
  const Ran ran = RunGradferry("trace merge " + folder.Write("x.json", "{"));
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.err, HasSubstr("x.json is no JSON"));
  EXPECT_THAT(RunGradferry("trace merge " + folder.File("none.json")).err, HasSubstr("none.json"));
}

}  // namespace
}  // namespace gf
