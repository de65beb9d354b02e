// `gradferry ping`: enters the group as a guest and measures round trips to a worker.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/interrupt.h"
#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

struct Options {
  std::string worker;
  std::string file;
  std::string address;
  std::string as;
  int64_t id = -1;
  int64_t as_id = -1;
  uint64_t count = 4;
  double interval = 0.2;
  double timeout = 5;
  std::vector<std::string> settings;
  bool json = false;
};

// No handler has this name, so the answer comes from the transport's thread: NOT_FOUND, and nothing of the program
// runs.
constexpr char kNoHandler[] = "gradferry.ping";

struct Target {
  int32_t id = -1;
  std::string address;
};

Target FindTarget(const Options& options, const nlohmann::json& settings) {
  Target target{static_cast<int32_t>(options.id), options.address};
  for (const auto& peer : settings["group.peers"]["value"]) {
    if (peer["name"] != options.worker) continue;
    if (target.id < 0) target.id = peer["id"];
    if (target.address.empty()) target.address = peer.value("address", "");
  }
  if (target.id >= 0 && !target.address.empty()) return target;
  throw Failure("where is worker " + options.worker +
                "? It wants an entry with id and address in group.peers of the configuration, or --id and --address");
}

// ms, or throws when the worker did not answer.
double RoundTrip(const Library& library, const Worker& worker, const Options& options) {
  gf_call call{};
  call.struct_size = sizeof(call);
  call.kind = GF_CALL_HANDLER;
  call.to = options.worker.data();
  call.to_length = options.worker.size();
  call.name = kNoHandler;
  call.name_length = sizeof(kNoHandler) - 1;
  call.deadline = static_cast<int64_t>(options.timeout * 1e9);
  gf_list* results = nullptr;
  gf_error* error = nullptr;
  const auto began = std::chrono::steady_clock::now();
  const int32_t code = library.gf_call_sync(worker.get(), &call, &results, &error);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count();
  library.gf_list_unref(results);
  if (code == GF_NOT_FOUND || code == GF_OK) {
    library.gf_error_unref(error);
    return ms;
  }
  throw Failure("worker " + options.worker + " does not answer: " + library.TakeError(error));
}

std::string TransportTo(const std::string& info, const std::string& worker) {
  const auto parsed = nlohmann::json::parse(info);
  for (const auto& peer : parsed["peers"]) {
    if (peer["name"] == worker) return peer.value("transport", "");
  }
  return "";
}

int Run(const Options& options) {
  const Library& library = Library::Load();
  Config config(library, options.file, options.settings);
  const auto settings = nlohmann::json::parse(config.Describe());
  const Target target = FindTarget(options, settings);
  // A guest: known to nobody, and to be confused with nobody. It listens where the transport likes.
  config.Set("worker.name", options.as.empty() ? "ping-" + std::to_string(getpid()) : options.as);
  config.Set("worker.id", std::to_string(options.as_id >= 0 ? options.as_id : 32000 + getpid() % 768));
  for (const char* key : {"worker.listen", "group.rendezvous", "metrics.listen"}) config.Set(key, "");
  config.Set("group.peers", "[]");
  const Worker worker(library, config);
  gf_peer peer{};
  peer.struct_size = sizeof(peer);
  peer.id = target.id;
  peer.name = options.worker.data();
  peer.name_length = options.worker.size();
  peer.address = target.address.data();
  peer.address_length = target.address.size();
  library.Call(library.gf_worker_add_peer, worker.get(), &peer);

  const double first = RoundTrip(library, worker, options);  // with the connection
  const std::string transport = TransportTo(worker.Info(), options.worker);
  if (!options.json) {
    printf("worker %s (%d) by %s at %s: connected in %.3f ms\n", options.worker.c_str(), target.id, transport.c_str(),
           target.address.c_str(), first);
    fflush(stdout);
  }
  std::vector<double> times;
  std::string error;
  for (uint64_t i = 0; i < options.count && !Interrupted(); ++i) {
    if (i > 0) SleepUnlessInterrupted(options.interval);
    try {
      times.push_back(RoundTrip(library, worker, options));
    } catch (const Failure& failure) {
      error = failure.what();  // what was measured until then is shown all the same
      break;
    }
    if (!options.json) printf("%llu: %.3f ms\n", static_cast<unsigned long long>(i + 1), times.back());
    fflush(stdout);
  }
  std::vector<double> sorted = times;
  std::sort(sorted.begin(), sorted.end());
  const double median = sorted.empty() ? 0 : sorted[sorted.size() / 2];
  if (options.json) {
    nlohmann::json report = {{"worker", options.worker}, {"transport", transport},  {"address", target.address},
                             {"connect_ms", first},      {"round_trips_ms", times}, {"median_ms", median}};
    if (!error.empty()) report["error"] = error;
    printf("%s\n", report.dump(2, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  } else if (!sorted.empty()) {
    printf("%zu answers: least %.3f, median %.3f, most %.3f ms\n", sorted.size(), sorted.front(), median,
           sorted.back());
  }
  fflush(stdout);
  if (!error.empty()) throw Failure(error);
  return 0;
}

}  // namespace

void AddPing(CLI::App& app, Chosen chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* ping = app.add_subcommand("ping", "Measure round trips to a worker");
  ping->add_option("WORKER", options->worker, "Its name")->required();
  ping->add_option("--config,-f", options->file, "The group's configuration: its name, secret, transport, peers");
  ping->add_option("--address", options->address, "Where it is, when group.peers does not say so");
  ping->add_option("--id", options->id, "Its number, likewise")->check(CLI::Range(0, 32767));
  ping->add_option("--as", options->as, "The name to enter with; needed where certificates name workers");
  ping->add_option("--as-id", options->as_id, "The number to enter with")->check(CLI::Range(0, 32767));
  ping->add_option("--count,-c", options->count, "Round trips after the first")->capture_default_str();
  ping->add_option("--interval,-i", options->interval, "Seconds between them")
      ->capture_default_str()
      ->check(CLI::Range(0.0, 3600.0));
  ping->add_option("--timeout,-t", options->timeout, "Seconds to wait for an answer")
      ->capture_default_str()
      ->check(CLI::Range(0.001, 3600.0));
  ping->add_option("--set", options->settings, "KEY=VALUE over the configuration");
  ping->add_flag("--json", options->json, "As JSON");
  ping->footer(
      "Enters the group as a guest, ping-<pid> unless --as says otherwise, and proves the group's secret as any "
      "member\n"
      "does. The guest stays in the worker's list of peers as one that has left.\n\n"
      "Examples:\n  gradferry ping trainer -f group.toml\n"
      "  gradferry ping trainer --address uv://10.0.0.1:4711 --id 0 -c 100 -i 0.01");
  ping->callback([chosen, options] { *chosen = [options] { return Run(*options); }; });
}

}  // namespace gradferry::command
