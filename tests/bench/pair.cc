// See pair.h.
#include "tests/bench/pair.h"

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>
#include <system_error>

#include "tests/bench/subject.h"

extern char** environ;

namespace gradferry::bench {
namespace {

using nlohmann::json;

constexpr double kStartSeconds = 60;
// Beyond what a measurement may take.
constexpr double kGrace = 60;

[[noreturn]] void ThrowErrno(const std::string& what) { throw std::system_error(errno, std::generic_category(), what); }

// The last line that says something, shortened.
std::string LastLine(const std::string& file) {
  std::ifstream in(file);
  std::string last;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) last = line;
  }
  return last.substr(0, 300);
}

}  // namespace

// ---- Child -------------------------------------------------------------------------------------------------------

Child::~Child() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (input_ >= 0) close(input_);
  if (output_ >= 0) close(output_);
}

void Child::Start(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, int cpu,
                  const std::string& error_file) {
  int in[2], out[2];
  if (pipe2(in, O_CLOEXEC) != 0) ThrowErrno("pipe2");
  input_ = in[1];
  if (pipe2(out, O_CLOEXEC) != 0) ThrowErrno("pipe2");
  output_ = out[0];
  const int errors = open(error_file.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (errors < 0) ThrowErrno(error_file);
  std::vector<char*> argv, envp;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  for (char** entry = environ; *entry != nullptr; ++entry) envp.push_back(*entry);
  for (const std::string& entry : environment) envp.push_back(const_cast<char*>(entry.c_str()));
  envp.push_back(nullptr);
  cpu_set_t cpus;
  CPU_ZERO(&cpus);
  if (cpu >= 0) CPU_SET(cpu, &cpus);

  pid_ = fork();
  if (pid_ == 0) {
    // Only what may be called after fork.
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(in[0], STDIN_FILENO);
    dup2(out[1], STDOUT_FILENO);
    dup2(errors, STDERR_FILENO);
    if (cpu >= 0) sched_setaffinity(0, sizeof(cpus), &cpus);
    execve(argv[0], argv.data(), envp.data());
    _exit(127);
  }
  close(in[0]);
  close(out[1]);
  close(errors);
  if (pid_ < 0) ThrowErrno("fork");
}

void Child::Write(const std::string& line) {
  if (write(input_, line.data(), line.size()) != static_cast<ssize_t>(line.size())) ThrowErrno("write");
}

std::string Child::ReadLine(double seconds) {
  const int64_t deadline = Now() + static_cast<int64_t>(seconds * 1e9);
  for (;;) {
    if (const size_t end = read_.find('\n'); end != std::string::npos) {
      std::string line = read_.substr(0, end);
      read_.erase(0, end + 1);
      return line;
    }
    pollfd waiting{output_, POLLIN, 0};
    const int64_t left = deadline - Now();
    if (left <= 0 || poll(&waiting, 1, static_cast<int>(left / 1000000 + 1)) == 0) {
      throw std::runtime_error("no answer in time");
    }
    char buffer[65536];
    const ssize_t got = read(output_, buffer, sizeof(buffer));
    if (got <= 0) throw std::runtime_error("the process ended");
    read_.append(buffer, static_cast<size_t>(got));
  }
}

void Child::Signal(int signal) {
  if (kill(pid_, signal) != 0) ThrowErrno("kill");
}

double Child::CpuSeconds() const {
  clockid_t clock;
  timespec time{};
  if (clock_getcpuclockid(pid_, &clock) != 0 || clock_gettime(clock, &time) != 0) return 0;
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

int64_t Child::Sleeps() const {
  int64_t sum = 0;
  for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(pid_) + "/task")) {
    std::ifstream status(task.path() / "status");
    for (std::string line; std::getline(status, line);) {
      if (line.rfind("voluntary_ctxt_switches:", 0) == 0) sum += std::stoll(line.substr(line.find(':') + 1));
    }
  }
  return sum;
}

int64_t Child::StatusBytes(const std::string& key) const {
  std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind(key + ":", 0) == 0) return std::stoll(line.substr(key.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc has no " + key);
}

void Child::ResetPeak() const { std::ofstream("/proc/" + std::to_string(pid_) + "/clear_refs") << "5"; }

// ---- Pair --------------------------------------------------------------------------------------------------------

Pair::Pair(const Command& command, const std::string& folder, bool pinned, const std::vector<std::string>& environment)
    : folder_(folder) {
  std::filesystem::create_directories(folder);
  const auto line = [&](const char* role) {
    std::vector<std::string> arguments = command.program;
    arguments.push_back(role);
    arguments.push_back(folder);
    arguments.insert(arguments.end(), command.arguments.begin(), command.arguments.end());
    return arguments;
  };
  peer_.Start(line("peer"), environment, pinned ? 1 : -1, folder + "/peer.errors");
  driver_.Start(line("driver"), environment, pinned ? 0 : -1, folder + "/driver.errors");
}

std::string Pair::Ready(Child& child, const std::string& error_file) {
  try {
    return child.ReadLine(kStartSeconds);
  } catch (const std::exception& error) {
    const std::string last = LastLine(error_file);
    throw std::runtime_error(last.empty() ? error.what() : last);
  }
}

void Pair::Await() {
  for (Child* child : {&peer_, &driver_}) {
    const json ready = json::parse(Ready(*child, folder_ + (child == &peer_ ? "/peer.errors" : "/driver.errors")));
    if (ready.contains("error")) throw std::runtime_error(ready["error"].get<std::string>());
    for (const auto& name : ready["ready"]) measurements_.insert(name.get<std::string>());
  }
}

Slice Pair::Run(const std::string& measurement, int64_t count, double seconds) {
  Slice slice;
  const int64_t began = Now();
  const double driver_began = driver_.CpuSeconds(), peer_began = peer_.CpuSeconds();
  std::ostringstream line;
  line << measurement << ' ' << count << ' ' << seconds << '\n';
  driver_.Write(line.str());
  const std::string answer = driver_.ReadLine(seconds + kGrace);
  slice.wall = static_cast<double>(Now() - began) * 1e-9;
  slice.cpu_driver = driver_.CpuSeconds() - driver_began;
  slice.cpu_peer = peer_.CpuSeconds() - peer_began;
  const json parsed = json::parse(answer);
  if (parsed.contains("error")) throw std::runtime_error(parsed["error"].get<std::string>());
  slice.ns = parsed["ns"].get<std::vector<double>>();
  return slice;
}

void Pair::Stop() {
  driver_.Signal(SIGSTOP);
  peer_.Signal(SIGSTOP);
}

void Pair::Continue() {
  peer_.Signal(SIGCONT);
  driver_.Signal(SIGCONT);
}

}  // namespace gradferry::bench
