// How the generator writes single operations on the worker where a function runs: one of each kind, with inputs, shapes
// and numbers at random. A step may also write none, when nothing fits.
#pragma once

#include <cstdint>
#include <vector>

#include "tests/property/value_chooser.h"

namespace gradferry::property {

class OperationWriter : protected ValueChooser {
 protected:
  using ValueChooser::ValueChooser;

  void AddOperation(Draft& draft);

 private:
  void AddElementwise(Draft& draft);
  // The second input gets an undefined gradient. libtorch fails when that reaches a hook, so there must be none behind.
  void AddCustomHalf(Draft& draft, int a);
  void AddUnary(Draft& draft);
  void AddMatmul(Draft& draft);
  void AddReduction(Draft& draft);
  void AddView(Draft& draft);
  // Lists of views, of which later steps may use some.
  void AddSplit(Draft& draft);
  void AddJoin(Draft& draft);
  void AddIndexSelect(Draft& draft);
  void AddEmbedding(Draft& draft);
  void AddInPlace(Draft& draft);
  void AddDetach(Draft& draft);
};

}  // namespace gradferry::property
