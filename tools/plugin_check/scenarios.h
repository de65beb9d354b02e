// What is done with a plugin, each in a process of its own: see child.h.
#pragma once

#include <vector>

#include "tools/plugin_check/plugin_check.h"

namespace gradferry::check {

struct Scenario {
  const char* name;
  void (*run)();
  // Processes of the other side that it needs.
  int peers = 0;
};

// In the order in which they are run: what is basic comes first.
const std::vector<Scenario>& Scenarios();

// A process that loads the plugin too, listens and sends back what it gets. Made before the plugin is loaded here.
struct PeerProcess {
  int pid = 0;
  int to = -1;    // lines: an address to dial, from where it then sends three frames
  int from = -1;  // its address, in a line
};
PeerProcess StartPeer(const Settings& settings);
// Those of this scenario.
std::vector<PeerProcess>& Peers();

// The groups of scenarios, by file.
void CheckDescriptor();  // scenarios_input.cc
void CheckOtherHosts();
void CheckOptions();
void CheckAddresses();
void CheckWrongFrames();
void CheckTexts();
void CheckEcho();  // scenarios_frames.cc
void CheckOrder();
void CheckReentry();
void CheckStalledPeer();
void CheckDrive();     // scenarios_drive.cc
void CheckRefusals();  // scenarios_ends.cc
void CheckCloses();
void CheckNobody();
void CheckShutdown();
void CheckSideBySide();
void CheckLeaks();
void CheckTime();
void CheckOtherProcess();  // scenarios_outside.cc
void CheckGarbage();
void CheckReach();

}  // namespace gradferry::check
