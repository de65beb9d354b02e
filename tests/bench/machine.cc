// See machine.h.
#include "tests/bench/machine.h"

#include <sys/utsname.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

namespace gradferry::bench {
namespace {

// The first value after "key:" in a file of such lines.
std::string Find(const char* file, const std::string& key) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (line.rfind(key, 0) != 0) continue;
    const size_t at = line.find_first_not_of(" \t", line.find(':') + 1);
    return at == std::string::npos ? "" : line.substr(at);
  }
  return "";
}

std::string FirstLine(const char* file) {
  std::ifstream in(file);
  std::string line;
  std::getline(in, line);
  return line;
}

}  // namespace

nlohmann::json DescribeMachine() {
  utsname names{};
  uname(&names);
  return {{"cpu", Find("/proc/cpuinfo", "model name")},
          {"cores", sysconf(_SC_NPROCESSORS_ONLN)},
          {"l3", FirstLine("/sys/devices/system/cpu/cpu0/cache/index3/size")},
          {"memory", Find("/proc/meminfo", "MemTotal")},
          {"kernel", names.release},
          {"huge_pages", FirstLine("/sys/kernel/mm/transparent_hugepage/enabled")},
          {"load", FirstLine("/proc/loadavg")}};
}

CpuTimes ReadCpuTimes() {
  std::istringstream line(FirstLine("/proc/stat"));
  std::string cpu;
  double user = 0, nice = 0, system = 0, idle = 0, wait = 0, irq = 0, soft = 0, steal = 0;
  line >> cpu >> user >> nice >> system >> idle >> wait >> irq >> soft >> steal;
  const auto ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return {(user + nice + system + irq + soft) / ticks, steal / ticks};
}

}  // namespace gradferry::bench
