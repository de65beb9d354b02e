// See profile.h.
#include "impl/trace/profile.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

namespace gradferry {
namespace {

constexpr int64_t kOpen = -1;  // the end of an event that has not ended

}  // namespace

int64_t ProfileNow() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

uint32_t ThreadNumber() {
  static thread_local const uint32_t number = static_cast<uint32_t>(syscall(SYS_gettid));
  return number;
}

const char* ProfileEventKindName(ProfileEventKind kind) {
  switch (kind) {
    case ProfileEventKind::kCall:
      return "call";
    case ProfileEventKind::kRequest:
      return "request";
    case ProfileEventKind::kHandler:
      return "handler";
    case ProfileEventKind::kOperator:
      return "operator";
  }
  return "";
}

ProfileRecorder::ProfileRecorder(ProfileEventKind kind, std::string name, int32_t worker, size_t most)
    : began_(ProfileNow()), worker_(worker), most_(std::max<size_t>(most, 1)) {
  profile_.events.push_back({std::move(name), kind, worker_, ThreadNumber(), kNoEvent, 0, kOpen});
}

uint32_t ProfileRecorder::Begin(ProfileEventKind kind, std::string name, uint32_t parent) {
  const int64_t now = ProfileNow() - began_;
  std::lock_guard lock(mutex_);
  if (finished_) return kNoEvent;
  if (profile_.events.size() >= most_) {
    ++profile_.dropped;
    return kNoEvent;
  }
  if (parent >= profile_.events.size()) parent = 0;
  profile_.events.push_back({std::move(name), kind, worker_, ThreadNumber(), parent, now, kOpen});
  return static_cast<uint32_t>(profile_.events.size() - 1);
}

void ProfileRecorder::End(uint32_t event) {
  const int64_t now = ProfileNow() - began_;
  std::lock_guard lock(mutex_);
  if (!finished_ && event < profile_.events.size()) profile_.events[event].end = now;
}

void ProfileRecorder::Append(const Profile& profile, uint32_t parent, bool with_first, int64_t shift) {
  profile_.dropped += profile.dropped;
  std::vector<uint32_t> places(profile.events.size(), parent);
  for (size_t i = with_first ? 0 : 1; i < profile.events.size(); ++i) {
    if (profile_.events.size() >= most_) {
      profile_.dropped += profile.events.size() - i;
      return;
    }
    ProfileEvent event = profile.events[i];
    event.parent = event.parent < i ? places[event.parent] : parent;
    const ProfileEvent& around = profile_.events[event.parent];
    event.start = std::clamp(event.start + shift, around.start, around.end);
    event.end = std::clamp(event.end + shift, event.start, around.end);
    places[i] = static_cast<uint32_t>(profile_.events.size());
    profile_.events.push_back(std::move(event));
  }
}

void ProfileRecorder::EndCall(uint32_t call, const Profile& profile) {
  const int64_t now = ProfileNow() - began_;
  std::lock_guard lock(mutex_);
  if (finished_ || call >= profile_.events.size()) return;
  profile_.events[call].end = now;
  Append(profile, call, /*with_first=*/false, profile_.events[call].start);
}

void ProfileRecorder::AddReply(const Profile& reply) {
  const int64_t now = ProfileNow() - began_;
  std::lock_guard lock(mutex_);
  if (finished_) return;
  profile_.events[0].end = now;
  const int64_t took = reply.events.empty() ? 0 : reply.events[0].end;
  Append(reply, 0, /*with_first=*/true, std::max<int64_t>(0, (now - took) / 2));
}

Profile ProfileRecorder::Finish() {
  const int64_t now = ProfileNow() - began_;
  std::lock_guard lock(mutex_);
  finished_ = true;
  for (ProfileEvent& event : profile_.events) {
    if (event.end == kOpen) event.end = now;
  }
  return profile_;
}

std::map<int32_t, std::string> WorkerNames(const Profile& profile, const std::function<std::string(int32_t)>& name_of) {
  std::map<int32_t, std::string> names;
  for (const ProfileEvent& event : profile.events) {
    if (names.count(event.worker) == 0) names[event.worker] = name_of(event.worker);
  }
  return names;
}

std::string ProfileJson(const Profile& profile, const std::map<int32_t, std::string>& names) {
  using nlohmann::json;
  json events = json::array();
  std::vector<uint32_t> depths;
  for (const ProfileEvent& event : profile.events) {
    const bool first = event.parent >= depths.size();
    depths.push_back(first ? 0 : depths[event.parent] + 1);
    events.push_back({{"name", event.name},
                      {"kind", ProfileEventKindName(event.kind)},
                      {"worker", names.at(event.worker)},
                      {"thread", event.thread},
                      {"parent", first ? int64_t{-1} : int64_t{event.parent}},
                      {"depth", depths.back()},
                      {"start_ns", event.start},
                      {"end_ns", event.end}});
  }
  return json{{"dropped", profile.dropped}, {"events", std::move(events)}}.dump(-1, ' ', false,
                                                                                json::error_handler_t::replace);
}

}  // namespace gradferry
