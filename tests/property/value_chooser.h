// How the generator chooses what an operation shall be applied to: an existing value, or a new leaf, constant or vector
// of indices. OperationWriter, and on it the generator itself (generate.cc), build on this.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "tests/property/builder.h"
#include "tests/property/program.h"
#include "tests/property/random.h"

namespace gradferry::property {

class ValueChooser {
 protected:
  explicit ValueChooser(uint64_t seed)
      : random_(seed), builder_(seed, 2 + static_cast<int>(random_.Below(4))), program_(builder_.program()) {}

  // Functions return the number of a value in the draft, -1 when there is none.

  int Worker() { return static_cast<int>(random_.Below(program_.workers)); }

  const Function& FunctionOf(const Draft& draft) const { return program_.functions[draft.function]; }

  // A value of this form, nothing else known.
  static Info Like(Sizes sizes, c10::ScalarType dtype);

  // Builder::Add, on the budget.
  int Add(Draft& draft, Op op, std::vector<int> inputs, std::vector<int64_t> ints, std::vector<Info> outputs,
          double bound, double scalar = 0);

  // One of the values that fit.
  template <class Predicate>
  int Pick(const Draft& draft, Predicate fits) {
    std::vector<int> found, unused;
    for (size_t i = 0; i < draft.values.size(); ++i) {
      if (!fits(draft.values[i])) continue;
      found.push_back(static_cast<int>(i));
      if (!draft.values[i].used) unused.push_back(static_cast<int>(i));
    }
    if (found.empty()) return -1;
    // What nobody has used yet more often, so that much of a program leads to its roots.
    if (!unused.empty() && random_.Chance(0.7)) found.swap(unused);
    // Late ones more often, so that programs grow deep as well as wide.
    const int64_t count = static_cast<int64_t>(found.size());
    return found[std::max(random_.Below(count), random_.Below(count))];
  }

  // Of float32 or float64; a new one when there is none.
  int PickFloat(Draft& draft, size_t min_rank = 0);
  int PickBroadcastable(Draft& draft, int with);
  // The value, converted if need be.
  int WithDtype(Draft& draft, int value, c10::ScalarType dtype);

  double Bound(const Draft& draft, int value) { return builder_.MemoryOf(draft, value).bound; }

  // The value, scaled down if it may be larger than `limit`.
  int Within(Draft& draft, int value, double limit);

  c10::ScalarType RandomDtype() { return random_.Chance(0.3) ? c10::kFloat : c10::kDouble; }
  Sizes RandomSizes();
  // What libtorch makes of the two dtypes.
  c10::ScalarType Promoted(const Draft& draft, int a, int b);

  int UseLeaf(Draft& draft, int leaf);
  // A leaf of the function's worker, old or new; a constant when the program has many leaves.
  int LeafLike(Draft& draft, Sizes sizes, c10::ScalarType dtype);
  int NewLeaf(Draft& draft) { return LeafLike(draft, RandomSizes(), RandomDtype()); }
  // A leaf or a constant, for nobody yet.
  void AddSource(Draft& draft);
  // Indices below this, an existing vector of them where there is one.
  int IndicesBelow(Draft& draft, int64_t limit);

  Random random_;
  Builder builder_;
  Program& program_;
  int budget_ = 0;  // of steps
};

}  // namespace gradferry::property
