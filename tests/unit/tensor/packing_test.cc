// Tensors through bytes and back: every form, layout and dtype arrives as it left, sends its elements and nothing
// else, and a description that lies is refused before or after its bytes arrive.
#include "impl/tensor/packing.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

namespace gradferry {
namespace {

using Bytes = std::vector<std::vector<char>>;

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();

const at::ScalarType kAllDtypes[] = {at::kByte,         at::kChar,          at::kShort, at::kInt,
                                     at::kLong,         at::kHalf,          at::kFloat, at::kDouble,
                                     at::kComplexFloat, at::kComplexDouble, at::kBool,  at::kBFloat16};

// What travels: the description and the bytes of the parts.
struct Sent {
  TensorDescription description;
  Bytes bytes;
};

Sent Send(const at::Tensor& tensor) {
  Result<PackedTensor> packed = Pack(tensor);
  EXPECT_TRUE(packed.ok()) << packed.status().ToString();
  Sent sent{packed->description, {}};
  for (const TensorPart& part : packed->parts) {
    const char* data = static_cast<const char*>(part.data);
    sent.bytes.emplace_back(data, data + part.length);
  }
  return sent;
}

Result<at::Tensor> Receive(const Sent& sent) {
  Result<Unpacker> unpacker = Unpacker::New(sent.description);
  if (!unpacker.ok()) return unpacker.status();
  EXPECT_EQ(unpacker->parts().size(), sent.bytes.size());
  for (size_t i = 0; i < sent.bytes.size(); ++i) {
    TensorPart& part = unpacker->parts()[i];
    EXPECT_EQ(part.length, sent.bytes[i].size());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(part.data) % 64, 0u);
    if (part.length > 0) std::memcpy(part.data, sent.bytes[i].data(), part.length);
  }
  return std::move(*unpacker).Finish();
}

at::Tensor RoundTrip(const at::Tensor& tensor) {
  Result<at::Tensor> received = Receive(Send(tensor));
  EXPECT_TRUE(received.ok()) << received.status().ToString();
  return *received;
}

uint64_t BytesSent(const at::Tensor& tensor) {
  uint64_t total = 0;
  for (const std::vector<char>& part : Send(tensor).bytes) total += part.size();
  return total;
}

at::Tensor Values(at::IntArrayRef sizes, at::ScalarType dtype) {
  int64_t numel = 1;
  for (int64_t size : sizes) numel *= size;
  if (at::isComplexType(dtype)) {
    return at::complex(at::arange(numel, at::kDouble), at::arange(numel, at::kDouble) - 3).to(dtype).reshape(sizes);
  }
  return (at::arange(numel) % 5).to(dtype).reshape(sizes);
}

void ExpectSameValues(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_EQ(actual.scalar_type(), expected.scalar_type());
  EXPECT_EQ(actual.sizes(), expected.sizes());
  EXPECT_TRUE(at::equal(actual, expected)) << actual << "\nis not\n" << expected;
}

std::string Refusal(const TensorDescription& description) {
  const Status status = PartLengths(description).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << status.ToString();
  EXPECT_EQ(Unpacker::New(description).status().message(), status.message());
  return status.message();
}

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(Contains, text, part)

// ---- Dense ----

TEST(DensePacking, EveryDtypeArrivesAsItLeft) {
  for (at::ScalarType dtype : kAllDtypes) {
    const at::Tensor tensor = Values({2, 3}, dtype);
    ExpectSameValues(RoundTrip(tensor), tensor);
    EXPECT_EQ(BytesSent(tensor), 6 * tensor.element_size());
  }
}

TEST(DensePacking, TheBitsOfFloatsArriveUnchanged) {
  const at::Tensor tensor = at::tensor({std::nan(""), -0.0, HUGE_VAL, 5e-324}, at::kDouble);
  const at::Tensor received = RoundTrip(tensor);
  EXPECT_EQ(std::memcmp(received.data_ptr(), tensor.data_ptr(), 32), 0);
}

TEST(DensePacking, AScalarHasNoDimensionsAndOneElement) {
  const at::Tensor tensor = at::scalar_tensor(2.5);
  const at::Tensor received = RoundTrip(tensor);
  EXPECT_EQ(received.dim(), 0);
  EXPECT_EQ(received.item<double>(), 2.5);
}

TEST(DensePacking, TensorsWithoutElementsSendNothing) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{0}, {3, 0, 2}, {0, 5}}) {
    const at::Tensor tensor = at::empty(sizes, at::kLong);
    EXPECT_EQ(BytesSent(tensor), 0u);
    ExpectSameValues(RoundTrip(tensor), tensor);
  }
  const at::Tensor expanded = at::empty({1, 0}).expand({4, 0});
  ExpectSameValues(RoundTrip(expanded), expanded);
  const at::Tensor transposed = at::empty({3, 0}).t();
  ExpectSameValues(RoundTrip(transposed), transposed);
}

TEST(DensePacking, AViewSendsItsElementsAndNotItsStorage) {
  const at::Tensor storage = at::arange(1 << 20);
  const at::Tensor view = storage.slice(0, 1000, 1128);
  EXPECT_EQ(BytesSent(view), 128 * 8u);
  ExpectSameValues(RoundTrip(view), view);
  EXPECT_EQ(Pack(view)->parts[0].data, view.data_ptr());
}

TEST(DensePacking, StridedViewsArePacked) {
  const at::Tensor storage = Values({8, 8, 8}, at::kFloat);
  const at::Tensor steps = storage.slice(2, 0, 8, 3).slice(0, 1, 7, 2);
  EXPECT_EQ(BytesSent(steps), 3 * 8 * 3 * 4u);
  ExpectSameValues(RoundTrip(steps), steps);
  const at::Tensor diagonal = storage.diagonal(0, 0, 1);
  ExpectSameValues(RoundTrip(diagonal), diagonal);
}

TEST(DensePacking, OverlappingViewsArePacked) {
  const at::Tensor windows = at::arange(10, at::kDouble).as_strided({4, 3}, {2, 1});
  EXPECT_EQ(BytesSent(windows), 12 * 8u);
  ExpectSameValues(RoundTrip(windows), windows);
}

TEST(DensePacking, TransposedTensorsKeepTheirOrderWithoutACopy) {
  const at::Tensor tensor = Values({2, 3, 4}, at::kDouble).permute({2, 0, 1});
  Result<PackedTensor> packed = Pack(tensor);
  EXPECT_EQ(packed->parts[0].data, tensor.data_ptr());
  EXPECT_EQ(packed->description.order, (std::vector<uint8_t>{1, 2, 0}));
  const at::Tensor received = RoundTrip(tensor);
  ExpectSameValues(received, tensor);
  EXPECT_EQ(received.strides(), tensor.strides());
}

TEST(DensePacking, StridesThatAreNeverWalkedNeedNoCopy) {
  const at::Tensor tensor = at::arange(6, at::kDouble).as_strided({2, 1, 3}, {1, 50, 2});
  EXPECT_EQ(Pack(tensor)->parts[0].data, tensor.data_ptr());
  ExpectSameValues(RoundTrip(tensor), tensor);
}

TEST(DensePacking, ChannelsLastStaysChannelsLast) {
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{2, 3, 4, 5}, {2, 3, 1, 1}, {1, 1, 4, 5}}) {
    const at::Tensor tensor = Values(sizes, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast);
    const at::Tensor received = RoundTrip(tensor);
    ExpectSameValues(received, tensor);
    EXPECT_EQ(received.suggest_memory_format(), tensor.suggest_memory_format());
    EXPECT_TRUE(received.is_contiguous(at::MemoryFormat::ChannelsLast));
  }
}

TEST(DensePacking, DimensionsOfSize1KeepTheirStrides) {
  for (const at::Tensor& tensor :
       {Values({2, 1, 3, 4}, at::kFloat).contiguous(at::MemoryFormat::ChannelsLast).clone(at::MemoryFormat::Preserve),
        Values({2, 12}, at::kFloat).as_strided({2, 1, 3, 4}, {12, 1, 4, 1}), Values({3, 1}, at::kFloat).t(),
        Values({1, 3, 1}, at::kFloat).permute({2, 1, 0})}) {
    const at::Tensor received = RoundTrip(tensor);
    ExpectSameValues(received, tensor);
    EXPECT_EQ(received.strides(), tensor.strides()) << tensor.sizes();
  }
}

TEST(DensePacking, RowMajorTensorsNeedNoOrder) {
  EXPECT_TRUE(Pack(at::ones({2, 3}))->description.order.empty());
  EXPECT_TRUE(Pack(at::ones({2, 1, 3}))->description.order.empty());
  EXPECT_TRUE(Pack(at::ones({3}).expand({2, 3}))->description.order.empty());
}

TEST(DensePacking, AnExpandedDimensionSendsOneElement) {
  const at::Tensor tensor = Values({3, 1}, at::kFloat).expand({3, 1 << 20});
  EXPECT_EQ(BytesSent(tensor), 12u);
  const at::Tensor received = RoundTrip(tensor);
  ExpectSameValues(received, tensor);
  EXPECT_EQ(received.strides(), tensor.strides());
  EXPECT_EQ(received.storage().nbytes(), 12u);
}

TEST(DensePacking, ExpandedAndPermutedAndSteppedAtOnce) {
  const at::Tensor base = Values({4, 1, 6, 2}, at::kLong);
  const at::Tensor dense = base.expand({4, 5, 6, 2}).permute({3, 1, 0, 2});
  const at::Tensor received = RoundTrip(dense);
  ExpectSameValues(received, dense);
  EXPECT_EQ(received.strides(), dense.strides());
  EXPECT_EQ(Pack(dense)->parts[0].data, dense.data_ptr());
  const at::Tensor stepped = base.slice(2, 0, 6, 2).expand({4, 5, 3, 2}).permute({3, 1, 0, 2});
  EXPECT_EQ(BytesSent(stepped), 4 * 3 * 2 * 8u);
  ExpectSameValues(RoundTrip(stepped), stepped);
}

TEST(DensePacking, LazyConjugatesAndNegativesAreResolved) {
  const at::Tensor tensor = Values({2, 3}, at::kComplexDouble);
  for (const at::Tensor& lazy : {tensor.conj(), tensor.conj().t(), at::imag(tensor.conj()),
                                 tensor.slice(1, 0, 1).expand({2, 3}).conj(), tensor.conj()._neg_view()}) {
    ASSERT_TRUE(lazy.is_conj() || lazy.is_neg());
    const at::Tensor received = RoundTrip(lazy);
    EXPECT_FALSE(received.is_conj() || received.is_neg());
    ExpectSameValues(received, lazy.resolve_conj().resolve_neg());
  }
  EXPECT_EQ(BytesSent(tensor.slice(1, 0, 1).expand({2, 3}).conj()), 2 * 16u);
}

TEST(DensePacking, LazyZerosAreMadeReal) {
  ExpectSameValues(RoundTrip(at::_efficientzerotensor({2, 3}, at::kFloat)), at::zeros({2, 3}));
}

TEST(DensePacking, WhatArrivesSharesNothing) {
  const at::Tensor tensor = at::ones({4});
  const Sent sent = Send(tensor);
  const at::Tensor first = *Receive(sent);
  const at::Tensor second = *Receive(sent);
  first.fill_(9);
  ExpectSameValues(tensor, at::ones({4}));
  ExpectSameValues(second, at::ones({4}));
}

TEST(DensePacking, WhatArrivesIsALeafWithoutGrad) {
  const at::Tensor tensor = (at::ones({4}).requires_grad_() * 2).t();
  ASSERT_TRUE(tensor.requires_grad());
  at::Tensor received = RoundTrip(tensor);
  EXPECT_FALSE(received.requires_grad());
  EXPECT_TRUE(received.is_leaf());
  EXPECT_FALSE(received.is_view());
  EXPECT_NO_THROW(received.requires_grad_());
}

TEST(DensePacking, BytesUnderWayDoNotKeepTheGraphAlive) {
  const at::Tensor tensor = at::ones({4}).requires_grad_() * 2;
  const Result<PackedTensor> packed = Pack(tensor);
  EXPECT_EQ(packed->parts[0].owner.grad_fn(), nullptr);
  EXPECT_EQ(packed->parts[0].data, tensor.data_ptr());
}

TEST(DensePacking, TheOwnerKeepsTheBytesAlive) {
  Result<PackedTensor> packed = Pack(at::full({3}, 5, at::kLong));
  EXPECT_EQ(packed->parts[0].owner.use_count(), 1u);
  EXPECT_EQ(static_cast<int64_t*>(packed->parts[0].data)[2], 5);
}

TEST(DensePacking, InferenceModeOfTheThreadDoesNotLeakIn) {
  c10::InferenceMode inference;
  const at::Tensor received = RoundTrip(at::ones({2}));
  EXPECT_FALSE(received.is_inference());
}

TEST(DensePacking, BoolsThatAreNeitherZeroNorOneAreMadeOne) {
  Sent sent = Send(at::zeros({3}, at::kBool));
  sent.bytes[0] = {0, 1, 7};
  const at::Tensor received = *Receive(sent);
  EXPECT_EQ(static_cast<const uint8_t*>(received.data_ptr())[2], 1);
  EXPECT_EQ(received.sum().item<int64_t>(), 2);
}

TEST(DensePacking, SixtyFourDimensionsWork) {
  std::vector<int64_t> sizes(64, 1);
  sizes[0] = 2;
  sizes[63] = 3;
  const at::Tensor tensor = Values({2, 1}, at::kFloat).expand({2, 3}).reshape({2, 3}).view(sizes);
  ExpectSameValues(RoundTrip(tensor), tensor);
  std::vector<int64_t> strides(64, 1);
  strides[63] = 0;
  const at::Tensor expanded = at::arange(2, at::kFloat).as_strided(sizes, strides);
  EXPECT_EQ(Pack(expanded)->description.expanded, uint64_t{1} << 63);
  ExpectSameValues(RoundTrip(expanded), expanded);
}

// ---- No tensor ----

TEST(UndefinedPacking, NoTensorArrivesAsNoTensor) {
  const Sent sent = Send(at::Tensor());
  EXPECT_EQ(sent.description.form, TensorForm::kUndefined);
  EXPECT_TRUE(sent.bytes.empty());
  EXPECT_FALSE(Receive(sent)->defined());
}

// ---- Sparse ----

void ExpectSameSparse(const at::Tensor& tensor) {
  const at::Tensor received = RoundTrip(tensor);
  EXPECT_TRUE(received.is_sparse());
  EXPECT_EQ(received.sizes(), tensor.sizes());
  EXPECT_EQ(received.is_coalesced(), tensor.is_coalesced());
  EXPECT_EQ(received.sparse_dim(), tensor.sparse_dim());
  EXPECT_EQ(received._nnz(), tensor._nnz());
  EXPECT_TRUE(at::equal(received._indices(), tensor._indices()));
  EXPECT_TRUE(at::equal(received._values(), tensor._values().resolve_conj()));
}

at::Tensor Sparse(const at::Tensor& indices, const at::Tensor& values, at::IntArrayRef sizes) {
  return at::sparse_coo_tensor(indices, values, sizes);
}

at::Tensor Indices(std::vector<int64_t> flat, int64_t rows) {
  return at::tensor(flat, at::kLong).reshape({rows, static_cast<int64_t>(flat.size()) / std::max<int64_t>(rows, 1)});
}

TEST(SparsePacking, UncoalescedAndCoalescedArriveAsTheyLeft) {
  const at::Tensor tensor = Sparse(Indices({2, 0, 2, 1, 1, 1}, 2), at::tensor({1., 2., 3.}, at::kDouble), {3, 4});
  ASSERT_FALSE(tensor.is_coalesced());
  ExpectSameSparse(tensor);
  ExpectSameSparse(tensor.coalesce());
}

TEST(SparsePacking, HybridTensorsKeepTheirDenseDimensions) {
  ExpectSameSparse(Sparse(Indices({2, 0, 2}, 1), Values({3, 2, 5}, at::kFloat), {4, 2, 5}));
  ExpectSameSparse(Sparse(Indices({2, 0, 2}, 1), Values({3, 2, 1}, at::kFloat).expand({3, 2, 5}), {4, 2, 5}));
  ExpectSameSparse(Sparse(Indices({2, 0}, 1), Values({3, 2}, at::kFloat).t(), {4, 3}));
}

TEST(SparsePacking, NothingSpecifiedIsATensorToo) {
  ExpectSameSparse(at::zeros({3, 4}).to_sparse());
  ExpectSameSparse(at::zeros({0, 4}).to_sparse());
  ExpectSameSparse(Sparse(Indices({}, 2), at::empty({0, 0}), {3, 4, 0}));
}

TEST(SparsePacking, ASparseTensorWithoutSparseDimensions) {
  ExpectSameSparse(Sparse(at::empty({0, 1}, at::kLong), at::ones({1}), {}));
  ExpectSameSparse(Sparse(at::empty({0, 2}, at::kLong), at::ones({2, 3}), {3}));
}

TEST(SparsePacking, EveryDtypeArrivesAsItLeft) {
  for (at::ScalarType dtype : kAllDtypes) ExpectSameSparse(Sparse(Indices({3, 1}, 1), Values({2, 3}, dtype), {4, 3}));
}

TEST(SparsePacking, ViewsOfValuesSendTheirElementsOnly) {
  const at::Tensor values = Values({1000, 1000}, at::kFloat);
  const at::Tensor tensor = Sparse(Indices({1, 3}, 1), values.slice(0, 0, 2).slice(1, 0, 3), {4, 3});
  EXPECT_EQ(BytesSent(tensor), 2 * 8u + 6 * 4u);
  ExpectSameSparse(tensor);
}

TEST(SparsePacking, AGradientOfAnEmbeddingArrives) {
  const at::Tensor weight = at::ones({10, 3}).requires_grad_();
  at::embedding(weight, Indices({4, 4, 1}, 1).reshape({3}), -1, false, /*sparse=*/true).sum().backward();
  ASSERT_TRUE(weight.grad().is_sparse());
  ExpectSameSparse(weight.grad());
}

TEST(SparsePacking, ASparseTensorThatRequiresGradArrivesWithoutIt) {
  const at::Tensor tensor = at::eye(3).to_sparse().requires_grad_();
  const at::Tensor received = RoundTrip(tensor);
  EXPECT_FALSE(received.requires_grad());
  EXPECT_TRUE(received.is_leaf());
}

TEST(SparsePacking, IndicesOutOfRangeAreRefused) {
  for (int64_t index : {int64_t{-1}, int64_t{4}, kHuge, -kHuge}) {
    Sent sent = Send(Sparse(Indices({0, 3}, 1), at::ones({2}), {4}));
    std::memcpy(sent.bytes[0].data() + 8, &index, 8);
    const Result<at::Tensor> received = Receive(sent);
    EXPECT_EQ(received.status().code(), Code::kInvalidArgument);
    EXPECT_CONTAINS(received.status().message(), "index " + std::to_string(index) + " in sparse dimension 0 of size 4");
  }
}

TEST(SparsePacking, EveryRowOfTheIndicesIsChecked) {
  Sent sent = Send(Sparse(Indices({0, 3, 1, 1}, 2), at::ones({2}), {4, 2}));
  const int64_t index = 2;
  std::memcpy(sent.bytes[0].data() + 3 * 8, &index, 8);
  EXPECT_CONTAINS(Receive(sent).status().message(), "index 2 in sparse dimension 1 of size 2");
}

TEST(SparsePacking, AFalseClaimToBeCoalescedIsRefused) {
  for (const std::vector<int64_t>& indices :
       {std::vector<int64_t>{2, 1, 0, 0}, {1, 1, 2, 2}, {1, 1, 2, 0}, {2, 1, 0, 1}}) {
    Sent sent = Send(Sparse(Indices(indices, 2), at::ones({2}), {3, 3}));
    sent.description.coalesced = true;
    EXPECT_CONTAINS(Receive(sent).status().message(),
                    "claims to be coalesced, but its indices do not rise at element 1");
  }
}

// ---- What cannot be sent ----

void ExpectUnsupported(const at::Tensor& tensor, const std::string& text) {
  const Status status = Pack(tensor).status();
  EXPECT_EQ(status.code(), Code::kUnsupported);
  EXPECT_CONTAINS(status.message(), text);
}

TEST(Packing, WhatCannotBeSentIsNamed) {
  ExpectUnsupported(at::empty({2}, at::TensorOptions().device(at::kMeta)), "not on the CPU: float32[2] on meta");
  ExpectUnsupported(at::eye(2).to_sparse_csr(), "of this layout: float32[2, 2], sparse_csr");
  ExpectUnsupported(at::quantize_per_tensor(at::ones({2}), 0.1, 0, at::kQInt8), "quantized: qint8[2]");
  ExpectUnsupported(at::ones({2}).to(at::kComplexHalf), "of this dtype: complexhalf[2]");
  ExpectUnsupported(at::ones({1}).view(std::vector<int64_t>(65, 1)), "more than 64 dimensions");
  ExpectUnsupported(at::_nested_tensor_from_mask(at::ones({1, 2, 3}), at::ones({1, 2}, at::kBool)), "nested");
}

// ---- Hostile descriptions ----

TensorDescription Dense(std::vector<int64_t> sizes) {
  TensorDescription description;
  description.form = TensorForm::kDense;
  description.sizes = std::move(sizes);
  return description;
}

TensorDescription SparseCoo(std::vector<int64_t> sizes, int64_t sparse_dim, int64_t nnz) {
  TensorDescription description;
  description.form = TensorForm::kSparseCoo;
  description.sizes = std::move(sizes);
  description.sparse_dim = sparse_dim;
  description.nnz = nnz;
  return description;
}

TEST(HostileDescription, SizesThatAreNegativeOrMultiplyBeyondTheRangeAreRefused) {
  EXPECT_CONTAINS(Refusal(Dense({3, -1})), "dimension 1 has size -1");
  EXPECT_CONTAINS(Refusal(Dense({kHuge})), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(Dense({int64_t{1} << 32, int64_t{1} << 32})), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(Dense({int64_t{1} << 61})), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(Dense({0, kHuge, kHuge})), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(Dense(std::vector<int64_t>(65, 1))), "65 dimensions");
}

TEST(HostileDescription, ExpandedSizesMustBeRepresentableToo) {
  TensorDescription description = Dense({int64_t{1} << 40, int64_t{1} << 40});
  description.expanded = 3;
  EXPECT_CONTAINS(Refusal(description), "more than 2^63 bytes");
}

TEST(HostileDescription, AnOrderThatIsNoPermutationIsRefused) {
  TensorDescription description = Dense({2, 3});
  description.order = {0};
  EXPECT_CONTAINS(Refusal(description), "an order of 1 dimensions for 2");
  description.order = {0, 2};
  EXPECT_CONTAINS(Refusal(description), "names dimension 2 of 2");
  description.order = {1, 1};
  EXPECT_CONTAINS(Refusal(description), "names dimension 1 twice");
  description.order = {1, 255};
  EXPECT_CONTAINS(Refusal(description), "names dimension 255 of 2");
}

TEST(HostileDescription, ExpandedBitsMustBelongToDimensions) {
  TensorDescription description = Dense({2, 1});
  description.expanded = 4;
  EXPECT_CONTAINS(Refusal(description), "beyond its 2 dimensions");
  description.expanded = 2;
  EXPECT_CONTAINS(Refusal(description), "dimension 1 of size 1 is marked as expanded");
  description = Dense(std::vector<int64_t>(64, 1));
  description.expanded = uint64_t{1} << 63;
  EXPECT_CONTAINS(Refusal(description), "dimension 63 of size 1 is marked as expanded");
}

TEST(HostileDescription, UnknownNumbersAreRefused) {
  TensorDescription description = Dense({2});
  description.dtype = static_cast<c10::ScalarType>(99);
  EXPECT_CONTAINS(Refusal(description), "dtype 99 is not known");
  description.dtype = c10::ScalarType::QInt8;
  EXPECT_CONTAINS(Refusal(description), "is not known");
  description = Dense({2});
  description.form = static_cast<TensorForm>(7);
  EXPECT_CONTAINS(Refusal(description), "form 7 is not known");
}

TEST(HostileDescription, SparseCountsAreChecked) {
  EXPECT_CONTAINS(Refusal(SparseCoo({3}, 1, -1)), "-1 specified elements");
  EXPECT_CONTAINS(Refusal(SparseCoo({3}, 2, 0)), "2 sparse dimensions of 1");
  EXPECT_CONTAINS(Refusal(SparseCoo({3}, -1, 0)), "-1 sparse dimensions of 1");
  EXPECT_CONTAINS(Refusal(SparseCoo({3}, 1, kHuge)), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(SparseCoo({3, int64_t{1} << 40}, 1, int64_t{1} << 30)), "more than 2^63 bytes");
  EXPECT_CONTAINS(Refusal(SparseCoo({0}, 0, int64_t{1} << 40)), "elements of no bytes");
  EXPECT_CONTAINS(Refusal(SparseCoo({-3}, 1, 0)), "dimension 0 has size -3");
  TensorDescription ordered = SparseCoo({3, 2}, 1, 0);
  ordered.order = {1, 0};
  EXPECT_CONTAINS(Refusal(ordered), "a sparse tensor with an order");
}

TEST(HostileDescription, MoreMemoryThanThereIsIsAnError) {
  const Status status = Unpacker::New(Dense({int64_t{1} << 58})).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted) << status.ToString();
}

TEST(PartLengths, CountTheBytesThatTravel) {
  EXPECT_EQ(*PartLengths(TensorDescription{}), std::vector<uint64_t>{});
  EXPECT_EQ(*PartLengths(Dense({})), std::vector<uint64_t>{4});
  EXPECT_EQ(*PartLengths(Dense({2, 3})), std::vector<uint64_t>{24});
  TensorDescription expanded = Dense({2, int64_t{1} << 40});
  expanded.expanded = 2;
  EXPECT_EQ(*PartLengths(expanded), std::vector<uint64_t>{8});
  EXPECT_EQ(*PartLengths(SparseCoo({10, 10, 3}, 2, 5)), (std::vector<uint64_t>{2 * 5 * 8, 5 * 3 * 4}));
}

// ---- Dtype numbers ----

TEST(WireDtypes, NumbersAreFixedAndGoBothWays) {
  const uint8_t numbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 15};
  for (size_t i = 0; i < std::size(kAllDtypes); ++i) {
    EXPECT_EQ(*DtypeToWire(kAllDtypes[i]), numbers[i]);
    EXPECT_EQ(*DtypeFromWire(numbers[i]), kAllDtypes[i]);
  }
}

TEST(WireDtypes, OthersAreRefused) {
  EXPECT_EQ(DtypeToWire(at::kQInt8).status().code(), Code::kUnsupported);
  for (int number : {8, 12, 13, 14, 16, 255}) {
    EXPECT_EQ(DtypeFromWire(static_cast<uint8_t>(number)).status().code(), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace gradferry
