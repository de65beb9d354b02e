#include "tools/plugin_check/report.h"

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace gradferry::check {
namespace {

const char* const kTitles[kRules + 1] = {
    "",
    "no function waits",
    "events come on the plugin's threads, without its locks",
    "events one at a time, frames and on_sent in order",
    "each send is completed once, its memory read until then only",
    "each frame is announced and ended once, into the host's memory",
    "each connection ends with one on_closed, its last event",
    "close and shutdown at any time, on_shutdown once and last",
    "bytes from the network harm nobody else",
    "no output, no signal, no exception",
    "several transports side by side",
    "the file, its descriptor and its schema",
    "wrong input is an error that says what is wrong",
    "time",
    "nothing is left behind",
    "a thread that waits drives its connection",
};

}  // namespace

std::string RuleName(int rule) {
  char name[16];
  std::snprintf(name, sizeof(name), "GF-TRN-%02d", rule);
  return name;
}

const char* RuleTitle(int rule) { return rule >= 1 && rule <= kRules ? kTitles[rule] : ""; }

bool Report::Broke(int rule) const {
  return std::any_of(findings.begin(), findings.end(), [&](const Finding& finding) { return finding.rule == rule; });
}

const char* Report::Result(int rule) const {
  if (Broke(rule)) return "fail";
  const auto found = checks.find(rule);
  return found == checks.end() || found->second == 0 || does_not_apply.count(rule) != 0 ? "skipped" : "pass";
}

std::string Report::Text() const {
  std::string text = file + (plugin.empty() ? "" : ": " + plugin) + "\n";
  for (int rule = 1; rule <= kRules; ++rule) {
    char line[160];
    std::snprintf(line, sizeof(line), "%s  %-7s  %s", RuleName(rule).c_str(), Result(rule), RuleTitle(rule));
    text += line;
    if (const auto note = notes.find(rule); note != notes.end()) text += "; " + note->second;
    text += '\n';
    for (const Finding& finding : findings) {
      if (finding.rule == rule) text += "    " + finding.scenario + ": " + finding.what + "\n";
    }
  }
  return text + (passed() ? "all rules are kept\n" : std::to_string(findings.size()) + " findings\n");
}

std::string Report::Json() const {
  nlohmann::ordered_json out = {{"file", file}, {"plugin", plugin}, {"passed", passed()}};
  auto& rules = out["rules"] = nlohmann::ordered_json::array();
  for (int rule = 1; rule <= kRules; ++rule) {
    const auto count = checks.find(rule);
    const auto note = notes.find(rule);
    nlohmann::ordered_json entry = {{"rule", RuleName(rule)},
                                    {"title", RuleTitle(rule)},
                                    {"result", Result(rule)},
                                    {"checks", count == checks.end() ? 0 : count->second},
                                    {"note", note == notes.end() ? "" : note->second}};
    auto& list = entry["findings"] = nlohmann::ordered_json::array();
    for (const Finding& finding : findings) {
      if (finding.rule == rule) list.push_back({{"scenario", finding.scenario}, {"what", finding.what}});
    }
    rules.push_back(std::move(entry));
  }
  return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace gradferry::check
