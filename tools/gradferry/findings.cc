// See findings.h.
#include "tools/gradferry/findings.h"

#include <netdb.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace gradferry::command {
namespace {

std::string FirstLine(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

// 0, or the errno of reading a byte of this memory in another process.
int ReadFrom(pid_t process, const char* there) {
  char here = 0;
  iovec local{&here, 1}, remote{const_cast<char*>(there), 1};
  return process_vm_readv(process, &local, 1, &remote, 1, 0) == 1 ? 0 : errno;
}

}  // namespace

std::string Findings::Text() const {
  std::string text;
  for (const Finding& f : all_) {
    text += (f.state == "ok"        ? "ok       "
             : f.state == "warning" ? "warning  "
                                    : "PROBLEM  ") +
            f.check + ": " + f.what;
    text += f.mend.empty() ? "\n" : "\n         -> " + f.mend + "\n";
  }
  text +=
      problems_ == 0 ? "No problems.\n" : std::to_string(problems_) + (problems_ == 1 ? " problem.\n" : " problems.\n");
  return text;
}

std::string Findings::Json() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Finding& f : all_) {
    list.push_back({{"check", f.check}, {"state", f.state}, {"what", f.what}, {"mend", f.mend}});
  }
  const nlohmann::json document = {{"findings", std::move(list)}, {"problems", problems_}};
  return document.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// Two workers on one machine are rarely parent and child, and Yama lets a parent read its child, so it is the child
// that reads here.
void CheckCma(Findings& findings) {
  static volatile char byte = 42;
  const std::string scope = FirstLine("/proc/sys/kernel/yama/ptrace_scope");
  const pid_t parent = getpid();
  const pid_t child = fork();
  if (child == 0) _exit(ReadFrom(parent, const_cast<const char*>(&byte)));
  int status = 0;
  const bool ended = child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status);
  const int error = ended ? WEXITSTATUS(status) : EAGAIN;
  const std::string setting = scope.empty() ? "no Yama" : "ptrace_scope " + scope;
  if (error == 0) {
    return findings.Ok("cma", "processes of one user can read each other's memory (" + setting + ")");
  }
  findings.Warning("cma",
                   "a process cannot read another one's memory: " + std::string(strerror(error)) + " (" + setting +
                       "); large tensors go through sockets, which is slower",
                   scope.empty() || scope == "0" ? "give the container CAP_SYS_PTRACE or a seccomp profile that allows "
                                                   "process_vm_readv"
                                                 : "sysctl -w kernel.yama.ptrace_scope=0");
}

void CheckLimits(Findings& findings) {
  const auto text = [](rlim_t value) { return value == RLIM_INFINITY ? "unlimited" : std::to_string(value); };
  rlimit files{}, locked{};
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_MEMLOCK, &locked);
  constexpr rlim_t kFiles = 4096;
  const std::string nofile = "nofile is " + text(files.rlim_cur) + " (at most " + text(files.rlim_max) + ")";
  if (files.rlim_cur >= kFiles) {
    findings.Ok("nofile", nofile);
  } else {
    findings.Warning("nofile", nofile + ": a worker with a hundred peers may run out of descriptors",
                     "ulimit -n 65536, or LimitNOFILE=65536 in the service's unit");
  }
  constexpr rlim_t kLocked = 64 << 20;
  findings.Ok("memlock", "memlock is " + text(locked.rlim_cur) +
                             (locked.rlim_cur < kLocked ? ": enough for all but ibv, which wants unlimited" : ""));
}

void CheckClock(Findings& findings) {
  constexpr int kReads = 10000;
  timespec begin{}, end{}, now{};
  clock_gettime(CLOCK_MONOTONIC, &begin);
  for (int i = 0; i < kReads; ++i) clock_gettime(CLOCK_MONOTONIC, &now);
  clock_gettime(CLOCK_MONOTONIC, &end);
  const double ns = ((end.tv_sec - begin.tv_sec) * 1e9 + (end.tv_nsec - begin.tv_nsec)) / kReads;
  const std::string source = FirstLine("/sys/devices/system/clocksource/clocksource0/current_clocksource");
  std::ostringstream what;
  what.precision(3);
  what << "reading it takes " << ns << " ns (" << (source.empty() ? "source unknown" : source) << ")";
  if (ns < 500) return findings.Ok("clock", what.str());
  findings.Warning(
      "clock", what.str() + ", which is slow",
      "see whether tsc or kvm-clock is in /sys/devices/system/clocksource/clocksource0/available_clocksource"
      " and write it into current_clocksource");
}

void CheckHostName(Findings& findings, const std::string& name) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int failed = getaddrinfo(name.c_str(), nullptr, &hints, &found);
  const std::string mend = "write `<address of this machine> " + name + "` into /etc/hosts";
  if (failed != 0) return findings.Warning("host name", name + " has no address: " + gai_strerror(failed), mend);
  // The first one is what a program takes.
  char text[NI_MAXHOST] = "";
  getnameinfo(found->ai_addr, found->ai_addrlen, text, sizeof(text), nullptr, 0, NI_NUMERICHOST);
  freeaddrinfo(found);
  const std::string address = text;
  const std::string what = name + " is " + address;
  if (address.rfind("127.", 0) != 0 && address != "::1") return findings.Ok("host name", what);
  findings.Warning("host name",
                   what +
                       ", which other machines cannot reach; whoever finds this machine by its name "
                       "(a rendezvous, MASTER_ADDR) will not",
                   mend + " instead of that line, or use addresses instead of names");
}

std::string HostName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

std::set<std::string> MappedFiles(const std::string& prefix) {
  std::set<std::string> files;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t slash = line.find('/');
    if (slash == std::string::npos) continue;
    const std::string path = line.substr(slash);
    if (path.substr(path.rfind('/') + 1).rfind(prefix, 0) == 0) files.insert(path);
  }
  return files;
}

}  // namespace gradferry::command
