// What is measured, of whom, how often.
#pragma once

#include <string>
#include <vector>

#include "tests/bench/pair.h"

namespace gradferry::bench {

enum class Kind { kRaw, kStock, kOurs };

struct Subject {
  std::string name;
  Kind kind = Kind::kRaw;
  std::string text;  // for people
  Command command;
  // A script to run before, with the subject's folder and these arguments; empty: none.
  std::string preparation = "";
  std::string preparation_arguments = "";
};

struct Measurement {
  std::string name;
  std::string text;
  int64_t most = 0;   // samples in a round
  double share = 1;   // of a round's time for each measurement
  int64_t bytes = 0;  // that one operation moves; 0: its time is what counts
};

// How long all of it takes.
struct Effort {
  std::string name;
  int rounds = 0;
  double seconds = 0;        // for a measurement of a subject in a round
  int64_t most_samples = 0;  // in a round, of whatever
  int tail_rounds = 0;
  double tail_seconds = 0;  // a call beside a transfer
  double idle_seconds = 0;
  bool large = true;  // 1 GiB, the memory it takes, and the bytes that are copied
};

// quick, full; tiny only shows that everything works.
Effort EffortOf(const std::string& name);

// programs: the folder with the programs of this package.
std::vector<Subject> AllSubjects(const std::string& programs);
const std::vector<Measurement>& AllMeasurements();

}  // namespace gradferry::bench
