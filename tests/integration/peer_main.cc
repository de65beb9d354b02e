// A worker in a process of its own: joins the group that its arguments name, serves the handlers that tests share until
// its standard input is closed, closes, and ends with 0 only when nothing is left.
//
//   peer_main <way> <worker's name> [key=value]...
//
// Each key=value is a setting; an empty name leaves it to the rendezvous, which makes it worker<RANK>. What fails is
// written to standard error.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

void WaitForEndOfInput() {
  char ignored[64];
  while (read(STDIN_FILENO, ignored, sizeof(ignored)) > 0) {
  }
}

int Main(int argc, char** argv) {
  const auto before = LiveObjects();
  {
    const Config config = NewConfig();
    const std::string name = argv[2];
    UseWay(config, argv[1], name.empty() ? std::string("worker") + std::getenv("RANK") : name);
    if (!name.empty()) Set(config, "worker.name", name);
    for (int i = 3; i < argc; ++i) {
      const std::string setting = argv[i];
      const size_t equals = setting.find('=');
      Set(config, setting.substr(0, equals), setting.substr(equals + 1));
    }
    const Worker worker = OpenWorker(config);
    Server server(worker, 8);
    RegisterHandlers(server);
    WaitForEndOfInput();
    Call(gf_worker_close, worker, kPatience);
  }
  const std::string left = LeftBehind(before);
  if (left.empty()) return 0;
  std::fprintf(stderr, "%s left behind: %s\n", argv[2], left.c_str());
  return 2;
}

}  // namespace
}  // namespace gf

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  try {
    return gf::Main(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "%s: %s\n", argv[2], exception.what());
    return 1;
  }
}
