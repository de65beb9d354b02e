// See report.h.
#include "tests/bench/report.h"

#include <cstdio>

namespace gradferry::bench {
namespace {

template <class... Values>
std::string Format(const char* format, Values... values) {
  char text[512];
  std::snprintf(text, sizeof(text), format, values...);
  return text;
}

std::string Micros(double ns) {
  const double us = ns / 1000;
  return Format(us < 100 ? "%.1f" : "%.0f", us);
}

std::string Times(const std::optional<double>& ratio) { return ratio ? Format("%.2f", *ratio) : "-"; }

// What the raw limit of a transport is: a subject and, for a call, its echo.
std::string RawOf(const std::string& transport, bool large) {
  if (transport == "tensorpipe") return large ? "raw_vm" : "pipe_uv";
  if (transport == "tensorpipe_shm") return large ? "raw_vm" : "pipe_shm";
  if (transport == "thrift_unix") return "raw_unix";
  if (transport == "thrift_tcp") return "raw_tcp";
  if (transport == "thrift_tls") return "raw_tls_tcp";
  return "";
}

std::optional<double> AgainstRaw(const Results& results, const Measurement& measurement, const Subject& subject) {
  if (subject.kind != Kind::kOurs) return std::nullopt;
  const bool large = measurement.bytes != 0;
  if (!large && measurement.name != "empty" && measurement.name.rfind("add", 0) != 0) return std::nullopt;
  const std::string raw = RawOf(subject.name, large);
  return results.Ratio(measurement.name, subject.name, large ? measurement.name : "echo", raw);
}

void AddRows(std::string& table, const Results& results, const Measurement& measurement,
             const std::vector<Subject>& subjects) {
  for (const Subject& subject : subjects) {
    const auto summary = results.Find(measurement.name, subject.name);
    if (!summary) continue;
    std::string speed = "-";
    if (measurement.bytes != 0) {
      speed = Format("%.1f GB/s", static_cast<double>(measurement.bytes) / summary->median);
    } else if (measurement.name == "in_flight") {
      speed = Format("%.0f/s", 1e9 / summary->median);
    }
    // A sample of those in flight is the mean of a burst, so its CPU time is that of all calls of the burst.
    const double cpu = (summary->cpu_driver + summary->cpu_peer) / (measurement.name == "in_flight" ? 1024.0 : 1.0);
    table +=
        Format("| %s | %s | %s | %s .. %s | %s | %s | %s | %s | %s |\n", measurement.text.c_str(), subject.name.c_str(),
               Micros(summary->median).c_str(), Micros(summary->interval.low).c_str(),
               Micros(summary->interval.high).c_str(), Micros(summary->p99).c_str(), Micros(cpu).c_str(), speed.c_str(),
               Times(results.Ratio(measurement.name, subject.name, measurement.name, "stock")).c_str(),
               Times(AgainstRaw(results, measurement, subject)).c_str());
  }
}

}  // namespace

std::string ResultsTable(const Results& results, const std::vector<Subject>& subjects) {
  std::string table =
      "| what | by | median us | 95 % | p99 | CPU us | | x stock | x raw |\n"
      "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Measurement& measurement : AllMeasurements()) AddRows(table, results, measurement, subjects);

  table +=
      "\n| by | p50 beside 1 GiB, us | p99 | idle CPU, % of a core | wake-ups/s | receiver of 1 GiB, GiB | sender, MiB "
      "| "
      "copied |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n";
  for (const Subject& subject : subjects) {
    if (subject.kind == Kind::kRaw) continue;
    const auto value = [&](const char* name, double scale, const char* format) {
      const auto found = results.Value(name, subject.name);
      return found ? Format(format, *found * scale) : std::string("-");
    };
    table += Format("| %s | %s | %s | %s | %s | %s | %s | %s |\n", subject.name.c_str(),
                    value("busy_p50", 1e-3, "%.0f").c_str(), value("busy_p99", 1e-3, "%.0f").c_str(),
                    value("idle_cpu", 1, "%.2f").c_str(), value("idle_wakeups", 1, "%.1f").c_str(),
                    value("receiver_peak_gib", 1, "%.3f").c_str(), value("sender_peak_mib", 1, "%.1f").c_str(),
                    value("copied_bytes", 1, "%.2f").c_str());
  }
  return table;
}

std::string GoalsTable(const std::vector<Goal>& goals) {
  std::string table = "| goal | wanted | measured | by | met |\n| --- | --- | ---: | --- | --- |\n";
  for (const Goal& goal : goals) {
    table += Format("| %s | %s | %s | %s | %s |\n", goal.what.c_str(), goal.wanted.c_str(),
                    goal.value ? Format("%.3g", *goal.value).c_str() : "-", goal.by.c_str(),
                    goal.met     ? "yes"
                    : goal.value ? "no"
                                 : "not measured");
  }
  return table;
}

}  // namespace gradferry::bench
