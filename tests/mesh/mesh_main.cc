// A worker of the mesh in a process of its own. It obeys lines on its standard input and answers each by a line in its
// report file:
//
//   peers ADDRESS...  learns where the workers are, in the order of their ids, and calls each of the others
//   close             closes, says what the process held at most, and ends
//
//   mesh_main <id> <report file> [key=value]...
#include <dirent.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/c_abi/group.h"

namespace gf {
namespace {

size_t EntriesOf(const char* folder) {
  size_t count = 0;
  if (DIR* dir = opendir(folder)) {
    while (readdir(dir) != nullptr) ++count;
    closedir(dir);
  }
  return count - 2;
}

std::string NameOf(int id) { return "worker" + std::to_string(id); }

// A line, whole or not there.
class Report {
 public:
  explicit Report(const std::string& path) : out_(path, std::ios::app) {}
  void Say(const std::string& line) { out_ << line + "\n" << std::flush; }

 private:
  std::ofstream out_;
};

void MeetAll(gf_worker* worker, int self, std::istringstream& addresses, Report& report) {
  std::vector<std::string> all;
  for (std::string address; addresses >> address;) all.push_back(address);
  for (int id = 0; id < static_cast<int>(all.size()); ++id) {
    if (id != self) AddPeer(worker, id, NameOf(id), all[static_cast<size_t>(id)]);
  }
  const Tensor one = Floats({1}, {1});
  for (int id = 0; id < static_cast<int>(all.size()); ++id) {
    if (id == self) continue;
    if (ReadFloats(RemoteOp(worker, NameOf(id), {}, "aten::neg", one)) != std::vector<float>{-1})
      throw std::exception();
  }
  report.Say("met " + std::to_string(EntriesOf("/proc/self/fd")) + " " + std::to_string(EntriesOf("/proc/self/task")));
}

int Main(int argc, char** argv) {
  const int self = std::stoi(argv[1]);
  Report report(argv[2]);
  Settings settings;
  for (int i = 3; i < argc; ++i) {
    const std::string setting = argv[i];
    const size_t equals = setting.find('=');
    settings[setting.substr(0, equals)] = setting.substr(equals + 1);
  }
  const Worker worker = OpenWorker(WorkerConfig("tensorpipe", "", NameOf(self), self, settings));
  report.Say("open " + Address(worker));
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string verb;
    words >> verb;
    if (verb == "close") break;
    const Error error = ErrorOf([&] { MeetAll(worker, self, words, report); });
    if (error.code != GF_OK) report.Say("failed " + std::to_string(error.code) + " " + error.message);
  }
  Call(gf_worker_close, worker, kPatience);
  report.Say("closed");
  return 0;
}

}  // namespace
}  // namespace gf

int main(int argc, char** argv) {
  if (argc < 3) return 64;
  try {
    return gf::Main(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "mesh_main %s: %s\n", argv[1], exception.what());
    return 1;
  }
}
