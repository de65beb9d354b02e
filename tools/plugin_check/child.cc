#include "tools/plugin_check/child.h"

#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

namespace gradferry::check {
namespace {

using Clock = std::chrono::steady_clock;

constexpr int kFoundFatal = 70;

// The child's end. Lines: kind, rule, tab, text.
int channel = -1;
std::array<std::atomic<unsigned>, kRules + 1> counts{};
std::atomic<int> found{0};
std::mutex line_mutex;  // guards the channel's lines

void Send(char kind, int rule, const std::string& text) {
  std::string line = kind + std::to_string(rule) + "\t" + text.substr(0, 900);
  for (char& c : line) {
    if (c == '\n') c = ' ';
  }
  line += '\n';
  const std::lock_guard<std::mutex> lock(line_mutex);
  if (write(channel, line.data(), line.size()) < 0) _exit(2);
}

// What the parent has heard of a child.
struct Heard {
  int watching = 9;
  std::string where;
  size_t findings = 0;
};

void AddCalls(const std::string& text, Report* report) {
  unsigned long long calls = 0;
  double longest = 0;
  char function[32] = "";
  if (std::sscanf(text.c_str(), "%llu %lf %31s", &calls, &longest, function) != 3) return;
  report->calls += calls;
  if (longest < report->longest_ms) return;
  report->longest_ms = longest;
  report->longest_call = function;
}

void TakeLine(const std::string& line, const std::string& scenario, Report* report, Heard* heard) {
  const size_t tab = line.find('\t');
  if (line.size() < 3 || tab == std::string::npos) return;
  const int rule = std::atoi(line.c_str() + 1);
  const std::string text = line.substr(tab + 1);
  switch (line[0]) {
    case 'F':
      report->findings.push_back({rule, scenario, text});
      ++heard->findings;
      break;
    case 'C':
      report->checks[rule] += static_cast<uint64_t>(std::atoll(text.c_str()));
      break;
    case 'N':
      report->notes[rule] = text;
      break;
    case 'D':
      report->does_not_apply.insert(rule);
      report->notes[rule] = text;
      break;
    case 'L':
      AddCalls(text, report);
      break;
    case 'P':
      report->plugin = text;
      break;
    case 'W':
      heard->watching = rule;
      heard->where = text;
      break;
    default:
      break;
  }
}

// Reads lines until the child's end closes or time is up. True when it closed.
bool Listen(int fd, Clock::time_point end, const std::string& scenario, Report* report, Heard* heard) {
  std::string pending;
  for (;;) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    if (left <= 0) return false;
    pollfd poll_fd{fd, POLLIN, 0};
    if (poll(&poll_fd, 1, static_cast<int>(left)) <= 0) continue;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    pending.append(buffer, static_cast<size_t>(got));
    for (size_t newline; (newline = pending.find('\n')) != std::string::npos; pending.erase(0, newline + 1)) {
      TakeLine(pending.substr(0, newline), scenario, report, heard);
    }
  }
}

std::string ReadAll(int fd) {
  std::string text(4096, '\0');
  const ssize_t got = pread(fd, text.data(), text.size(), 0);
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

[[noreturn]] void RunBody(const std::function<void()>& body) {
  try {
    body();
  } catch (const ScenarioOver&) {
  } catch (const std::exception& exception) {
    Found(9, std::string("an exception came out of the plugin: ") + exception.what());
  } catch (...) {
    Found(9, "an exception came out of the plugin");
  }
  for (int rule = 1; rule <= kRules; ++rule) {
    if (counts[rule] != 0) Send('C', rule, std::to_string(counts[rule].load()));
  }
  _exit(0);
}

void AddDeath(int status, const std::string& output, const std::string& scenario, const Heard& heard, Report* report) {
  const std::string said = output.empty() ? "" : "; it said: " + output.substr(0, 300);
  if (WIFSIGNALED(status)) {
    const int signal = WTERMSIG(status);
    const bool thrown = output.find("terminate called") != std::string::npos;
    const int rule = signal == SIGPIPE || (thrown && heard.watching != 8) ? 9 : heard.watching;
    report->findings.push_back(
        {rule, scenario, std::string("the process died of ") + strsignal(signal) + " while " + heard.where + said});
  } else if (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != kFoundFatal) {
    report->findings.push_back(
        {9, scenario,
         "the process was ended with status " + std::to_string(WEXITSTATUS(status)) + " while " + heard.where + said});
  } else if (!output.empty()) {
    report->findings.push_back({9, scenario, "wrote to stdout or stderr: " + output.substr(0, 300)});
  }
}

}  // namespace

bool RunInChild(const std::string& scenario, double limit_seconds, const std::function<void()>& body, Report* report) {
  int fds[2];
  const int output = memfd_create("output", MFD_CLOEXEC);
  if (output < 0 || pipe(fds) != 0) {
    report->findings.push_back({9, scenario, std::string("the check itself lacks files: ") + strerror(errno)});
    return false;
  }
  const pid_t child = fork();
  if (child == 0) {
    setpgid(0, 0);  // its children end with it
    close(fds[0]);
    channel = fds[1];
    dup2(output, STDOUT_FILENO);
    dup2(output, STDERR_FILENO);
    RunBody(body);
  }
  setpgid(child, child);
  close(fds[1]);
  Heard heard;
  const auto end = Clock::now() + std::chrono::milliseconds(static_cast<int64_t>(limit_seconds * 1000));
  const bool ended = Listen(fds[0], end, scenario, report, &heard);
  close(fds[0]);
  kill(-child, SIGKILL);  // grandchildren; and the child, when it hangs
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  const size_t before = report->findings.size();
  if (!ended) {
    report->findings.push_back({heard.watching, scenario, "the process hung while " + heard.where});
  } else {
    AddDeath(status, ReadAll(output), scenario, heard, report);
  }
  ++report->checks[9];
  close(output);
  return heard.findings == 0 && report->findings.size() == before;
}

void Found(int rule, const std::string& what) {
  Checked(rule);
  if (++found <= 20) Send('F', rule, what);
}

void Checked(int rule, unsigned times) { counts[rule] += times; }
void Note(int rule, const std::string& text) { Send('N', rule, text); }
void DoesNotApply(int rule, const std::string& why) { Send('D', rule, why); }
void TellCalls(uint64_t calls, double longest_ms, const std::string& function) {
  Send('L', 1, std::to_string(calls) + " " + std::to_string(longest_ms) + " " + function);
}
void TellPlugin(const std::string& text) { Send('P', 0, text); }
void Watching(int rule, const std::string& what) { Send('W', rule, what); }

void FoundFatal(int rule, const char* what) {
  char line[512];
  size_t length = 0;
  auto add = [&](const char* text) {
    for (; *text != '\0' && length < sizeof(line) - 2; ++text) line[length++] = *text;
  };
  const char number[] = {static_cast<char>('0' + rule / 10), static_cast<char>('0' + rule % 10), '\0'};
  add("F");
  add(number);
  add("\t");
  add(what);
  line[length++] = '\n';
  if (write(channel, line, length) < 0) _exit(2);
  _exit(kFoundFatal);
}

}  // namespace gradferry::check
