// Child processes: programs that lie beside the test, started, spoken to by closing their standard input, killed and
// waited for. None outlives the object.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "tests/support/c_abi/gf.h"

namespace gf {

// Where a program of tests/integration or tests/mesh lies.
std::string ProgramPath(const std::string& name);

class Process {
 public:
  // environment: "NAME=value" entries besides those of this process.
  Process(const std::string& program, const std::vector<std::string>& arguments,
          const std::vector<std::string>& environment = {});
  Process(const Process&) = delete;
  ~Process();

  pid_t pid() const { return pid_; }

  // Stops, continues or kills it.
  void Signal(int signal);
  // Until it is stopped (SIGSTOP); signals take effect later than kill() returns.
  void WaitUntilStopped();
  // To its standard input.
  void Write(const std::string& text);
  void CloseInput();
  // The exit status, or minus the signal that ended it; throws when it does not end in time.
  int Wait(int64_t timeout = kPatience);

 private:
  pid_t pid_ = -1;
  int input_ = -1;
  bool ended_ = false;
  int status_ = 0;
};

// An empty folder, removed with all that is in it.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  const std::string& path() const { return path_; }
  std::string File(const std::string& name) const { return path_ + "/" + name; }
  // A file with this content; its path.
  std::string Write(const std::string& name, const std::string& content) const;

 private:
  std::string path_;
};

}  // namespace gf
