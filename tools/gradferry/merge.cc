// See merge.h.
#include "tools/gradferry/merge.h"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>

#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

using nlohmann::json;

constexpr double kUnknown = std::numeric_limits<double>::infinity();

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
  if (!document.contains("otherData") || !document["otherData"].is_object() ||
      !document["otherData"].value("worker", json()).is_string()) {
    throw wrong("otherData.worker names no worker");
  }
  for (const json& event : document["traceEvents"]) {
    if (!event.is_object() || !event.value("ph", json()).is_string()) throw wrong("it has an event without ph");
    if (event["ph"] != "X") continue;
    for (const char* field : {"ts", "dur", "pid", "tid"}) {
      if (!event.value(field, json()).is_number()) throw wrong(std::string("it has an event without ") + field);
    }
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

}  // namespace

json MergeTraces(std::vector<Trace> traces) {
  std::map<std::string, std::string> files;
  for (const Trace& trace : traces) {
    Check(trace);
    const std::string worker = trace.document["otherData"]["worker"];
    const auto [other, fresh] = files.emplace(worker, trace.file);
    if (!fresh) throw Failure(other->second + " and " + trace.file + " are both of worker " + worker);
  }
  auto exchanges = FindExchanges(traces);
  const auto placed = Align(traces.size(), exchanges);
  json events = json::array(), workers = json::object();
  uint64_t dropped = 0;
  const std::string reference = traces[0].document["otherData"]["worker"];
  for (size_t t = 0; t < traces.size(); ++t) {
    const json& other = traces[t].document["otherData"];
    const bool known = placed[t].error < kUnknown;
    const double moved = known ? -placed[t].ahead : 0;
    for (json& event : traces[t].document["traceEvents"]) {
      if (event.contains("ts")) event["ts"] = event["ts"].get<double>() + moved;
      events.push_back(std::move(event));
    }
    workers[other["worker"].get<std::string>()] = {
        {"offset_us", moved}, {"error_us", known ? json(placed[t].error) : json()}, {"clock_of", reference}};
    dropped += other.value("dropped", uint64_t{0});
  }
  const auto moved = [&](const Side& side, double time) {
    return time - (placed[side.trace].error < kUnknown ? placed[side.trace].ahead : 0);
  };
  for (const auto& [flow, exchange] : exchanges) {
    if (!exchange.whole()) continue;
    const Side &sent = *exchange.sent, &received = *exchange.received;
    events.push_back(Arrow("s", flow, exchange.name, moved(sent, sent.start), sent));
    events.push_back(Arrow("f", flow, exchange.name, moved(received, received.start), received));
    const std::string answer = exchange.name + ": answer";
    events.push_back(Arrow("s", flow + "r", answer, moved(received, received.end), received));
    events.push_back(Arrow("f", flow + "r", answer, moved(sent, sent.end), sent));
  }
  return {{"traceEvents", std::move(events)},
          {"displayTimeUnit", "ns"},
          {"otherData", {{"workers", std::move(workers)}, {"dropped", dropped}}}};
}

}  // namespace gradferry::command
