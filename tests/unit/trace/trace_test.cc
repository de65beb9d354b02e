// Unit tests of impl/trace/trace.h.
#include "impl/trace/trace.h"

#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

namespace gradferry {
namespace {

using nlohmann::json;

TraceEvent Event(const std::string& name, int64_t start, int64_t end, const std::string& category = "call") {
  TraceEvent event;
  event.name = name;
  event.category = category;
  event.outcome = "OK";
  event.start = start;
  event.end = end;
  return event;
}

// The complete events, by name.
std::map<std::string, json> Complete(const json& trace) {
  std::map<std::string, json> events;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] == "X") events[event["name"]] = event;
  }
  return events;
}

// On one row events follow each other or lie within each other, or viewers draw nonsense.
void ExpectRowsAreNested(const json& trace) {
  std::map<int, std::vector<std::pair<double, double>>> rows;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    const double start = event["ts"], end = start + double(event["dur"]);
    for (const auto& [other_start, other_end] : rows[event["tid"]]) {
      const bool apart = end <= other_start || other_end <= start;
      const bool within = start >= other_start && end <= other_end;
      EXPECT_TRUE(apart || within) << event;
    }
    rows[event["tid"]].emplace_back(start, end);
  }
}

TEST(TraceTest, RecordsNothingWhileItIsOff) {
  auto trace = std::make_shared<Trace>("w", 3);
  EXPECT_EQ(TraceSpan::Begin(trace, "call", "x", ""), nullptr);
  trace->Add(Event("x", 0, 1), nullptr, {});
  EXPECT_TRUE(Complete(json::parse(trace->Json())).empty());
  trace->Start(10);
  TraceSpan::Begin(trace, "call", "kept", "peer")->End("OK");
  trace->Stop();
  EXPECT_EQ(TraceSpan::Begin(trace, "call", "x", ""), nullptr);
  EXPECT_EQ(Complete(json::parse(trace->Json())).count("kept"), 1u);
  trace->Start(10);
  EXPECT_TRUE(Complete(json::parse(trace->Json())).empty());
}

TEST(TraceTest, EventsThatOverlapGetRowsOfTheirOwn) {
  Trace trace("w", 3);
  trace.Start(100);
  Profile profile;
  profile.events = {{"first", ProfileEventKind::kCall, 3, 1, kNoEvent, 0, 100},
                    {"request", ProfileEventKind::kRequest, 4, 2, 0, 10, 90},
                    {"left", ProfileEventKind::kCall, 4, 2, 1, 20, 60},
                    {"right", ProfileEventKind::kCall, 4, 2, 1, 30, 70},
                    {"within", ProfileEventKind::kOperator, 5, 9, 3, 40, 50}};
  trace.Add(Event("first", 1000, 1100), &profile, {{3, "w"}, {4, "four"}, {5, "five"}});
  trace.Add(Event("second", 1050, 1200), nullptr, {});
  trace.Add(Event("third", 1100, 1300), nullptr, {});
  trace.Add(Event("request", 1000, 2000, "request"), nullptr, {});
  const json document = json::parse(trace.Json());
  ExpectRowsAreNested(document);
  auto events = Complete(document);
  EXPECT_EQ(events["first"]["pid"], 3);
  EXPECT_EQ(events["first"]["ts"], 1.0);
  EXPECT_EQ(events["first"]["dur"], 0.1);
  EXPECT_EQ(events["left"]["tid"], events["first"]["tid"]);
  EXPECT_NE(events["right"]["tid"], events["left"]["tid"]);
  EXPECT_EQ(events["within"]["tid"], events["right"]["tid"]);
  EXPECT_EQ(events["within"]["args"]["worker"], "five");
  EXPECT_NE(events["second"]["tid"], events["first"]["tid"]);
  EXPECT_EQ(events["third"]["tid"], events["first"]["tid"]);  // it begins where the first one ends
  EXPECT_EQ(document["otherData"]["dropped"], 0);
}

TEST(TraceTest, TheOldestAreDroppedAndCounted) {
  Trace trace("w", 3);
  trace.Start(3);
  Profile profile;
  profile.events = {{"call", ProfileEventKind::kCall, 3, 1, kNoEvent, 0, 10},
                    {"child", ProfileEventKind::kRequest, 3, 1, 0, 0, 10},
                    {"grandchild", ProfileEventKind::kRequest, 3, 1, 1, 0, 10}};
  trace.Add(Event("call", 0, 10), &profile, {{3, "w"}});
  trace.Add(Event("next", 20, 30), nullptr, {});
  const json document = json::parse(trace.Json());
  ExpectRowsAreNested(document);
  const auto events = Complete(document);
  EXPECT_EQ(events.size(), 3u);
  EXPECT_EQ(events.count("call"), 0u);
  EXPECT_EQ(events.count("next"), 1u);
  EXPECT_EQ(document["otherData"]["dropped"], 1);
}

TEST(TraceTest, ASpanThatIsLetGoWasCancelled) {
  auto trace = std::make_shared<Trace>("w", 3);
  trace->Start(3);
  TraceSpan::Begin(trace, "call", "lost", "");
  EXPECT_EQ(Complete(json::parse(trace->Json()))["lost"]["args"]["outcome"], "CANCELLED");
}

}  // namespace
}  // namespace gradferry
