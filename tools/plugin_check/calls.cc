#include "tools/plugin_check/calls.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <list>
#include <mutex>
#include <thread>

namespace gradferry::check {
namespace {

using Clock = std::chrono::steady_clock;

thread_local const char* call_on_stack = nullptr;
thread_local std::string event_here;

double limit = 2;

double Since(Clock::time_point begun) { return std::chrono::duration<double>(Clock::now() - begun).count(); }

// destroy may join threads that end by themselves.
double LimitOf(const char* function) { return std::strcmp(function, "destroy") == 0 ? 5 * limit : limit; }

struct Longest {
  double seconds = 0;
  const char* function = "";
};

}  // namespace

struct CallScope::Entry {
  const char* function;
  std::string event;
  Clock::time_point begun;
};

namespace {

std::mutex mutex;  // guards what follows; a leaf
std::list<const CallScope::Entry*> active;
Longest longest;
uint64_t calls = 0;

void EndWhenACallHangs() {
  const std::lock_guard<std::mutex> lock(mutex);
  for (const auto* entry : active) {
    if (Since(entry->begun) < LimitOf(entry->function)) continue;
    const bool within = !entry->event.empty();
    char text[200];
    std::snprintf(text, sizeof(text), "%s%s%s did not return within %.1f s%s", entry->function,
                  within ? ", called within " : "", entry->event.c_str(), LimitOf(entry->function),
                  within ? ": it waits (GF-TRN-01), or for a lock (GF-TRN-02)" : "");
    if (within) Found(2, text);
    FoundFatal(1, text);
  }
}

}  // namespace

CallScope::CallScope(const char* function)
    : entry_(new Entry{function, event_here, Clock::now()}), before_(call_on_stack) {
  call_on_stack = function;
  const std::lock_guard<std::mutex> lock(mutex);
  active.push_back(entry_);
  ++calls;
}

CallScope::~CallScope() {
  call_on_stack = before_;
  Checked(1);
  const double took = Since(entry_->begun);
  {
    const std::lock_guard<std::mutex> lock(mutex);
    active.remove(entry_);
    if (took > longest.seconds && std::strcmp(entry_->function, "destroy") != 0) longest = {took, entry_->function};
  }
  delete entry_;
}

WithinEvent::WithinEvent(std::string event) : before_(std::move(event_here)) { event_here = std::move(event); }
WithinEvent::~WithinEvent() { event_here = std::move(before_); }

const char* CallOnThisStack() { return call_on_stack; }

void StartWatchdog(double limit_seconds) {
  limit = limit_seconds;
  std::thread([] {
    for (;;) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      EndWhenACallHangs();
    }
  }).detach();
}

void NoteCallTimes() {
  const std::lock_guard<std::mutex> lock(mutex);
  TellCalls(calls, longest.seconds * 1e3, longest.function);
}

}  // namespace gradferry::check
