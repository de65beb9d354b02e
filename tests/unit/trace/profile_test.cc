// Unit tests of impl/trace/profile.h and recording.h.
#include "impl/trace/profile.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "impl/trace/recording.h"

namespace gradferry {
namespace {

using Kind = ProfileEventKind;

std::shared_ptr<ProfileRecorder> Recorder(size_t most = 1000) {
  return std::make_shared<ProfileRecorder>(Kind::kRequest, "request", 1, most);
}

// The names of events, each with those around it.
std::vector<std::string> Paths(const Profile& profile) {
  std::vector<std::string> paths;
  for (const ProfileEvent& event : profile.events) {
    paths.push_back(event.parent == kNoEvent ? event.name : paths[event.parent] + "/" + event.name);
  }
  return paths;
}

void ExpectNested(const Profile& profile) {
  for (size_t i = 0; i < profile.events.size(); ++i) {
    const ProfileEvent& event = profile.events[i];
    EXPECT_LE(event.start, event.end) << event.name;
    if (i == 0) continue;
    ASSERT_LT(event.parent, i);
    EXPECT_GE(event.start, profile.events[event.parent].start) << event.name;
    EXPECT_LE(event.end, profile.events[event.parent].end) << event.name;
  }
}

TEST(RecordingTest, OperatorsOfTheThreadAreNestedInTheHandler) {
  const auto recorder = Recorder();
  const at::Tensor a = at::ones({2, 2});
  (void)at::add(a, a);  // before
  {
    const Recording recording(recorder, "handler");
    (void)at::add(a, a);
    (void)at::linear(a, a);
    std::thread([&] { (void)at::sin(a); }).join();  // not watched
  }
  (void)at::add(a, a);  // after
  const Profile profile = recorder->Finish();
  ExpectNested(profile);
  const auto paths = Paths(profile);
  ASSERT_GE(paths.size(), 4u);
  EXPECT_EQ(paths[0], "request");
  EXPECT_EQ(paths[1], "request/handler");
  EXPECT_EQ(paths[2], "request/handler/aten::add");
  EXPECT_EQ(paths[3], "request/handler/aten::linear");
  EXPECT_EQ(paths[4].rfind("request/handler/aten::linear/", 0), 0u) << paths[4];
  EXPECT_EQ(std::count(paths.begin(), paths.end(), "request/handler/aten::add"), 1);
  for (const std::string& path : paths) EXPECT_EQ(path.find("aten::sin"), std::string::npos);
  EXPECT_EQ(profile.events[2].worker, 1);
  EXPECT_EQ(profile.events[2].thread, ThreadNumber());
  EXPECT_EQ(profile.events[2].kind, Kind::kOperator);
}

TEST(RecordingTest, TheInnermostOneRecords) {
  const auto outer = Recorder(), inner = Recorder();
  const at::Tensor a = at::ones({1});
  const Recording nothing(nullptr, "nothing");
  const Recording first(outer);
  {
    const Recording second(inner);
    (void)at::add(a, a);
    EXPECT_EQ(Recording::CurrentEvent(*outer), 0u);
  }
  (void)at::mul(a, a);
  EXPECT_EQ(Paths(inner->Finish()), std::vector<std::string>({"request", "request/aten::add"}));
  EXPECT_EQ(Paths(outer->Finish()), std::vector<std::string>({"request", "request/aten::mul"}));
}

TEST(ProfileTest, EventsThatHaveNoRoomAreCounted) {
  const auto recorder = Recorder(2);
  EXPECT_EQ(recorder->Begin(Kind::kOperator, "kept", 0), 1u);
  EXPECT_EQ(recorder->Begin(Kind::kOperator, "dropped", 1), kNoEvent);
  recorder->End(kNoEvent);
  const Profile profile = recorder->Finish();
  EXPECT_EQ(profile.events.size(), 2u);
  EXPECT_EQ(profile.dropped, 1u);
  EXPECT_EQ(recorder->Begin(Kind::kOperator, "late", 0), kNoEvent);
  EXPECT_EQ(recorder->Finish().dropped, 1u);
}

TEST(ProfileTest, AReplyLiesInTheMiddleOfItsCall) {
  ProfileRecorder call(Kind::kCall, "call", 0, 100);
  Profile reply;
  reply.events = {{"request", Kind::kRequest, 1, 5, kNoEvent, 0, 10},
                  {"add", Kind::kOperator, 1, 5, 0, 2, 6},
                  {"beyond", Kind::kOperator, 1, 5, 1, 0, INT64_MAX / 4}};
  reply.dropped = 7;
  while (ProfileNow() - call.began() < 1000000) {
  }
  call.AddReply(reply);
  const Profile profile = call.Finish();
  ExpectNested(profile);
  EXPECT_EQ(Paths(profile),
            std::vector<std::string>({"call", "call/request", "call/request/add", "call/request/add/beyond"}));
  EXPECT_EQ(profile.dropped, 7u);
  const int64_t took = profile.events[0].end;
  EXPECT_GE(took, 1000000);
  EXPECT_EQ(profile.events[1].start, (took - 10) / 2);
  EXPECT_EQ(profile.events[1].end, (took - 10) / 2 + 10);
  EXPECT_EQ(profile.events[2].end, profile.events[1].start + 6);
  EXPECT_EQ(profile.events[3].end, profile.events[2].end);  // cut
}

TEST(ProfileTest, ANestedCallBringsItsOwn) {
  const auto request = Recorder(4);
  const uint32_t call = request->Begin(Kind::kCall, "call", 0);
  Profile nested;
  nested.events = {{"call", Kind::kCall, 1, 5, kNoEvent, 0, 0},
                   {"request", Kind::kRequest, 2, 6, 0, 0, 0},
                   {"add", Kind::kOperator, 2, 6, 1, 0, 0},
                   {"mul", Kind::kOperator, 2, 6, 1, 0, 0}};
  request->EndCall(call, nested);
  const Profile profile = request->Finish();
  ExpectNested(profile);
  EXPECT_EQ(Paths(profile),
            std::vector<std::string>({"request", "request/call", "request/call/request", "request/call/request/add"}));
  EXPECT_EQ(profile.dropped, 1u);
}

TEST(ProfileTest, TheTextHasParentsAndDepths) {
  const auto recorder = Recorder();
  recorder->End(recorder->Begin(Kind::kOperator, "a \"name\" \xff", 0));
  const Profile profile = recorder->Finish();
  const auto names = WorkerNames(profile, [](int32_t id) { return "w" + std::to_string(id); });
  const auto json = nlohmann::json::parse(ProfileJson(profile, names));
  EXPECT_EQ(json["dropped"], 0);
  ASSERT_EQ(json["events"].size(), 2u);
  EXPECT_EQ(json["events"][0]["parent"], -1);
  EXPECT_EQ(json["events"][0]["depth"], 0);
  EXPECT_EQ(json["events"][0]["kind"], "request");
  EXPECT_EQ(json["events"][1]["parent"], 0);
  EXPECT_EQ(json["events"][1]["depth"], 1);
  EXPECT_EQ(json["events"][1]["worker"], "w1");
}

}  // namespace
}  // namespace gradferry
