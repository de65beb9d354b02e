// The trace of a worker: what it did lately, for people to look at in Perfetto or chrome://tracing. While it is on, the
// worker's calls, requests and passes are recorded, with the profile of those that are profiled nested within them, in
// a ring that drops the oldest. Off, it costs one relaxed load. Any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "impl/trace/profile.h"

namespace gradferry {

struct TraceEvent {
  std::string name;
  std::string category;  // "call", "request", "pass"; within a profile its events' kinds
  std::string worker;    // where it happened
  std::string peer;      // the other side of a call or request; may be empty
  std::string flow;      // the name of the exchange with the peer, the same on both sides; may be empty
  bool sent = false;     // this is the side that began it
  std::string outcome;   // "OK" or the code of the error; empty within a profile
  uint32_t thread = 0;
  int64_t start = 0;  // ProfileNow
  int64_t end = 0;
  uint64_t number = 0;  // counts from 1
  uint64_t parent = 0;  // the number of the event around it; 0: none
};

class Trace {
 public:
  // Names and numbers of the worker, for the text.
  Trace(std::string worker, int32_t id) : worker_(std::move(worker)), id_(id) {}

  bool on() const { return on_.load(std::memory_order_relaxed); }
  // Forgets what there is and records from now on; the newest `capacity` events (at least 1) are kept.
  void Start(size_t capacity);
  // What there is stays.
  void Stop() { on_.store(false, std::memory_order_relaxed); }

  // An event and, when there is one, its profile, whose first event it is, with its workers' names. Nothing happens
  // while the trace is off.
  void Add(TraceEvent event, const Profile* profile, const std::map<int32_t, std::string>& names);

  // In the JSON format of Chrome's traces: complete events ("X") in µs of CLOCK_MONOTONIC, pid is the worker's id, tid
  // a row for events that do not overlap. args.flow names the exchange with the peer that an event is one side of,
  // args.side ("sent", "received") says which. otherData says how many events were dropped.
  std::string Json() const;

 private:
  void Push(TraceEvent event);  // needs mutex_

  const std::string worker_;
  const int32_t id_;
  std::atomic<bool> on_{false};
  mutable std::mutex mutex_;  // guards the rest; a leaf lock
  size_t capacity_ = 1;
  uint64_t last_number_ = 0;
  uint64_t dropped_ = 0;
  std::deque<TraceEvent> events_;
};

// One event that is going on: recorded when it ends, at the latest when it is destroyed ("CANCELLED").
class TraceSpan {
 public:
  // Null when the trace is off.
  static std::shared_ptr<TraceSpan> Begin(const std::shared_ptr<Trace>& trace, const char* category,
                                          const std::string& name, const std::string& peer) {
    return trace->on() ? BeginNow(trace, category, name, peer) : nullptr;
  }
  TraceSpan(std::shared_ptr<Trace> trace, TraceEvent event) : trace_(std::move(trace)), event_(std::move(event)) {}
  TraceSpan(const TraceSpan&) = delete;
  ~TraceSpan() { End("CANCELLED"); }

  // Which exchange it is, for the arrows of merged traces: the number of the worker that asks and that of its request.
  // Before the event ends.
  void SetFlow(int32_t asker, uint64_t call_id, bool sent);

  // Once; later calls do nothing.
  void End(const std::string& outcome, const Profile* profile = nullptr,
           const std::map<int32_t, std::string>& names = {});

 private:
  static std::shared_ptr<TraceSpan> BeginNow(const std::shared_ptr<Trace>& trace, const char* category,
                                             const std::string& name, const std::string& peer);

  std::shared_ptr<Trace> trace_;
  TraceEvent event_;
  std::atomic<bool> ended_{false};
};

}  // namespace gradferry
