// Processes of one machine, each with a worker over TensorPipe and a connection to each other one: how long it takes to
// start and to end, and what a process holds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

using Clock = std::chrono::steady_clock;
using ::testing::HasSubstr;
using ::testing::StartsWith;

double Since(Clock::time_point begun) { return std::chrono::duration<double>(Clock::now() - begun).count(); }

// One process for each worker.
class Mesh {
 public:
  explicit Mesh(int size, const std::vector<std::string>& settings = {}) {
    for (int id = 0; id < size; ++id) {
      std::vector<std::string> arguments = {std::to_string(id), File(id)};
      arguments.insert(arguments.end(), settings.begin(), settings.end());
      processes_.push_back(std::make_unique<Process>("mesh_main", arguments));
    }
  }

  // The number-th line of each process's report.
  std::vector<std::string> Await(size_t number) {
    std::vector<std::string> lines;
    const auto begun = Clock::now();
    for (int id = 0; id < static_cast<int>(processes_.size()); ++id) {
      std::string line;
      while ((line = Line(id, number)).empty() && Since(begun) < 240) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      lines.push_back(line);
    }
    return lines;
  }
  void TellAll(const std::string& line) {
    for (auto& process : processes_) process->Write(line + "\n");
  }
  void ExpectGoodEnds() {
    for (auto& process : processes_) EXPECT_EQ(process->Wait(), 0);
  }

 private:
  std::string File(int id) const { return folder_.File(std::to_string(id)); }
  std::string Line(int id, size_t number) const {
    std::ifstream file(File(id));
    std::string line;
    for (size_t i = 0; i <= number; ++i) {
      if (!std::getline(file, line) || file.eof()) return "";
    }
    return line;
  }

  const TemporaryFolder folder_;
  std::vector<std::unique_ptr<Process>> processes_;
};

std::string AddressesIn(const std::vector<std::string>& lines) {
  std::string all = "peers";
  for (const std::string& line : lines) {
    EXPECT_THAT(line, StartsWith("open "));
    all += " " + line.substr(5);
  }
  return all;
}

// Seconds that the machine needs for what is to be done in ten times fewer: 1 on an idle one, more on a loaded one.
bool Quiet() {
  double load[1];
  return getloadavg(load, 1) == 1 && load[0] < 1;
}

int Size() {
  const char* size = std::getenv("GF_MESH_WORKERS");
  return size != nullptr ? std::atoi(size) : 8;
}

TEST(Mesh, OfProcessesMeetsAndEnds) {
  const int size = Size();
  const bool quiet = Quiet();
  Mesh mesh(size);
  const std::string peers = AddressesIn(mesh.Await(0));
  // From here on it is the transport's and the worker's work; loading libtorch is not.
  auto begun = Clock::now();
  mesh.TellAll(peers);
  int most_files = 0;
  int most_threads = 0;
  for (const std::string& line : mesh.Await(1)) {
    ASSERT_THAT(line, StartsWith("met "));
    int files = 0;
    int threads = 0;
    std::istringstream(line.substr(4)) >> files >> threads;
    most_files = std::max(most_files, files);
    most_threads = std::max(most_threads, threads);
  }
  const double met = Since(begun);
  begun = Clock::now();
  mesh.TellAll("close");
  for (const std::string& line : mesh.Await(2)) EXPECT_EQ(line, "closed");
  const double closed = Since(begun);
  mesh.ExpectGoodEnds();
  std::printf(
      "%d processes: all met after %.2f s, all closed after %.2f s; at most %d files and %d threads a process\n", size,
      met, closed, most_files, most_threads);
  // A file for each connection, dialled and accepted, and what a worker needs by itself.
  EXPECT_LE(most_files, 2 * (size - 1) * 3 + 80);
  EXPECT_LE(most_threads, 24);
  if (quiet) {
    EXPECT_LE(met, 10);
    EXPECT_LE(closed, 5);
  }
}

// A process with too few files for all its peers.
TEST(Mesh, RunsOutOfFilesWithAnErrorAndLives) {
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 72;
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  Mesh mesh(10);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  mesh.TellAll(AddressesIn(mesh.Await(0)));
  int failed = 0;
  for (const std::string& line : mesh.Await(1)) {
    if (line.compare(0, 7, "failed ") == 0) ++failed;
  }
  EXPECT_GT(failed, 0) << "there were enough files after all";
  mesh.TellAll("close");
  mesh.ExpectGoodEnds();
}

}  // namespace
}  // namespace gf
