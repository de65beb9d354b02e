// Traces of several workers, merged by the command: by the rules of the format, and the arrows with time.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
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

using Row = std::pair<int64_t, int64_t>;  // pid and tid

struct Slice {
  double start, end;
};

constexpr double kRounding = 0.01;  // us

bool IsNumberOf(const json& value) {
  return value.is_number_integer() && value >= 0 && value <= INT32_MAX;  // Perfetto keeps 32 bits
}

// Times are doubles to every reader, and Perfetto drops what was before 0.
bool IsTime(const json& value) { return value.is_number() && value >= 0 && value.get<double>() < 9007199254740992.0; }

// What the format asks of one event; "" when it keeps all of it.
std::string BrokenRuleOfEvent(const json& e) {
  if (!e.is_object()) return "an event that is no object";
  const std::string phase = e.value("ph", "");
  if (phase.empty() || !e.value("name", json()).is_string()) return "no ph or name";
  if (!IsNumberOf(e.value("pid", json())) || !IsNumberOf(e.value("tid", json()))) return "no pid or tid";
  if (e.contains("args") && !e["args"].is_object()) return "args that are no object";
  if (phase == "M") {
    if (e["name"] != "process_name" && e["name"] != "thread_name") return "unknown metadata";
    return e["args"]["name"].is_string() ? "" : "metadata without a name";
  }
  if (!IsTime(e.value("ts", json())) || !e.value("cat", json()).is_string()) return "no ts or cat";
  if (phase == "X") return IsTime(e.value("dur", json())) ? "" : "a slice without dur";
  if (phase != "s" && phase != "f") return "an unknown phase";
  if (!e.value("id", json()).is_string()) return "an arrow without id";
  return phase == "f" && e.value("bp", "") != "e" ? "an arrow's end that binds to the next slice" : "";
}

// Slices of one row lie within each other or apart.
bool SlicesCross(std::vector<Slice>& slices) {
  std::sort(slices.begin(), slices.end(), [](const Slice& a, const Slice& b) {
    return std::make_pair(a.start, -a.end) < std::make_pair(b.start, -b.end);
  });
  std::vector<Slice> open;
  for (const Slice& slice : slices) {
    while (!open.empty() && open.back().end <= slice.start + kRounding) open.pop_back();
    if (!open.empty() && slice.end > open.back().end + kRounding) return true;
    open.push_back(slice);
  }
  return false;
}

// A slice holds its start and not its end.
bool IsBound(const json& end, const std::vector<Slice>& slices) {
  const double at = end["ts"];
  return std::any_of(slices.begin(), slices.end(),
                     [&](const Slice& s) { return s.start <= at + kRounding && (at < s.end || s.start == s.end); });
}

// What Perfetto and chrome://tracing ask of a file; "" when it keeps all of it.
std::string BrokenRule(const json& document) {
  if (!document.is_object() || !document["traceEvents"].is_array()) return "no array traceEvents";
  const json& unit = document["displayTimeUnit"];
  if (unit != "ns" && unit != "ms") return "no displayTimeUnit";
  std::map<int64_t, int> processes;
  std::map<Row, int> names;
  std::map<Row, std::vector<Slice>> rows;
  std::map<std::string, std::vector<json>> flows;
  for (const json& e : document["traceEvents"]) {
    if (const std::string broken = BrokenRuleOfEvent(e); !broken.empty()) return broken + ": " + e.dump();
    const Row row{e["pid"], e["tid"]};
    if (e["name"] == "process_name" && e["ph"] == "M") ++processes[row.first];
    if (e["name"] == "thread_name" && e["ph"] == "M") ++names[row];
    if (e["ph"] == "X") rows[row].push_back({e["ts"], e["ts"].get<double>() + e["dur"].get<double>()});
    if (e["ph"] == "s" || e["ph"] == "f") flows[e["id"]].push_back(e);
  }
  for (auto& [row, slices] : rows) {
    if (processes[row.first] != 1) return "a process without one name: " + std::to_string(row.first);
    if (names[row] != 1) return "a row without one name: " + std::to_string(row.second);
    if (SlicesCross(slices)) return "slices of one row that cross";
  }
  for (const auto& [id, ends] : flows) {
    if (ends.size() != 2 || ends[0]["ph"] != "s" || ends[1]["ph"] != "f") return "an arrow without two ends: " + id;
    if (ends[0]["name"] != ends[1]["name"] || ends[0]["cat"] != ends[1]["cat"]) return "ends that differ: " + id;
    if (ends[0]["ts"] > ends[1]["ts"]) return "an arrow that ends before it begins: " + id;
    for (const json& end : ends) {
      if (!IsBound(end, rows[{end["pid"], end["tid"]}])) return "an arrow's end outside of all slices: " + end.dump();
    }
  }
  return "";
}

// How many arrows there are of each name.
std::map<std::string, int> Arrows(const json& document) {
  std::map<std::string, int> counts;
  for (const json& e : document["traceEvents"]) {
    if (e["ph"] == "s") ++counts[e["name"]];
  }
  return counts;
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
  std::map<std::string, int> counts = Arrows(merged);
  for (size_t i = 0; i < 3; ++i) {
    const json& worker = merged["otherData"]["workers"][std::string(1, static_cast<char>('a' + i))];
    ASSERT_TRUE(worker["error_us"].is_number());
    EXPECT_NEAR(worker["offset_us"], -kAhead[i], worker["error_us"].get<double>() + 0.01);
  }
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

// ---- Traces made up ----

json Event(int pid, const std::string& flow, const std::string& side, double start, double end) {
  json e = {{"ph", "X"},          {"name", "call"}, {"cat", "call"}, {"ts", start},
            {"dur", end - start}, {"pid", pid},     {"tid", 1}};
  if (!flow.empty()) e["args"] = {{"flow", flow}, {"side", side}};
  return e;
}

json TraceWith(const std::string& worker, int pid, std::vector<json> events) {
  events.push_back({{"ph", "M"}, {"name", "process_name"}, {"pid", pid}, {"tid", 0}, {"args", {{"name", worker}}}});
  events.push_back({{"ph", "M"}, {"name", "thread_name"}, {"pid", pid}, {"tid", 1}, {"args", {{"name", "calls"}}}});
  return {{"traceEvents", events}, {"otherData", {{"worker", worker}, {"dropped", 0u}}}};
}

TEST(TraceMergeMadeUpTest, TheRulesAreSeenWhenBroken) {
  const json good = MergeTraces({{"a", TraceWith("a", 0, {Event(0, "0.1", "sent", 10, 20)})},
                                 {"b", TraceWith("b", 1, {Event(1, "0.1", "received", 12, 18)})}});
  ASSERT_EQ(BrokenRule(good), "");
  ASSERT_EQ(good["traceEvents"].size(), 10u);
  const auto broken = [&](size_t event, const char* field, const json& value) {
    json bad = good;
    if (value.is_null()) {
      bad["traceEvents"][event].erase(field);
    } else {
      bad["traceEvents"][event][field] = value;
    }
    return BrokenRule(bad);
  };
  size_t x = 0, m = 0, s = 0, f = 0;
  for (size_t i = 0; i < 10; ++i) {
    const std::string phase = good["traceEvents"][i]["ph"];
    (phase == "X" ? x : phase == "M" ? m : phase == "s" ? s : f) = i;
  }
  EXPECT_NE(broken(x, "ts", -1.0), "");
  EXPECT_NE(broken(x, "ts", 1e300), "");
  EXPECT_NE(broken(x, "ts", "now"), "");
  EXPECT_NE(broken(x, "dur", nullptr), "");
  EXPECT_NE(broken(x, "dur", 1e-7), "");  // its arrows are outside
  EXPECT_NE(broken(x, "tid", 2), "");     // has no name
  EXPECT_NE(broken(x, "pid", 1e10), "");
  EXPECT_NE(broken(x, "cat", nullptr), "");
  EXPECT_NE(broken(m, "name", "colour"), "");
  EXPECT_NE(broken(s, "id", "other"), "");
  EXPECT_NE(broken(s, "ph", "f"), "");
  EXPECT_NE(broken(s, "name", "other"), "");
  EXPECT_NE(broken(f, "bp", nullptr), "");
  EXPECT_NE(broken(f, "ts", 0.0), "");
}

TEST(TraceMergeMadeUpTest, TimesBeginAtZeroOrLater) {
  // The first worker's clock is far behind, so the other one began before its zero.
  const json merged =
      MergeTraces({{"a", TraceWith("a", 0, {Event(0, "0.1", "sent", 10, 20)})},
                   {"b", TraceWith("b", 1, {Event(1, "", "", 500, 600), Event(1, "0.1", "received", 1012, 1018)})}});
  EXPECT_EQ(BrokenRule(merged), "");
  const double a = merged["otherData"]["workers"]["a"]["offset_us"],
               b = merged["otherData"]["workers"]["b"]["offset_us"];
  EXPECT_NEAR(a - b, 1000, 2.01);
  EXPECT_NEAR(500 + b, 0, 1e-6);
}

TEST(TraceMergeMadeUpTest, AnArrowThatTheClocksTurnBackIsMovedWithinItsSlices) {
  // Three exchanges that no single offset fits: b's clock drifts, by so much from one to the next.
  for (const double drift : {4.0, -4.0}) {
    std::vector<json> sent, received;
    for (int i = 0; i < 3; ++i) {
      const std::string flow = "0." + std::to_string(i);
      const double start = 100 * (i + 1), late = drift * (i - 1);
      sent.push_back(Event(0, flow, "sent", start, start + 10));
      received.push_back(Event(1, flow, "received", start + 1 + late, start + 9 + late));
    }
    const json merged = MergeTraces({{"a", TraceWith("a", 0, sent)}, {"b", TraceWith("b", 1, received)}});
    EXPECT_EQ(BrokenRule(merged), "");
    EXPECT_EQ(Arrows(merged)["call"], 3) << drift;
    EXPECT_EQ(Arrows(merged)["call: answer"], 3) << drift;
  }
}

TEST(TraceMergeMadeUpTest, AnAnswerThatNobodyWaitedForHasNoArrow) {
  const json merged =
      MergeTraces({{"a", TraceWith("a", 0, {Event(0, "0.1", "sent", 0, 10), Event(0, "0.2", "sent", 20, 25)})},
                   {"b", TraceWith("b", 1, {Event(1, "0.1", "received", 1, 9), Event(1, "0.2", "received", 21, 90)})}});
  EXPECT_EQ(BrokenRule(merged), "");
  EXPECT_EQ(Arrows(merged)["call"], 2);
  EXPECT_EQ(Arrows(merged)["call: answer"], 1);
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
  for (const char* event : {"[]", R"({"ph": 3})", R"({"ph": "X", "name": "n", "pid": 1, "tid": 1, "ts": 1})",
                            R"({"ph": "X", "name": "n", "pid": 1, "tid": 1, "ts": 1, "dur": -1})",
                            R"({"ph": "X", "name": "n", "pid": -1, "tid": 1, "ts": 1, "dur": 1})",
                            R"({"ph": "X", "name": "n", "pid": 1, "tid": "1", "ts": 1, "dur": 1})",
                            R"({"ph": "X", "name": 3, "pid": 1, "tid": 1, "ts": 1, "dur": 1})",
                            R"({"ph": "i", "name": "n", "pid": 1, "tid": 1, "ts": "1"})"}) {
    const json bad = {{"traceEvents", {json::parse(event)}}, {"otherData", {{"worker", "a"}}}};
    EXPECT_THAT(ErrorOfMerge({{"bad.json", bad}}), HasSubstr("bad.json is no trace of a worker: traceEvents[0] "))
        << event;
  }
  json dropped = good;
  dropped["otherData"]["dropped"] = "many";
  EXPECT_THAT(ErrorOfMerge({{"bad.json", dropped}}), HasSubstr("otherData.dropped"));
  EXPECT_THAT(ErrorOfMerge({{"x.json", TraceWith("a", 3, {})}, {"y.json", TraceWith("b", 3, {})}}),
              HasSubstr("x.json and y.json both have worker number 3"));
  EXPECT_THAT(ErrorOfMerge({{"merged.json", MergeTraces({{"good.json", good}})}}), HasSubstr("it is a merged one"));
}

TEST_F(TraceMergeTest, TheCommandSaysWhichFileIsWrongAndWrites) {
  const TemporaryFolder folder;
  const auto error = [](const std::string& arguments) {
    const Ran ran = RunGradferry("trace merge " + arguments);
    EXPECT_EQ(ran.status, 1) << arguments;
    EXPECT_EQ(std::count(ran.err.begin(), ran.err.end(), '\n'), 1) << ran.err;
    return ran.err;
  };
  const std::string good = folder.Write("good.json", TraceWith("a", 0, {}).dump());
  EXPECT_THAT(error(folder.Write("cut.json", R"({"traceEvents": [{"ph")")),
              HasSubstr("cut.json is no JSON: wrong at byte 23 of 22"));
  EXPECT_THAT(error(folder.Write("empty.json", "")), HasSubstr("empty.json is no JSON"));
  EXPECT_THAT(error(folder.Write("binary.json", "\177ELF\1\2")), HasSubstr("binary.json is no JSON"));
  EXPECT_THAT(error(folder.Write("large.json", "[1e999]")), HasSubstr("large.json is no JSON"));
  EXPECT_THAT(error(good + " " + folder.File("none.json")), HasSubstr("none.json cannot be read: No such file"));
  EXPECT_THAT(error(folder.path()), HasSubstr(folder.path() + " cannot be read: Is a directory"));
  EXPECT_THAT(error(good + " " + good), HasSubstr("are both of worker a"));
  EXPECT_THAT(error(good + " -o " + folder.File("none/out.json")),
              HasSubstr("out.json cannot be written: No such file"));
  EXPECT_THAT(error(good + " >/dev/full"), HasSubstr("the trace cannot be written: No space left"));
  EXPECT_EQ(BrokenRule(json::parse(RunGradferry("trace merge " + good).out)), "");
}

}  // namespace
}  // namespace gf
