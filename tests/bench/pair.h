// The two processes of a subject, from outside: started, asked to measure, stopped while others are measured, watched
// through /proc, killed at the end. What goes wrong is an exception whose text is for the report.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace gradferry::bench {

// How a subject is started.
struct Command {
  std::vector<std::string> program;    // with the arguments that come before the role
  std::vector<std::string> arguments;  // those after the role and the folder
};

class Child {
 public:
  Child() = default;
  Child(const Child&) = delete;
  ~Child();

  // environment: "NAME=value" entries besides those of this process. cpu: to run on this one only; -1: any. What it
  // writes to standard error goes to the file.
  void Start(const std::vector<std::string>& arguments, const std::vector<std::string>& environment, int cpu,
             const std::string& error_file);
  void Write(const std::string& line);
  // The next line; throws when none comes in time.
  std::string ReadLine(double seconds);
  void Signal(int signal);

  pid_t pid() const { return pid_; }
  // CPU time of all threads so far.
  double CpuSeconds() const;
  // How often its threads have gone to sleep so far, as often as they were woken.
  int64_t Sleeps() const;
  // A value in bytes of /proc/PID/status, by its key ("VmHWM").
  int64_t StatusBytes(const std::string& key) const;
  // Makes VmHWM start anew.
  void ResetPeak() const;

 private:
  pid_t pid_ = -1;
  int input_ = -1;
  int output_ = -1;
  std::string read_;  // beyond the last line
};

struct Slice {
  std::vector<double> ns;
  double wall = 0;  // seconds
  double cpu_driver = 0;
  double cpu_peer = 0;
};

class Pair {
 public:
  // Does not wait; Await does.
  Pair(const Command& command, const std::string& folder, bool pinned,
       const std::vector<std::string>& environment = {});

  // Until both are ready.
  void Await();
  bool Has(const std::string& measurement) const { return measurements_.count(measurement) != 0; }
  Slice Run(const std::string& measurement, int64_t count, double seconds);

  // Takes no CPU until it is continued.
  void Stop();
  void Continue();

  Child& driver() { return driver_; }
  Child& peer() { return peer_; }

 private:
  std::string Ready(Child& child, const std::string& error_file);

  const std::string folder_;
  Child peer_;
  Child driver_;
  std::set<std::string> measurements_;
};

}  // namespace gradferry::bench
