// A small language for computations that can be run in one process or cut over several workers: what a seed becomes
// (generate.h), what both runs interpret (interpreter.h), and what a failure prints. Plain data.
//
// A program is a tree of functions; number 0 is the main one. A function runs on one worker, in steps; a step applies
// an operation to values of its function, on the spot or by an operator call on a worker, or calls another function,
// which then makes calls of its own. Values are tensors, numbered within their function: its arguments first.
#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>
#include <vector>

namespace gradferry::property {

enum class Op {
  // Where values come from: ints[0] is a leaf's number; a constant's sizes are its ints.
  kLeaf,
  kConstant,
  kIndices,  // ints: how many, bound (values are below it)
  kMask,     // ints: sizes; booleans
  // Elementwise, with broadcasting.
  kAdd,
  kSub,
  kMul,
  kWhere,
  kAddScalar,
  kMulScalar,
  kNeg,
  kSquare,
  kRelu,
  kTanh,
  kSigmoid,
  kExp,
  kSin,
  // Products and reductions. ints of reductions: the dimensions, then keepdim; of the others: the dimension.
  kMatmul,
  kSum,
  kMean,
  kSoftmax,
  kLogSumExp,
  kCumSum,
  kMax,  // values and indices
  // Views.
  kTranspose,  // ints: two dimensions
  kNarrow,     // ints: dimension, start, length
  kSelect,     // ints: dimension, index
  kReshape,    // ints: sizes
  kExpand,     // ints: sizes
  kUnsqueeze,  // ints: dimension
  kChunk,      // ints: chunks, dimension
  kUnbind,     // ints: dimension
  kDetach,
  // Copies.
  kCat,    // ints: dimension
  kStack,  // ints: dimension
  kFlip,   // ints: dimension
  kClone,
  kToFloat,
  kToDouble,
  // Indexing. The indices are the last input.
  kIndexSelect,      // ints: dimension
  kEmbedding,        // the first input is the table
  kSparseEmbedding,  // the same; its gradient is sparse
  // Operations of the user's own (torch::autograd::Function).
  kCustomPair,  // x, y -> x * y, x - y; undefined gradients come as zeros
  kCustomHalf,  // x, y -> x + 2 y, with no gradient for y
  // In place, on the first input; no outputs.
  kAddInPlace,
  kMulInPlace,
  kMulScalarInPlace,
  kTanhInPlace,
  kCopyInPlace,
  kZeroInPlace,
  // Calls.
  kCall,    // of a function
  kMetric,  // of a handler that returns an integer, made from its arguments' sizes
};

struct Step {
  Op op = Op::kConstant;
  std::vector<int> inputs;
  std::vector<int64_t> ints;
  double scalar = 0;
  std::vector<int> outputs;
  int number = 0;  // unique in the program; data of constants follow from it

  // Of kCall: the function. Of other operations, when not negative: the worker where an operator call runs it.
  int function = -1;
  int worker = -1;
  // A message copies tensors. Where that makes a difference later, because one of the copies is changed in place or
  // carries a hook, the uncut run copies too; else it does not.
  bool copy_arguments = false;
  bool copy_results = false;
  bool no_grad = false;
  bool in_background = false;  // waited for when a result is used
  bool fails_first = false;    // the first attempt fails at the callee, after the arguments have come; then again
  bool nested_list = false;    // results travel as a list within the list

  // On the outputs: a hook that multiplies the gradient. 0: none.
  double hook = 0;
  bool retain_grad = false;
  int reenters = -1;  // the hook also runs a pass of its own, over the square of this leaf of the function's worker
};

struct Function {
  int worker = 0;
  int arguments = 0;
  int values = 0;
  std::vector<Step> steps;
  std::vector<int> results;
  bool direct = false;  // runs on the worker's own pool; makes no calls
};

struct Leaf {
  int worker = 0;
  c10::ScalarType dtype = c10::kDouble;
  std::vector<int64_t> sizes;
  bool requires_grad = true;
  double hook = 0;
};

struct Root {
  int value = 0;
  bool seeded = false;  // else it has one element and the seed gradient is one
};

// One run of backward. All but the last retain the graph.
struct PassPlan {
  std::vector<Root> roots;
  std::vector<int> inputs;  // leaves of the main function's worker whose gradients are wanted; none: of all leaves
};

struct Program {
  uint64_t seed = 0;
  int workers = 2;
  std::vector<Leaf> leaves;
  std::vector<Function> functions;
  std::vector<PassPlan> passes;
  int steps = 0;
  bool has_float32 = false;
  bool has_leaf_hooks = false;
};

const char* OpName(Op op);

// The program as text that a person can follow, one step a line.
std::string Describe(const Program& program);

}  // namespace gradferry::property
