// See process.h.
#include "tests/support/c_abi/process.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <system_error>

#include "tests/support/c_abi/live.h"

extern char** environ;

namespace gf {

namespace {

[[noreturn]] void ThrowErrno(const std::string& what, int error) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace

std::string ProgramPath(const std::string& name) {
  // Beside the test, in its runfiles and in the build tree alike.
  for (const char* folder : {"tests/integration", "tests/mesh"}) {
    const std::filesystem::path relative = std::filesystem::path(folder) / name;
    if (std::filesystem::exists(relative)) return std::filesystem::absolute(relative);
  }
  return std::filesystem::read_symlink("/proc/self/exe").parent_path() / name;
}

Process::Process(const std::string& program, const std::vector<std::string>& arguments,
                 const std::vector<std::string>& environment) {
  int pipe_ends[2];
  if (pipe2(pipe_ends, O_CLOEXEC) != 0) ThrowErrno("pipe2", errno);
  input_ = pipe_ends[1];
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, pipe_ends[0], STDIN_FILENO);

  const std::string path = ProgramPath(program);
  std::vector<char*> argv = {const_cast<char*>(path.c_str())};
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  std::vector<char*> envp;
  for (char** entry = environ; *entry != nullptr; ++entry) envp.push_back(*entry);
  for (const std::string& entry : environment) envp.push_back(const_cast<char*>(entry.c_str()));
  envp.push_back(nullptr);

  const int error = posix_spawn(&pid_, path.c_str(), &actions, nullptr, argv.data(), envp.data());
  posix_spawn_file_actions_destroy(&actions);
  close(pipe_ends[0]);
  if (error != 0) {
    close(input_);
    ThrowErrno("starting " + path, error);
  }
}

Process::~Process() {
  CloseInput();
  if (ended_) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
}

void Process::Signal(int signal) {
  if (!ended_ && kill(pid_, signal) != 0) ThrowErrno("kill", errno);
}

void Process::WaitUntilStopped() {
  int status = 0;
  if (waitpid(pid_, &status, WUNTRACED) != pid_) ThrowErrno("waitpid", errno);
  if (WIFSTOPPED(status)) return;
  ended_ = true;
  throw std::runtime_error("the process ended instead of stopping");
}

void Process::Write(const std::string& text) {
  if (write(input_, text.data(), text.size()) != static_cast<ssize_t>(text.size())) ThrowErrno("write", errno);
}

void Process::CloseInput() {
  if (input_ >= 0) close(input_);
  input_ = -1;
}

int Process::Wait(int64_t timeout) {
  const bool ended = Eventually(
      [this] {
        if (ended_) return true;
        int status = 0;
        const pid_t got = waitpid(pid_, &status, WNOHANG);
        if (got != pid_) return false;
        ended_ = true;
        status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
        return true;
      },
      timeout);
  if (!ended) throw std::runtime_error("the process did not end in time");
  return status_;
}

TemporaryFolder::TemporaryFolder() {
  const char* base = std::getenv("TEST_TMPDIR");
  path_ = std::string(base == nullptr ? "/tmp" : base) + "/gf-XXXXXX";
  if (mkdtemp(&path_[0]) == nullptr) ThrowErrno("mkdtemp " + path_, errno);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TemporaryFolder::Write(const std::string& name, const std::string& content) const {
  const std::string path = File(name);
  std::ofstream(path) << content;
  return path;
}

}  // namespace gf
