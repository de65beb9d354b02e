// Prints what one step of a group costs, for groups of growing size (step.h). Each step runs in a process of its own,
// so that its memory is its own.
//
//   scale_main [WORKERS...]    groups of these sizes (10 100 1000)
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include "tests/property/group.h"
#include "tests/scale/step.h"

namespace gradferry::scale {
namespace {

constexpr int kMostWorkers = 10000;

void PrintHeader() {
  std::printf(
      "Times in ms of real time. frames: sent and received by one worker in the forward calls, the pass and the "
      "release;\n"
      "driver: those of the driver for each worker. bytes: of the frames of one worker in all. KiB: resident memory "
      "for\n"
      "each worker, with the group open and at the most. threads: of the process.\n\n"
      "%-6s %7s %8s %8s %8s %8s %8s %14s %6s %8s %7s %7s %8s\n",
      "shape", "workers", "open", "forward", "pass", "release", "close", "frames", "driver", "bytes", "KiB", "most",
      "threads");
}

void Print(const StepOptions& options, const Report& report) {
  char frames[64];
  std::snprintf(frames, sizeof(frames), "%.1f+%.1f+%.1f", report.forward.worker_frames, report.pass.worker_frames,
                report.release.worker_frames);
  std::printf("%-6s %7d %8.1f %8.1f %8.1f %8.1f %8.1f %14s %6.1f %8.0f %7.0f %7.0f %8lld\n",
              options.shape == Shape::kChain ? "chain" : "star", options.workers, report.opening * 1e3,
              report.forward.seconds * 1e3, report.pass.seconds * 1e3, report.release.seconds * 1e3,
              report.closing * 1e3, frames,
              report.forward.driver_frames + report.pass.driver_frames + report.release.driver_frames,
              report.forward.worker_bytes + report.pass.worker_bytes + report.release.worker_bytes,
              report.resident_open / 1024, report.resident_used / 1024, static_cast<long long>(report.threads));
}

// Whether the step went well.
bool RunApart(const StepOptions& options) {
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    bool good = false;
    try {
      RunStep({options.shape, 1, options.virtual_time});  // what the first step of a process costs once
      Print(options, RunStep(options));
      good = true;
    } catch (const std::exception& error) {
      std::printf("%d workers: %s\n", options.workers, error.what());
    }
    std::fflush(stdout);
    _exit(good ? 0 : 1);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child) return false;
  if (WIFSIGNALED(status)) std::printf("%d workers: it ended by signal %d\n", options.workers, WTERMSIG(status));
  return status == 0;
}

int Main(int count, char** arguments) {
  std::vector<int> sizes;
  for (int i = 1; i < count; ++i) {
    char* end = nullptr;
    const long size = std::strtol(arguments[i], &end, 10);
    if (*end != '\0' || size < 1 || size > kMostWorkers) {
      std::fprintf(stderr, "usage: [WORKERS...], each 1 to %d; '%s' is not that\n", kMostWorkers, arguments[i]);
      return 2;
    }
    sizes.push_back(static_cast<int>(size));
  }
  if (sizes.empty()) sizes = {10, 100, 1000};
  property::SetStuckAfter(std::chrono::seconds(600));
  PrintHeader();
  bool good = true;
  for (const Shape shape : {Shape::kChain, Shape::kStar}) {
    for (const int size : sizes) good = RunApart({shape, size, /*virtual_time=*/false}) && good;
  }
  return good ? 0 : 1;
}

}  // namespace
}  // namespace gradferry::scale

int main(int count, char** arguments) { return gradferry::scale::Main(count, arguments); }
