// One step, forward and backward, of a group of many workers in one process, and what it costs. A driver calls all
// other workers in one context; each of them has a parameter, and so a gradient. The gradients are compared, bit by
// bit, with those of local autograd.
#pragma once

#include <cstdint>

namespace gradferry::scale {

enum class Shape {
  kChain,  // the result of one call is the argument of the next
  kStar,   // all calls at once; the driver adds the results
};

struct StepOptions {
  Shape shape = Shape::kChain;
  int workers = 10;  // besides the driver
  bool virtual_time = false;
};

// Times in s of real time. Frames and bytes are sent and received ones; `worker` is the mean of the workers but the
// driver.
struct Cost {
  double seconds = 0;
  double worker_frames = 0;
  double worker_bytes = 0;
  double most_frames = 0;    // of one worker but the driver
  double driver_frames = 0;  // for each worker
};

struct Report {
  double opening = 0;
  Cost forward;
  Cost pass;
  Cost release;  // until nothing of the context is left
  double closing = 0;
  // Resident memory for each worker, in bytes more than before the group: when it is open, and at the most.
  double resident_open = 0;
  double resident_used = 0;
  int64_t threads = 0;  // of the process, at the most
};

// Throws when something fails, does not end, is wrong or is left behind. The driver's peers are all workers, the
// only peer of each is the driver. One thread for each worker's pool. Not at the same time as another step of the
// process.
Report RunStep(const StepOptions& options);

}  // namespace gradferry::scale
