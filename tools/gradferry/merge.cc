// See merge.h.
#include "tools/gradferry/merge.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>

#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

using nlohmann::json;

constexpr double kUnknown = std::numeric_limits<double>::infinity();
constexpr double kTick = 0.001;  // us: the resolution of a trace

// One side of an exchange.
struct Side {
  size_t trace = 0;
  double start = 0, end = 0;
  json pid, tid;
};

struct Exchange {
  std::string name;
  std::optional<Side> sent, received;
  bool whole() const { return sent && received; }
};

// How far the clock of one worker is ahead of another's: between the two, in us.
struct Bounds {
  double least = -kUnknown, most = kUnknown;
  // When the clocks drift, no single number fits all exchanges: then the shortest one decides.
  double shortest = kUnknown, shortest_least = 0, shortest_most = 0;

  void Add(double low, double high) {
    if (high < low) return;  // an exchange that was given up before it was answered
    least = std::max(least, low);
    most = std::min(most, high);
    if (high - low < shortest) shortest = high - low, shortest_least = low, shortest_most = high;
  }
  bool known() const { return shortest < kUnknown; }
  double offset() const { return least <= most ? (least + most) / 2 : (shortest_least + shortest_most) / 2; }
  double error() const { return least <= most ? (most - least) / 2 : (shortest + least - most) / 2; }
};

void Check(const Trace& trace) {
  const auto wrong = [&](const std::string& what) { return Failure(trace.file + " is no trace of a worker: " + what); };
  const json& document = trace.document;
  if (!document.is_object() || !document.contains("traceEvents") || !document["traceEvents"].is_array()) {
    throw wrong("it has no array traceEvents");
  }
  const json other = document.value("otherData", json());
  if (other.is_object() && other.contains("workers")) throw wrong("it is a merged one");
  if (!other.is_object() || !other.value("worker", json()).is_string()) {
    throw wrong("otherData.worker names no worker");
  }
  if (!other.value("dropped", json(0u)).is_number_unsigned()) throw wrong("otherData.dropped is no number of events");
  size_t number = 0;
  for (const json& event : document["traceEvents"]) {
    const std::string which = "traceEvents[" + std::to_string(number++) + "]";
    const json phase = event.is_object() ? event.value("ph", json()) : json();
    if (!phase.is_string()) throw wrong(which + " has no ph");
    const bool slice = phase == "X";
    if (!event.value("name", json()).is_string()) throw wrong(which + " has no name");
    for (const char* field : {"pid", "tid"}) {
      const json id = event.value(field, json());
      if (!id.is_number_integer() || id < 0 || id > INT32_MAX) throw wrong(which + " has no " + field);
    }
    for (const char* field : {"ts", "dur"}) {
      const json time = event.value(field, json());
      if (slice ? !time.is_number() : !time.is_null() && !time.is_number()) throw wrong(which + " has no " + field);
    }
    if (slice && event["dur"] < 0) throw wrong(which + " ends before it begins");
  }
}

std::map<std::string, Exchange> FindExchanges(const std::vector<Trace>& traces) {
  std::map<std::string, Exchange> exchanges;
  for (size_t t = 0; t < traces.size(); ++t) {
    for (const json& event : traces[t].document["traceEvents"]) {
      const auto args = event.find("args");
      if (event["ph"] != "X" || args == event.end() || !args->is_object()) continue;
      const json flow = args->value("flow", json()), side = args->value("side", json());
      if (!flow.is_string()) continue;
      const double start = event["ts"];
      Exchange& exchange = exchanges[flow];
      const Side found{t, start, start + event["dur"].get<double>(), event["pid"], event["tid"]};
      if (side == "sent") {
        exchange.sent = found;
        exchange.name = event.value("name", "");
      } else if (side == "received") {
        exchange.received = found;
      }
    }
  }
  return exchanges;
}

struct Placement {
  double ahead = 0;  // of the first trace's clock
  double error = kUnknown;
  double moved() const { return error < kUnknown ? -ahead : 0; }
};

// The way with the smallest error from the first trace to each.
std::vector<Placement> Align(size_t count, const std::map<std::string, Exchange>& exchanges) {
  std::map<std::pair<size_t, size_t>, Bounds> bounds;  // (a, b), a < b: how far b is ahead of a
  for (const auto& [flow, exchange] : exchanges) {
    if (!exchange.whole() || exchange.sent->trace == exchange.received->trace) continue;
    const size_t from = exchange.sent->trace, to = exchange.received->trace;
    const double low = exchange.received->end - exchange.sent->end;
    const double high = exchange.received->start - exchange.sent->start;
    if (from < to) {
      bounds[{from, to}].Add(low, high);
    } else {
      bounds[{to, from}].Add(-high, -low);
    }
  }
  std::vector<Placement> placed(count);
  placed[0].error = 0;
  for (size_t round = 0; round + 1 < count; ++round) {
    for (const auto& [pair, b] : bounds) {
      if (!b.known()) continue;
      const auto relax = [&](size_t from, size_t to, double ahead) {
        const double error = placed[from].error + b.error();
        if (error < placed[to].error) placed[to] = {placed[from].ahead + ahead, error};
      };
      relax(pair.first, pair.second, b.offset());
      relax(pair.second, pair.first, -b.offset());
    }
  }
  return placed;
}

json Arrow(const char* phase, const std::string& id, const std::string& name, double ts, const Side& side) {
  json arrow = {{"ph", phase}, {"id", id},        {"cat", "message"}, {"name", name},
                {"ts", ts},    {"pid", side.pid}, {"tid", side.tid}};
  if (phase[0] == 'f') arrow["bp"] = "e";
  return arrow;
}

// The last moment of a slice at which an arrow is bound to it: a slice does not hold its end.
double LastMoment(const Side& side) { return std::max(side.start, side.end - kTick); }

// From the message to its arrival and from the answer to its arrival. An arrow whose end is before its beginning would
// not be shown, so where the clocks are wrong both move within their slices, and there is none when that does not help.
// An answer that came when nobody waited for it any more has none either.
void AddArrows(const std::string& flow, const std::string& name, const Side& sent, const Side& received, json& events) {
  const double arrived = std::min(std::max(received.start, sent.start), LastMoment(received));
  if (sent.start <= arrived) {
    events.push_back(Arrow("s", flow, name, sent.start, sent));
    events.push_back(Arrow("f", flow, name, arrived, received));
  }
  const bool given_up = received.end - received.start > sent.end - sent.start;
  const double answered = std::max(std::min(LastMoment(received), LastMoment(sent)), received.start);
  if (!given_up && answered <= LastMoment(sent)) {
    events.push_back(Arrow("s", flow + "r", name + ": answer", answered, received));
    events.push_back(Arrow("f", flow + "r", name + ": answer", LastMoment(sent), sent));
  }
}

// Workers are processes of the merged trace by their numbers, and exchanges are named by them.
void CheckNumbers(const std::vector<Trace>& traces) {
  std::map<json, const Trace*> owners;
  for (const Trace& trace : traces) {
    for (const json& event : trace.document["traceEvents"]) {
      const auto [owner, fresh] = owners.emplace(event["pid"], &trace);
      if (owner->second == &trace) continue;
      throw Failure(owner->second->file + " and " + trace.file + " both have worker number " + event["pid"].dump() +
                    ", under different names: they are not of one group");
    }
  }
}

}  // namespace

json MergeTraces(std::vector<Trace> traces) {
  std::map<std::string, std::string> files;
  for (const Trace& trace : traces) {
    Check(trace);
    const std::string worker = trace.document["otherData"]["worker"];
    const auto [other, fresh] = files.emplace(worker, trace.file);
    if (!fresh) throw Failure(other->second + " and " + trace.file + " are both of worker " + worker);
  }
  CheckNumbers(traces);
  auto exchanges = FindExchanges(traces);
  const auto placed = Align(traces.size(), exchanges);
  // Times from 0 on: Perfetto drops what was before. A worker that nothing leads to stays as it was, else.
  double least = 0;
  for (size_t t = 0; t < traces.size(); ++t) {
    for (const json& event : traces[t].document["traceEvents"]) {
      if (event.contains("ts")) least = std::min(least, event["ts"].get<double>() + placed[t].moved());
    }
  }
  json events = json::array(), workers = json::object();
  uint64_t dropped = 0;
  const std::string reference = traces[0].document["otherData"]["worker"];
  for (size_t t = 0; t < traces.size(); ++t) {
    const json& other = traces[t].document["otherData"];
    const bool known = placed[t].error < kUnknown;
    const double moved = placed[t].moved() - least;
    for (json& event : traces[t].document["traceEvents"]) {
      if (event.contains("ts")) event["ts"] = event["ts"].get<double>() + moved;
      events.push_back(std::move(event));
    }
    workers[other["worker"].get<std::string>()] = {
        {"offset_us", moved}, {"error_us", known ? json(placed[t].error) : json()}, {"clock_of", reference}};
    dropped += other.value("dropped", uint64_t{0});
  }
  for (const auto& [flow, exchange] : exchanges) {
    if (!exchange.whole()) continue;
    const auto aligned = [&](Side side) {
      const double moved = placed[side.trace].moved() - least;
      side.start += moved, side.end += moved;
      return side;
    };
    AddArrows(flow, exchange.name, aligned(*exchange.sent), aligned(*exchange.received), events);
  }
  return {{"traceEvents", std::move(events)},
          {"displayTimeUnit", "ns"},
          {"otherData", {{"workers", std::move(workers)}, {"dropped", dropped}}}};
}

}  // namespace gradferry::command
