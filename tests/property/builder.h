// What the generator knows of the values of a function while it writes it, and how a step changes that: shapes, shared
// memory, bounds. generate.cc decides what to write; this sees to it that it is legal.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "tests/property/program.h"
#include "tests/property/random.h"

namespace gradferry::property {

using Sizes = std::vector<int64_t>;

constexpr int64_t kMaxElements = 64;  // of a tensor

// Values that share memory, or might.
struct Memory {
  bool frozen = false;    // must not be changed in place any more
  bool expanded = false;  // several elements in one place
  int changes = 0;        // in place
  double bound = 1;       // of all elements
};

struct Info {
  Sizes sizes;
  c10::ScalarType dtype = c10::kDouble;
  int memory = 0;
  int64_t below = 0;  // of indices: all are less
  // A leaf, or a copy that a message made of one, without a hook: it can get a sparse gradient, or an undefined one.
  bool table = false;
  bool view = false;
  int changes = 0;    // of the memory, that it has seen
  bool grad = false;  // probably requires grad
  bool used = false;  // is an input of some step
  bool IsFloat() const { return dtype == c10::kDouble || dtype == c10::kFloat; }
};

int64_t Elements(const Sizes& sizes);
// The common shape; none when there is none or it is too large.
std::optional<Sizes> Broadcast(const Sizes& a, const Sizes& b);

// A function as it is being written.
struct Draft {
  int function = 0;
  int depth = 0;
  std::vector<Info> values;
};

class Builder {
 public:
  Builder(uint64_t seed, int workers);

  Program& program() { return program_; }
  Memory& MemoryAt(int memory) { return memories_[memory]; }
  Memory& MemoryOf(const Draft& draft, int value) { return memories_[draft.values[value].memory]; }
  int NewMemory(Memory memory);
  bool MayChangeInPlace(const Info& info) const;

  // A function of its own on this worker.
  Draft NewFunction(int worker, int depth);

  // Adds an operation. `outputs`: sizes and dtypes; memory is worked out here, `bound` is of the results. The step may
  // become an operator call on a worker. Returns the first output, which may have been scaled down to keep numbers
  // small; -1 when there is none.
  int Add(Draft& draft, Step step, std::vector<Info> outputs, double bound, Random& random);
  // Adds a call whose outputs were described by the callee.
  void AddCall(Draft& draft, Step step, std::vector<Info> outputs);

 private:
  void Emit(Draft& draft, Step& step, std::vector<Info> outputs);
  void MakeLocalMemory(Draft& draft, const Step& step, std::vector<Info>& outputs, double bound);
  void MakeRemoteMemory(Draft& draft, const Step& step, std::vector<Info>& outputs, double bound);

  Program program_;
  std::vector<Memory> memories_;
};

}  // namespace gradferry::property
