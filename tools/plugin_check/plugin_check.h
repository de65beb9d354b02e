// Checks a transport plugin against the numbered rules of transport.h: reads its file, then loads it in child
// processes, one for each scenario, and drives it there with a host that watches every rule. A plugin that crashes or
// hangs is a finding. Used by `gradferry plugin-check` and by the tests; it sees the public headers and nothing else of
// Gradferry.
#pragma once

#include <string>

#include "tools/plugin_check/report.h"

namespace gradferry::check {

struct Settings {
  std::string file;
  std::string options = "{}";  // the JSON object of [transport.<name>]
  std::string address;         // where to listen; empty: the transport's default
  std::string only;            // run this scenario alone; empty: all
  double call_limit = 2;       // seconds after which a call counts as waiting
  double patience = 15;        // seconds after which an event counts as missing
  bool stop_at_first = false;  // after the first scenario with a finding
};

// Runs everything. Not while other threads of the process hold locks: it forks. Takes some ten seconds.
Report CheckPlugin(const Settings& settings);

// `gradferry plugin-check ARGUMENTS`: parses them, checks and prints. 0: all rules are kept; 1: one is broken; 2: wrong
// arguments.
int PluginCheckMain(int argc, char** argv);

}  // namespace gradferry::check
