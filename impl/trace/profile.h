// The profile of one call: what happened for its sake, on all workers, as a tree of events with times. The caller of a
// profiled call records the call itself; the callee records the request, the operators that run for it and the calls
// that it makes in turn; a reply brings the callee's part, which becomes part of the caller's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace gradferry {

// Real time for profiles and traces, in ns: CLOCK_MONOTONIC, one axis for all processes of a machine.
int64_t ProfileNow();

// The calling thread's number, as the kernel knows it.
uint32_t ThreadNumber();

// Numbers on the wire.
enum class ProfileEventKind : uint8_t {
  kCall = 0,      // a call, as its caller sees it: from sending to the answer
  kRequest = 1,   // the same, as the callee sees it: from arrival to the reply
  kHandler = 2,   // the time that a handler runs on a thread
  kOperator = 3,  // a function that libtorch records: operators, those within them, ranges of the program
};
const char* ProfileEventKindName(ProfileEventKind kind);

inline constexpr uint32_t kNoEvent = UINT32_MAX;

struct ProfileEvent {
  std::string name;
  ProfileEventKind kind = ProfileEventKind::kOperator;
  int32_t worker = 0;          // the id of that where it happened
  uint32_t thread = 0;         // there
  uint32_t parent = kNoEvent;  // index of an earlier event; kNoEvent: none, the first event only
  int64_t start = 0;           // ns since the start of the first event
  int64_t end = 0;
};

struct Profile {
  std::vector<ProfileEvent> events;
  uint64_t dropped = 0;  // events that there was no room for
};

// Collects the events of a call or request; any thread.
class ProfileRecorder {
 public:
  // The first event begins now; `most` events, at least 1, are kept.
  ProfileRecorder(ProfileEventKind kind, std::string name, int32_t worker, size_t most);

  // Begins an event within another. kNoEvent when there is no room, or after Finish.
  uint32_t Begin(ProfileEventKind kind, std::string name, uint32_t parent);
  void End(uint32_t event);

  // Ends a call that was begun here and puts the events of its profile where they belong: its first event is the call.
  void EndCall(uint32_t call, const Profile& profile);
  // The callee's part of a call that this recorder is for; its clock is another one, so that it is put in the middle of
  // the time that the call took. Times beyond those of the event around them are cut.
  void AddReply(const Profile& reply);

  // Ends what has not ended. Nothing is recorded afterwards; a second call gives the same.
  Profile Finish();

  int64_t began() const { return began_; }  // ProfileNow of the first event's start

 private:
  void Append(const Profile& profile, uint32_t parent, bool with_first, int64_t shift);  // needs mutex_

  const int64_t began_;
  const int32_t worker_;
  const size_t most_;
  std::mutex mutex_;  // guards the rest; a leaf lock
  bool finished_ = false;
  Profile profile_;
};

// What workers are called; asked for once each.
std::map<int32_t, std::string> WorkerNames(const Profile& profile, const std::function<std::string(int32_t)>& name_of);

// {"dropped", "events": [{"name", "kind", "worker", "thread", "parent", "depth", "start_ns", "end_ns"}]};
std::string ProfileJson(const Profile& profile, const std::map<int32_t, std::string>& names);

}  // namespace gradferry
