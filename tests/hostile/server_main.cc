// The worker that offenders are let loose on, in a process of its own, so that its memory and its end can be seen.
//
//   server_main <address file> <log file> <most files> [key=value]...
//
// Each key=value is a setting. It may open so many files, 0 for as many as usual; writes its address to the one file
// and its log to the other; ends with 0 when its standard input is closed.
#include <sys/resource.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <string>

#include "tests/support/c_abi/group.h"

namespace gf {
namespace {

void WriteLine(uintptr_t token, uint32_t, const char* message, size_t length) {
  auto* const file = reinterpret_cast<std::FILE*>(token);
  std::fprintf(file, "%.*s\n", static_cast<int>(length), message);
  std::fflush(file);
}

int Main(int argc, char** argv) {
  std::FILE* const log = std::fopen(argv[2], "w");
  if (log == nullptr) return 65;
  Call(gf_log_set, static_cast<gf_log_callback>(WriteLine), reinterpret_cast<uintptr_t>(log), GF_LOG_INFO);
  const Config config = NewConfig();
  for (int i = 4; i < argc; ++i) {
    const std::string setting = argv[i];
    const size_t equals = setting.find('=');
    Set(config, setting.substr(0, equals), setting.substr(equals + 1));
  }
  const Worker worker = OpenWorker(config);
  if (const rlim_t most = std::strtoul(argv[3], nullptr, 10); most != 0) {
    const rlimit limit{most, most};
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 66;
  }
  const std::string half = std::string(argv[1]) + ".new";
  std::FILE* const file = std::fopen(half.c_str(), "w");
  if (file == nullptr) return 67;
  std::fputs(Address(worker).c_str(), file);
  std::fclose(file);
  std::filesystem::rename(half, argv[1]);
  char ignored[64];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
  Call(gf_worker_close, worker, kPatience);
  return 0;
}

}  // namespace
}  // namespace gf

int main(int argc, char** argv) {
  if (argc < 4) return 64;
  try {
    return gf::Main(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "server_main: %s\n", exception.what());
    return 1;
  }
}
