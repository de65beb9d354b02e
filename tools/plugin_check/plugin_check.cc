#include "tools/plugin_check/plugin_check.h"

#include <signal.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cstring>
#include <iostream>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/plugin.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {

namespace {

Settings the_settings;  // of this process, once it is a child

std::string Text(const char* text) { return text == nullptr ? "" : text; }

// ---- Signals (GF-TRN-09) ----

using Handlers = std::array<struct sigaction, NSIG>;

Handlers ReadHandlers() {
  Handlers handlers{};
  for (int signal = 1; signal < NSIG; ++signal) sigaction(signal, nullptr, &handlers[static_cast<size_t>(signal)]);
  return handlers;
}

void CompareHandlers(const Handlers& before) {
  const Handlers after = ReadHandlers();
  for (size_t signal = 1; signal < before.size(); ++signal) {
    if (before[signal].sa_sigaction == after[signal].sa_sigaction &&
        before[signal].sa_handler == after[signal].sa_handler)
      continue;
    Found(9, std::string("the handling of a signal was changed: ") + strsignal(static_cast<int>(signal)));
  }
  Checked(9);
}

// ---- One scenario ----

void RunScenario(const Scenario& scenario) {
  WatchBlocks();
  signal(SIGPIPE, SIG_DFL);
  for (int i = 0; i < scenario.peers; ++i) Peers().push_back(StartPeer(the_settings));
  const Handlers handlers = ReadHandlers();
  Watching(11, "loading the file");
  std::string error;
  const gf_transport_entry entry = LoadEntry(the_settings.file, &error);
  const gf_transport_descriptor* descriptor = entry == nullptr ? nullptr : Enter(entry, &error);
  if (descriptor == nullptr) return Found(11, error);
  // What cannot be driven at all.
  if (descriptor->struct_size < offsetof(gf_transport_descriptor, chunk) || descriptor->epoch != GF_TRANSPORT_EPOCH) {
    return Found(11, "the descriptor's struct_size or epoch is not of this header");
  }
  if (descriptor->vtable == nullptr || descriptor->vtable->struct_size < offsetof(gf_transport_vtable, stats)) {
    return Found(11, "the descriptor has no vtable, or one that is too short");
  }
  const gf_transport_vtable table = VtableOf(*descriptor);
  const bool can_be_driven =
      table.create && table.destroy && table.listen && table.connect && table.send && table.close && table.shutdown;
  Transport::SetPlugin(descriptor, the_settings.options, the_settings.address);
  TellPlugin(Text(descriptor->name) + " " + Text(descriptor->version) + " (" + Text(descriptor->vendor) + ")");
  World::patience = the_settings.patience;
  StartWatchdog(the_settings.call_limit);
  if (can_be_driven || scenario.run == CheckDescriptor) {
    try {
      scenario.run();
    } catch (const ScenarioOver&) {
    }
  }
  NoteCallTimes();
  CompareHandlers(handlers);
  for (const PeerProcess& peer : Peers()) kill(peer.pid, SIGKILL);
}

// ---- The file ----

void CheckFile(const std::string& path, Report* report) {
  auto found = [&](const std::string& what) { report->findings.push_back({11, "file", what}); };
  ++report->checks[11];
  const FileFacts facts = ReadPluginFile(path);
  if (!facts.error.empty()) return found(facts.error);
  if (!facts.has_note) {
    found("it has no note named Gradferry: GF_TRANSPORT_NOTE; is missing in its sources");
  } else if (facts.epoch != GF_TRANSPORT_EPOCH) {
    found("its note says epoch " + std::to_string(facts.epoch) + ", this is epoch " +
          std::to_string(GF_TRANSPORT_EPOCH));
  }
  bool entry = false;
  for (const std::string& name : facts.exports) {
    if (name == GF_TRANSPORT_ENTRY_NAME) {
      entry = true;
    } else {
      found("it exports " + name + ", which is not " GF_TRANSPORT_ENTRY_NAME);
    }
  }
  if (!entry) found("it does not export " GF_TRANSPORT_ENTRY_NAME);
  for (const std::string& library : facts.needs) {
    for (const char* forbidden : {"libtorch", "libc10", "libgradferry"}) {
      if (library.compare(0, std::strlen(forbidden), forbidden) == 0) found("it needs " + library);
    }
  }
}

bool Fatal(const Report& report) {
  for (const Finding& finding : report.findings) {
    if (finding.scenario == "file" && finding.what.find("exports") == std::string::npos &&
        finding.what.find("needs") == std::string::npos) {
      return true;
    }
  }
  return false;
}

}  // namespace

std::string GivenOptions() { return the_settings.options; }

// The entry, asked by hosts of other epochs, or by one that tells less.
void CheckOtherHosts() {
  std::string error;
  const gf_transport_entry entry = LoadEntry(the_settings.file, &error);
  for (uint32_t epoch : {GF_TRANSPORT_EPOCH + 1, 4000000000u}) {
    const gf_transport_entry_args args{sizeof(args), epoch, 0, 0};
    gf_transport_error why{};
    why.struct_size = sizeof(why);
    const gf_transport_descriptor* descriptor = entry(&args, &why);
    Checked(11);
    if (descriptor != nullptr) {
      Found(11, "its entry serves a host of epoch " + std::to_string(epoch));
    } else {
      CheckError("the entry", why.code, why);
    }
  }
}

const std::vector<Scenario>& Scenarios() {
  static const auto* const scenarios = new std::vector<Scenario>{
      {"descriptor", CheckDescriptor},
      {"other hosts", CheckOtherHosts},
      {"echo", CheckEcho},
      {"order", CheckOrder},
      {"reentry", CheckReentry},
      {"stalled peer", CheckStalledPeer},
      {"drive", CheckDrive},
      {"refusals", CheckRefusals},
      {"closes", CheckCloses},
      {"nobody", CheckNobody},
      {"shutdown", CheckShutdown},
      {"side by side", CheckSideBySide},
      {"options", CheckOptions},
      {"addresses", CheckAddresses},
      {"wrong frames", CheckWrongFrames},
      {"texts", CheckTexts},
      {"another process", CheckOtherProcess, 3},
      {"strangers", CheckGarbage},
      {"reach", CheckReach},
      {"time", CheckTime},
      {"leaks", CheckLeaks},
  };
  return *scenarios;
}

Report CheckPlugin(const Settings& settings) {
  Report report;
  report.file = settings.file;
  CheckFile(settings.file, &report);
  if (Fatal(report)) return report;
  for (const Scenario& scenario : Scenarios()) {
    if (!settings.only.empty() && settings.only != scenario.name) continue;
    const bool kept = RunInChild(
        scenario.name, 60 + 4 * settings.patience,
        [&] {
          the_settings = settings;
          RunScenario(scenario);
        },
        &report);
    if (!kept && settings.stop_at_first) break;
  }
  char text[200];
  std::snprintf(text, sizeof(text), "by the clock, the longest of %llu calls took %.1f ms (%s); the limit is %.0f ms",
                static_cast<unsigned long long>(report.calls), report.longest_ms, report.longest_call.c_str(),
                settings.call_limit * 1e3);
  report.notes[1] = text;
  return report;
}

int PluginCheckMain(int argc, char** argv) {
  CLI::App app("Checks a transport plugin against the numbered rules of gradferry/transport.h.", "plugin-check");
  Settings settings;
  bool json = false;
  app.add_option("file", settings.file, "the plugin")->required();
  app.add_option("--options", settings.options, "its section of the configuration, as a JSON object");
  app.add_option("--address", settings.address, "where it shall listen; its default otherwise");
  app.add_option("--only", settings.only, "run this scenario alone");
  app.add_option("--call-limit", settings.call_limit, "seconds after which a call of the host counts as waiting")
      ->check(CLI::PositiveNumber);
  app.add_option("--patience", settings.patience, "seconds after which an event counts as missing")
      ->check(CLI::PositiveNumber);
  app.add_flag("--first", settings.stop_at_first, "stop after the first scenario with a finding");
  app.add_flag("--json", json, "print JSON");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const Report report = CheckPlugin(settings);
  std::cout << (json ? report.Json() : report.Text());
  return report.passed() ? 0 : 1;
}

}  // namespace gradferry::check
