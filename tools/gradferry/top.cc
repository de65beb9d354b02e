// `gradferry top`: a table of a running worker's peers, from its metrics port, anew each second.
#include <signal.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <limits>
#include <memory>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/interrupt.h"
#include "tools/gradferry/library.h"
#include "tools/gradferry/scrape.h"

namespace gradferry::command {
namespace {

struct Options {
  std::string target;
  double interval = 1;
  double timeout = 5;
  uint64_t count = 0;
  bool once = false;
};

// Of one peer, at one moment.
struct PeerState {
  std::string state, transport;
  double calls = 0, sent = 0, received = 0, in_flight = 0;
  std::map<double, double> durations;  // bound in seconds -> calls up to it
};

struct Snapshot {
  std::chrono::steady_clock::time_point at;
  std::string worker, group, state;
  double requests = 0, passes = 0, busy = 0, waiting = 0, contexts = 0;
  std::map<std::string, PeerState> peers;
};

Snapshot Take(const Options& options) {
  Snapshot now;
  for (const Sample& sample : Scrape(options.target, options.timeout)) {
    const auto label = [&](const char* name) {
      const auto found = sample.labels.find(name);
      return found == sample.labels.end() ? std::string() : found->second;
    };
    const std::string peer = label("peer");
    if (sample.name == "gradferry_worker_info") {
      now.worker = label("worker"), now.group = label("group"), now.state = label("state");
    } else if (sample.name == "gradferry_peer_info") {
      now.peers[peer].state = label("state"), now.peers[peer].transport = label("transport");
    } else if (sample.name == "gradferry_calls_total") {
      now.peers[peer].calls += sample.value;
    } else if (sample.name == "gradferry_transferred_bytes_total") {
      (label("direction") == "sent" ? now.peers[peer].sent : now.peers[peer].received) += sample.value;
    } else if (sample.name == "gradferry_calls_in_flight") {
      now.peers[peer].in_flight = sample.value;
    } else if (sample.name == "gradferry_call_duration_seconds_bucket") {
      const std::string bound = label("le");
      now.peers[peer].durations[bound == "+Inf" ? HUGE_VAL : std::strtod(bound.c_str(), nullptr)] += sample.value;
    } else if (sample.name == "gradferry_requests_total") {
      now.requests += sample.value;
    } else if (sample.name == "gradferry_passes_total") {
      now.passes += sample.value;
    } else if (sample.name == "gradferry_contexts") {
      now.contexts = sample.value;
    } else if (sample.name == "gradferry_pool_threads" && label("state") == "busy") {
      now.busy = sample.value;
    } else if (sample.name == "gradferry_pool_tasks_waiting") {
      now.waiting = sample.value;
    }
  }
  now.at = std::chrono::steady_clock::now();
  return now;
}

// The least bound below which this share of the calls between the two stayed; NaN when there were none.
double Quantile(const std::map<double, double>& before, const std::map<double, double>& after, double share) {
  const auto since = [&](double bound, double count) {
    const auto earlier = before.find(bound);
    return count - (earlier == before.end() ? 0 : earlier->second);
  };
  const double all = after.empty() ? 0 : since(after.rbegin()->first, after.rbegin()->second);
  if (all <= 0) return std::numeric_limits<double>::quiet_NaN();
  for (const auto& [bound, count] : after) {
    if (since(bound, count) >= share * all) return bound;
  }
  return HUGE_VAL;
}

std::string Scaled(double value, const char* unit) {
  static constexpr const char* kPrefixes[] = {"", "k", "M", "G", "T"};
  size_t prefix = 0;
  for (; value >= 1000 && prefix < 4; ++prefix) value /= 1000;
  char text[64];
  snprintf(text, sizeof(text), prefix == 0 ? "%.0f %s%s" : "%.1f %s%s", value, kPrefixes[prefix], unit);
  return text;
}

std::string Time(double seconds) {
  char text[64];
  if (std::isnan(seconds)) return "-";
  if (std::isinf(seconds)) return ">34 s";
  if (seconds < 1e-3) {
    snprintf(text, sizeof(text), "%.0f us", seconds * 1e6);
  } else {
    snprintf(text, sizeof(text), seconds < 1 ? "%.1f ms" : "%.1f s", seconds < 1 ? seconds * 1e3 : seconds);
  }
  return text;
}

void Print(const Snapshot& before, const Snapshot& now) {
  const double seconds = std::max(std::chrono::duration<double>(now.at - before.at).count(), 1e-3);
  // A worker that was restarted begins at 0.
  const auto rate = [&](double earlier, double later) { return (later < earlier ? later : later - earlier) / seconds; };
  printf(
      "worker %s of group %s, %s: %.0f requests/s, %.1f passes/s, %.0f contexts, %.0f threads busy, %.0f tasks wait\n",
      now.worker.c_str(), now.group.c_str(), now.state.c_str(), rate(before.requests, now.requests),
      rate(before.passes, now.passes), now.contexts, now.busy, now.waiting);
  printf("%-24s %-10s %-12s %9s %12s %12s %9s %9s %9s\n", "PEER", "STATE", "TRANSPORT", "CALLS/S", "SENT/S",
         "RECEIVED/S", "P50", "P99", "IN FLIGHT");
  for (const auto& [name, peer] : now.peers) {
    const auto found = before.peers.find(name);
    const PeerState none, &earlier = found == before.peers.end() ? none : found->second;
    printf("%-24s %-10s %-12s %9.0f %12s %12s %9s %9s %9.0f\n", name.c_str(), peer.state.c_str(),
           peer.transport.empty() ? "-" : peer.transport.c_str(), rate(earlier.calls, peer.calls),
           Scaled(rate(earlier.sent, peer.sent), "B").c_str(),
           Scaled(rate(earlier.received, peer.received), "B").c_str(),
           Time(Quantile(earlier.durations, peer.durations, 0.5)).c_str(),
           Time(Quantile(earlier.durations, peer.durations, 0.99)).c_str(), peer.in_flight);
  }
}

// The terminal's other screen while it lives, so that what was there comes back at the end, whatever that is: Ctrl-C, a
// worker that has died, an error.
class Screen {
 public:
  explicit Screen(bool wanted) : on_(wanted && isatty(STDOUT_FILENO) != 0) {
    if (!on_) return;
    fputs("\033[?1049h\033[?25l", stdout);
    fflush(stdout);
  }
  Screen(const Screen&) = delete;
  ~Screen() {
    if (!on_) return;
    fputs("\033[?25h\033[?1049l", stdout);
    fflush(stdout);
  }
  void Clear() const {
    if (on_) fputs("\033[H\033[2J", stdout);
  }

 private:
  const bool on_;
};

void Watch(const Options& options) {
  Snapshot before = Take(options);
  const Screen screen(!options.once);
  const uint64_t count = options.once ? 1 : options.count;
  for (uint64_t i = 0; count == 0 || i < count; ++i) {
    SleepUnlessInterrupted(options.interval);
    if (Interrupted()) return;
    Snapshot now = Take(options);
    screen.Clear();
    Print(before, now);
    if (fflush(stdout) != 0) {
      // Whoever read has seen enough (`| head`); there is nobody to tell.
      if (errno == EPIPE) return;
      throw Failure(std::string("the table cannot be written: ") + strerror(errno));
    }
    before = std::move(now);
  }
}

int Run(const Options& options) {
  InterruptFd();  // from now on signals are looked at
  signal(SIGPIPE, SIG_IGN);
  try {
    Watch(options);
  } catch (const Failure&) {
    if (!Interrupted()) throw;
  }
  return 0;
}

}  // namespace

void AddTop(CLI::App& app, Chosen chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* top = app.add_subcommand("top", "Watch a running worker and its peers");
  top->add_option("HOST:PORT", options->target, "The worker's metrics.listen")->required();
  top->add_option("--interval,-i", options->interval, "Seconds between two looks")
      ->capture_default_str()
      ->check(CLI::Range(0.05, 3600.0));
  top->add_option("--timeout,-t", options->timeout, "Seconds to wait for the worker's answer")
      ->capture_default_str()
      ->check(CLI::Range(0.01, 3600.0));
  top->add_option("--count,-n", options->count, "End after so many tables");
  top->add_flag("--once", options->once, "One table, of one interval, and no other screen");
  top->footer(
      "The worker's configuration has to have metrics.listen. Times are upper bounds, by powers of two. Ctrl-C ends "
      "it.\n\n"
      "Examples:\n  gradferry top 127.0.0.1:9464\n  gradferry top 127.0.0.1:9464 --once -i 5");
  top->callback([chosen, options] { *chosen = [options] { return Run(*options); }; });
}

}  // namespace gradferry::command
