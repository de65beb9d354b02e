// What libtorch does on a thread, recorded into a profile: while a Recording lives, every operator that this thread
// runs becomes an event. Other threads are not watched.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "impl/trace/profile.h"

namespace gradferry {

// To be destroyed on the thread that made it, the last one first. With a null recorder it does nothing.
class Recording {
 public:
  // With a name the time that it lives is an event of kind kHandler.
  explicit Recording(std::shared_ptr<ProfileRecorder> recorder, const std::string& name = "");
  Recording(const Recording&) = delete;
  ~Recording();

  const std::shared_ptr<ProfileRecorder>& recorder() const { return recorder_; }

  // The event of this recorder that this thread is in; 0, the first one, when the thread does not record for it.
  static uint32_t CurrentEvent(const ProfileRecorder& recorder);

 private:
  friend struct OperatorEvents;

  const std::shared_ptr<ProfileRecorder> recorder_;
  uint32_t own_ = kNoEvent;
  uint32_t current_ = 0;
  uint64_t callback_ = 0;
  Recording* outer_ = nullptr;
};

// While it lives this thread records for nobody: what it does then belongs to something else.
class RecordingPause {
 public:
  RecordingPause();
  RecordingPause(const RecordingPause&) = delete;
  ~RecordingPause();

 private:
  Recording* const paused_;
};

}  // namespace gradferry
