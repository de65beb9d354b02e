// Watches the calls from the host into the plugin: how long each takes (GF-TRN-01), what it does when it is made within
// an event (GF-TRN-02), and that nothing is thrown (GF-TRN-09). Marks the stack, so that an event on it can be told.
#pragma once

#include <string>
#include <utility>

#include "tools/plugin_check/child.h"

namespace gradferry::check {

// Starts the thread that ends this process when a call does not return. Once, in the child.
void StartWatchdog(double limit_seconds);

// Tells how long calls took.
void NoteCallTimes();

// The call of the host on this thread's stack, or null.
const char* CallOnThisStack();

// The event that this thread delivers, or works for.
class WithinEvent {
 public:
  explicit WithinEvent(std::string event);
  ~WithinEvent();
  WithinEvent(const WithinEvent&) = delete;
  WithinEvent& operator=(const WithinEvent&) = delete;

 private:
  std::string before_;
};

class CallScope {
 public:
  explicit CallScope(const char* function);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

  struct Entry;

 private:
  Entry* const entry_;
  const char* const before_;
};

// Calls a function of the plugin. What is thrown is a finding, and the result then is failed.
template <class Result, class Body>
Result Call(const char* function, Result failed, Body&& body) {
  const CallScope scope(function);
  try {
    return body();
  } catch (...) {
    Found(9, std::string(function) + " let an exception out");
    return failed;
  }
}

template <class Body>
void Call(const char* function, Body&& body) {
  Call<int>(function, 0, [&] {
    body();
    return 0;
  });
}

}  // namespace gradferry::check
