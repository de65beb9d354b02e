// Runs one scenario in a process of its own and brings home what it found. Within the child: the channel by which
// findings, counts and notes go to the parent, and where the scenario stands, so that a crash can be told.
#pragma once

#include <functional>
#include <string>

#include "tools/plugin_check/report.h"

namespace gradferry::check {

// Forks, runs the body in the child with stdout and stderr caught, and adds to the report. A child that crashes, hangs
// or writes to stdout or stderr is a finding of the rule that the scenario watched then. False when something was
// found.
bool RunInChild(const std::string& scenario, double limit_seconds, const std::function<void()>& body, Report* report);

// ---- Within a child, from any thread ----

// The rule was broken. At most 20 a child are told.
void Found(int rule, const std::string& what);
// Was looked at, once more.
void Checked(int rule, unsigned times = 1);
void Note(int rule, const std::string& text);
void DoesNotApply(int rule, const std::string& why);
// How many calls were made, and which took longest.
void TellCalls(uint64_t calls, double longest_ms, const std::string& function);
void TellPlugin(const std::string& text);
// From here on a crash is the fault of this rule; what says where we are.
void Watching(int rule, const std::string& what);
// Found, and the end of this process, without destructors. Async-signal-safe.
[[noreturn]] void FoundFatal(int rule, const char* what);

// Ends the scenario: what follows would have no sense. After a Found.
struct ScenarioOver {};

}  // namespace gradferry::check
