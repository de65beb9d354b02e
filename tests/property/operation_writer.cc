// See operation_writer.h.
#include "tests/property/operation_writer.h"

#include <algorithm>
#include <utility>

namespace gradferry::property {

void OperationWriter::AddElementwise(Draft& draft) {
  const int a = PickFloat(draft);
  const int b = PickBroadcastable(draft, a);
  const Sizes sizes = *Broadcast(draft.values[a].sizes, draft.values[b].sizes);
  const Info info = Like(sizes, Promoted(draft, a, b));
  const double x = Bound(draft, a), y = Bound(draft, b);
  switch (random_.Below(8)) {
    case 0:
    case 1:
      Add(draft, Op::kAdd, {a, b}, {}, {info}, x + y);
      break;
    case 2:
      Add(draft, Op::kSub, {a, b}, {}, {info}, x + y);
      break;
    case 3:
    case 4:
      Add(draft, Op::kMul, {a, b}, {}, {info}, x * y);
      break;
    case 5:
      return AddCustomHalf(draft, a);
    case 6:
      Add(draft, Op::kCustomPair, {a, b}, {}, {info, info}, std::max(x * y, x + y));
      break;
    case 7: {
      const int same = WithDtype(draft, b, draft.values[a].dtype);
      const int mask = Add(draft, Op::kMask, {}, sizes, {Like(sizes, c10::kBool)}, 1);
      Add(draft, Op::kWhere, {mask, a, same}, {}, {Like(sizes, draft.values[a].dtype)}, std::max(x, y));
      break;
    }
  }
}

void OperationWriter::AddCustomHalf(Draft& draft, int a) {
  int b = Pick(
      draft, [&](const Info& info) { return info.table && Broadcast(info.sizes, draft.values[a].sizes).has_value(); });
  if (b < 0 || builder_.MemoryOf(draft, b).changes > 0) b = LeafLike(draft, {}, RandomDtype());
  const Sizes sizes = *Broadcast(draft.values[a].sizes, draft.values[b].sizes);
  Add(draft, Op::kCustomHalf, {a, b}, {}, {Like(sizes, Promoted(draft, a, b))}, Bound(draft, a) + 2 * Bound(draft, b));
}

void OperationWriter::AddUnary(Draft& draft) {
  const int a = PickFloat(draft);
  const double x = Bound(draft, a);
  auto add = [&](Op op, int value, double bound, double scalar = 0) {
    Add(draft, op, {value}, {}, {Like(draft.values[value].sizes, draft.values[value].dtype)}, bound, scalar);
  };
  switch (random_.Below(12)) {
    case 0:
      return add(Op::kNeg, a, x);
    case 1:
      return add(Op::kSquare, a, x * x);
    case 2:
      return add(Op::kRelu, a, x);
    case 3:
      return add(Op::kTanh, a, 1);
    case 4:
      return add(Op::kSigmoid, a, 1);
    case 5:
      return add(Op::kExp, Within(draft, a, 2), 8);
    case 6:
      return add(Op::kSin, a, 1);
    case 7:
      return add(Op::kAddScalar, a, x + 0.5, 0.5);
    case 8:
      return add(Op::kMulScalar, a, x * 1.5, -1.5);
    case 9:
      return add(Op::kClone, a, x);
    case 10: {
      const int ranked = PickFloat(draft, 1);
      const int64_t dim = random_.Below(draft.values[ranked].sizes.size());
      Add(draft, random_.Chance(0.5) ? Op::kFlip : Op::kSoftmax, {ranked}, {dim},
          {Like(draft.values[ranked].sizes, draft.values[ranked].dtype)}, std::max(1.0, Bound(draft, ranked)));
      return;
    }
    default:
      WithDtype(draft, a, draft.values[a].dtype == c10::kFloat ? c10::kDouble : c10::kFloat);
      return;
  }
}

void OperationWriter::AddMatmul(Draft& draft) {
  const int a = PickFloat(draft, 1);
  const Sizes left = draft.values[a].sizes;
  const int64_t inner = left.back();
  if (inner * 4 > kMaxElements) return;
  int b = Pick(draft, [&](const Info& info) {
    return info.IsFloat() && (info.sizes.size() == 1 || info.sizes.size() == 2) && info.sizes[0] == inner;
  });
  if (b < 0) b = LeafLike(draft, {inner, random_.Between(1, 4)}, draft.values[a].dtype);
  b = WithDtype(draft, b, draft.values[a].dtype);
  Sizes sizes(left.begin(), left.end() - 1);
  if (draft.values[b].sizes.size() == 2) sizes.push_back(draft.values[b].sizes[1]);
  if (Elements(sizes) > kMaxElements) return;
  Add(draft, Op::kMatmul, {a, b}, {}, {Like(sizes, draft.values[a].dtype)},
      static_cast<double>(inner) * Bound(draft, a) * Bound(draft, b));
}

void OperationWriter::AddReduction(Draft& draft) {
  const int a = PickFloat(draft, random_.Chance(0.2) ? 0 : 1);
  const Info info = draft.values[a];
  const double x = Bound(draft, a);
  const int64_t rank = static_cast<int64_t>(info.sizes.size());
  if (rank > 0 && random_.Chance(0.3)) {
    const int64_t dim = random_.Below(rank);
    if (random_.Chance(0.5)) {
      Add(draft, Op::kCumSum, {a}, {dim}, {Like(info.sizes, info.dtype)}, x * 4);
      return;
    }
    Sizes sizes = info.sizes;
    sizes.erase(sizes.begin() + dim);
    Info indices = Like(sizes, c10::kLong);
    indices.below = info.sizes[dim];
    Add(draft, Op::kMax, {a}, {dim}, {Like(sizes, info.dtype), indices}, x);
    return;
  }
  std::vector<int64_t> ints;
  Sizes sizes;
  const bool keep = random_.Chance(0.3);
  int64_t count = 1;
  for (int64_t dim = 0; dim < rank; ++dim) {
    if (random_.Chance(0.6)) {
      ints.push_back(dim);
      count *= info.sizes[dim];
      if (keep) sizes.push_back(1);
    } else {
      sizes.push_back(info.sizes[dim]);
    }
  }
  if (ints.empty()) {  // to libtorch no dimensions are all
    count = Elements(info.sizes);
    sizes.assign(keep ? rank : 0, 1);
    for (int64_t dim = 0; dim < rank; ++dim) ints.push_back(dim);
  }
  ints.push_back(keep);
  const Op op = random_.Chance(0.5) ? Op::kSum : random_.Chance(0.6) ? Op::kMean : Op::kLogSumExp;
  Add(draft, op, {a}, ints, {Like(sizes, info.dtype)}, op == Op::kSum ? x * static_cast<double>(count) : x + 4);
}

void OperationWriter::AddView(Draft& draft) {
  const int a = PickFloat(draft, random_.Chance(0.1) ? 0 : 1);
  const Info info = draft.values[a];
  Sizes sizes = info.sizes;
  const int64_t rank = static_cast<int64_t>(sizes.size());
  auto add = [&](Op op, std::vector<int64_t> ints, Sizes result) {
    Add(draft, op, {a}, std::move(ints), {Like(std::move(result), info.dtype)}, 1);
  };
  if (rank == 0) return add(Op::kUnsqueeze, {0}, {1});
  const int64_t dim = random_.Below(rank);
  switch (random_.Below(8)) {
    case 0: {
      const int64_t other = random_.Below(rank);
      std::swap(sizes[dim], sizes[other]);
      return add(Op::kTranspose, {dim, other}, sizes);
    }
    case 1:
    case 2: {
      const int64_t start = random_.Below(sizes[dim]);
      sizes[dim] = random_.Between(1, sizes[dim] - start);
      return add(Op::kNarrow, {dim, start, sizes[dim]}, sizes);
    }
    case 3:
    case 4: {
      const int64_t index = random_.Below(sizes[dim]);
      sizes.erase(sizes.begin() + dim);
      return add(Op::kSelect, {dim, index}, sizes);
    }
    case 5: {
      const int64_t first = sizes[0];
      Sizes result = random_.Chance(0.5) ? Sizes{Elements(sizes)} : Sizes{Elements(sizes) / first, first};
      return add(Op::kReshape, result, result);
    }
    case 6: {
      Sizes result = sizes;
      for (int64_t& size : result) {
        if (size == 1) size = random_.Between(1, 3);
      }
      if (result.size() < 3 && random_.Chance(0.7)) result.insert(result.begin(), random_.Between(1, 3));
      if (Elements(result) > kMaxElements) result = sizes;
      return add(Op::kExpand, result, result);
    }
    default:
      if (rank >= 3) return;
      sizes.insert(sizes.begin() + dim, 1);
      return add(Op::kUnsqueeze, {dim}, sizes);
  }
}

void OperationWriter::AddSplit(Draft& draft) {
  const int a = PickFloat(draft, 1);
  const Info info = draft.values[a];
  const int64_t dim = random_.Below(info.sizes.size());
  const int64_t size = info.sizes[dim];
  std::vector<Info> outputs;
  if (random_.Chance(0.5)) {
    Sizes sizes = info.sizes;
    sizes.erase(sizes.begin() + dim);
    outputs.assign(size, Like(sizes, info.dtype));
    Add(draft, Op::kUnbind, {a}, {dim}, outputs, 1);
    return;
  }
  const int64_t chunks = random_.Between(1, 3);
  const int64_t step = (size + chunks - 1) / chunks;
  for (int64_t start = 0; start < size; start += step) {
    Sizes sizes = info.sizes;
    sizes[dim] = std::min(step, size - start);
    outputs.push_back(Like(sizes, info.dtype));
  }
  Add(draft, Op::kChunk, {a}, {chunks, dim}, outputs, 1);
}

void OperationWriter::AddJoin(Draft& draft) {
  const int a = PickFloat(draft, 1);
  const Info info = draft.values[a];
  const int count = static_cast<int>(random_.Between(1, 3));
  std::vector<int> inputs = {a};
  double bound = Bound(draft, a);
  for (int i = 1; i < count; ++i) {
    inputs.push_back(
        Pick(draft, [&](const Info& other) { return other.dtype == info.dtype && other.sizes == info.sizes; }));
    bound = std::max(bound, Bound(draft, inputs.back()));
  }
  Sizes sizes = info.sizes;
  const int64_t dim = random_.Below(sizes.size());
  if (Elements(sizes) * count > kMaxElements) return;
  if (sizes.size() < 3 && random_.Chance(0.5)) {
    sizes.insert(sizes.begin() + dim, count);
    Add(draft, Op::kStack, inputs, {dim}, {Like(sizes, info.dtype)}, bound);
  } else {
    sizes[dim] *= count;
    Add(draft, Op::kCat, inputs, {dim}, {Like(sizes, info.dtype)}, bound);
  }
}

void OperationWriter::AddIndexSelect(Draft& draft) {
  const int a = PickFloat(draft, 1);
  const Info info = draft.values[a];
  const int64_t dim = random_.Below(info.sizes.size());
  const int indices = IndicesBelow(draft, info.sizes[dim]);
  Sizes sizes = info.sizes;
  sizes[dim] = draft.values[indices].sizes[0];
  if (Elements(sizes) > kMaxElements) return;
  Add(draft, Op::kIndexSelect, {a, indices}, {dim}, {Like(sizes, info.dtype)}, Bound(draft, a));
}

void OperationWriter::AddEmbedding(Draft& draft) {
  const bool sparse = random_.Chance(0.7);
  auto fits = [&](const Info& info) { return info.IsFloat() && info.sizes.size() == 2 && (!sparse || info.table); };
  int table = Pick(draft, fits);
  if (table < 0 || (sparse && builder_.MemoryOf(draft, table).changes > 0)) {
    table = LeafLike(draft, {random_.Between(2, 4), random_.Between(1, 3)}, RandomDtype());
  }
  const Info info = draft.values[table];
  const int indices = IndicesBelow(draft, info.sizes[0]);
  if (draft.values[indices].sizes[0] * info.sizes[1] > kMaxElements) return;
  const Op op = sparse && info.table ? Op::kSparseEmbedding : Op::kEmbedding;
  Add(draft, op, {table, indices}, {}, {Like({draft.values[indices].sizes[0], info.sizes[1]}, info.dtype)},
      Bound(draft, table));
}

void OperationWriter::AddInPlace(Draft& draft) {
  const int self = Pick(draft, [&](const Info& info) {
    return info.IsFloat() && info.sizes.size() > 0 && builder_.MayChangeInPlace(info);
  });
  if (self < 0) return;
  const Info info = draft.values[self];
  const double x = Bound(draft, self);
  const int other = Pick(draft, [&](const Info& candidate) {
    const auto sizes = Broadcast(candidate.sizes, info.sizes);
    return candidate.IsFloat() && candidate.memory != info.memory && sizes && *sizes == info.sizes;
  });
  const double y = other < 0 ? 0 : Bound(draft, other);
  switch (random_.Below(7)) {
    case 0:
    case 1:
      if (other >= 0 && x + y <= 16) Add(draft, Op::kAddInPlace, {self, other}, {}, {}, x + y);
      return;
    case 2:
      if (other >= 0 && x * y <= 16) Add(draft, Op::kMulInPlace, {self, other}, {}, {}, x * y);
      return;
    case 3:
      if (other >= 0) Add(draft, Op::kCopyInPlace, {self, other}, {}, {}, y);
      return;
    case 4:
      Add(draft, Op::kMulScalarInPlace, {self}, {}, {}, x, -0.75);
      return;
    case 5:
      Add(draft, Op::kTanhInPlace, {self}, {}, {}, 1);
      return;
    default:
      if (random_.Chance(0.3)) Add(draft, Op::kZeroInPlace, {self}, {}, {}, 0);
      return;
  }
}

void OperationWriter::AddDetach(Draft& draft) {
  const int a = PickFloat(draft);
  Add(draft, Op::kDetach, {a}, {}, {Like(draft.values[a].sizes, draft.values[a].dtype)}, 1);
}

void OperationWriter::AddOperation(Draft& draft) {
  const int64_t kind = random_.Below(100);
  if (kind < 10) return AddSource(draft);
  if (kind < 30) return AddElementwise(draft);
  if (kind < 42) return AddUnary(draft);
  if (kind < 49) return AddMatmul(draft);
  if (kind < 56) return AddReduction(draft);
  if (kind < 69) return AddView(draft);
  if (kind < 75) return AddSplit(draft);
  if (kind < 80) return AddJoin(draft);
  if (kind < 83) return AddIndexSelect(draft);
  if (kind < 88) return AddEmbedding(draft);
  if (kind < 98) return AddInPlace(draft);
  return AddDetach(draft);
}

}  // namespace gradferry::property
