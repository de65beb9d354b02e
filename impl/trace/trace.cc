// See trace.h.
#include "impl/trace/trace.h"

#include <algorithm>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <queue>
#include <set>
#include <unordered_map>
#include <utility>

#include "impl/base/status.h"

namespace gradferry {

void Trace::Start(size_t capacity) {
  std::lock_guard lock(mutex_);
  capacity_ = std::max<size_t>(capacity, 1);
  dropped_ = 0;
  events_.clear();
  on_.store(true, std::memory_order_relaxed);
}

void Trace::Push(TraceEvent event) {
  if (events_.size() >= capacity_) {
    events_.pop_front();
    ++dropped_;
  }
  events_.push_back(std::move(event));
}

void Trace::Add(TraceEvent event, const Profile* profile, const std::map<int32_t, std::string>& names) {
  std::lock_guard lock(mutex_);
  if (!on()) return;
  event.worker = worker_;
  event.number = ++last_number_;
  const uint64_t first = event.number;
  const int64_t start = event.start, end = event.end;
  Push(std::move(event));
  if (profile == nullptr || profile->events.empty()) return;
  for (size_t i = 1; i < profile->events.size(); ++i) {
    const ProfileEvent& inner = profile->events[i];
    TraceEvent added;
    added.name = inner.name;
    added.category = ProfileEventKindName(inner.kind);
    added.worker = names.at(inner.worker);
    added.thread = inner.thread;
    added.start = std::clamp(start + inner.start, start, end);
    added.end = std::clamp(start + inner.end, added.start, end);
    added.number = first + i;
    added.parent = first + inner.parent;
    Push(std::move(added));
  }
  last_number_ = first + profile->events.size() - 1;
}

namespace {

// Gives events rows: one within the row of the event around it when it fits there, else in one that is free.
class Rows {
 public:
  // In the order of their starts; of those that start together the longer ones first.
  size_t Place(const TraceEvent& event) {
    auto around = row_of_.find(event.parent);
    if (event.parent != 0 && around != row_of_.end() && FitsInto(around->second, event)) {
      return Put(around->second, event);
    }
    auto& free = by_end_[event.parent != 0 ? std::string("callees") : event.category];
    if (!free.empty() && free.top().first <= event.start) {
      const size_t row = free.top().second;
      free.pop();
      rows_[row].clear();
      free.emplace(event.end, row);
      return Put(row, event);
    }
    rows_.emplace_back();
    const size_t row = rows_.size() - 1;
    names_.push_back(event.parent != 0 ? std::string("callees") : event.category);
    free.emplace(event.end, row);
    return Put(row, event);
  }

  const std::vector<std::string>& names() const { return names_; }

 private:
  using End = std::pair<int64_t, size_t>;  // when a row is free again, and the row

  bool FitsInto(size_t row, const TraceEvent& event) {
    auto& open = rows_[row];
    while (!open.empty() && open.back().first <= event.start && open.back().second != event.parent) open.pop_back();
    return !open.empty() && open.back().second == event.parent;
  }

  size_t Put(size_t row, const TraceEvent& event) {
    rows_[row].emplace_back(event.end, event.number);
    row_of_[event.number] = row;
    return row;
  }

  std::vector<std::vector<std::pair<int64_t, uint64_t>>> rows_;  // what is open in each: end and number
  std::vector<std::string> names_;
  std::map<std::string, std::priority_queue<End, std::vector<End>, std::greater<End>>> by_end_;
  std::unordered_map<uint64_t, size_t> row_of_;
};

double Microseconds(int64_t ns) { return static_cast<double>(ns) / 1000; }

}  // namespace

std::string Trace::Json() const {
  using nlohmann::json;
  std::vector<TraceEvent> events;
  uint64_t dropped;
  {
    std::lock_guard lock(mutex_);
    events.assign(events_.begin(), events_.end());
    dropped = dropped_;
  }
  std::sort(events.begin(), events.end(), [](const TraceEvent& a, const TraceEvent& b) {
    return std::make_tuple(a.start, -a.end, a.number) < std::make_tuple(b.start, -b.end, b.number);
  });
  json list = json::array();
  list.push_back({{"ph", "M"}, {"name", "process_name"}, {"pid", id_}, {"tid", 0}, {"args", {{"name", worker_}}}});
  Rows rows;
  for (const TraceEvent& event : events) {
    json args = {{"worker", event.worker}, {"thread", event.thread}};
    if (!event.peer.empty()) args["peer"] = event.peer;
    if (!event.outcome.empty()) args["outcome"] = event.outcome;
    if (!event.flow.empty()) {
      args["flow"] = event.flow;
      args["side"] = event.sent ? "sent" : "received";
    }
    list.push_back({{"ph", "X"},
                    {"name", event.name},
                    {"cat", event.category},
                    {"ts", Microseconds(event.start)},
                    {"dur", Microseconds(event.end - event.start)},
                    {"pid", id_},
                    {"tid", rows.Place(event) + 1},
                    {"args", std::move(args)}});
  }
  for (size_t row = 0; row < rows.names().size(); ++row) {
    list.push_back({{"ph", "M"},
                    {"name", "thread_name"},
                    {"pid", id_},
                    {"tid", row + 1},
                    {"args", {{"name", rows.names()[row]}}}});
  }
  const json document = {{"traceEvents", std::move(list)},
                         {"displayTimeUnit", "ns"},
                         {"otherData", {{"worker", worker_}, {"dropped", dropped}}}};
  return document.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::shared_ptr<TraceSpan> TraceSpan::BeginNow(const std::shared_ptr<Trace>& trace, const char* category,
                                               const std::string& name, const std::string& peer) {
  TraceEvent event;
  event.name = name;
  event.category = category;
  event.peer = peer;
  event.thread = ThreadNumber();
  event.start = ProfileNow();
  return std::make_shared<TraceSpan>(trace, std::move(event));
}

void TraceSpan::SetFlow(int32_t asker, uint64_t call_id, bool sent) {
  event_.flow = StrCat(asker, ".", call_id);
  event_.sent = sent;
}

void TraceSpan::End(const std::string& outcome, const Profile* profile, const std::map<int32_t, std::string>& names) {
  if (ended_.exchange(true)) return;
  event_.outcome = outcome;
  event_.end = ProfileNow();
  trace_->Add(std::move(event_), profile, names);
}

}  // namespace gradferry
