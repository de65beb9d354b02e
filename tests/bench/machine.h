// The machine that was measured on, and how much of it others took meanwhile.
#pragma once

#include <nlohmann/json.hpp>

namespace gradferry::bench {

nlohmann::json DescribeMachine();

// CPU time of the whole machine so far, in seconds, from /proc/stat.
struct CpuTimes {
  double busy = 0;   // working, for whomever
  double steal = 0;  // taken by the hypervisor
};
CpuTimes ReadCpuTimes();

}  // namespace gradferry::bench
