// What a check found: for each rule how it went, as text for people and as JSON.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace gradferry::check {

// The rules of transport.h by number.
constexpr int kRules = 15;

struct Finding {
  int rule = 0;
  std::string scenario;
  std::string what;
};

struct Report {
  std::string file;
  std::string plugin;  // "name version (vendor)", once known
  std::vector<Finding> findings;
  std::map<int, uint64_t> checks;    // how often each rule was looked at
  std::map<int, std::string> notes;  // what was measured, or why a rule does not apply
  std::set<int> does_not_apply;

  // Calls from the host, of all scenarios; the longest but destroy.
  uint64_t calls = 0;
  double longest_ms = 0;
  std::string longest_call;

  bool passed() const { return findings.empty(); }
  bool Broke(int rule) const;

  // "pass", "fail" or "skipped": no check of it was made.
  const char* Result(int rule) const;
  std::string Text() const;
  std::string Json() const;
};

// "GF-TRN-04".
std::string RuleName(int rule);
// The rule in a few words.
const char* RuleTitle(int rule);

}  // namespace gradferry::check
