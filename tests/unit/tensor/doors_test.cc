// The four doors: what comes in shares memory and is given back exactly once, what is wrong is refused without taking
// anything over, and at::Tensors of another libtorch do not get in.
#include "impl/tensor/doors.h"

#include <ATen/ATen.h>
#include <ATen/DLConvertor.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <limits>
#include <thread>

namespace gradferry {
namespace {

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
constexpr dlpack::DataType kFloat32{2, 32, 1};
constexpr dlpack::DataType kInt64{0, 64, 1};

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(Contains, text, part)

void ExpectRefused(const Status& status, Code code, const std::string& text) {
  EXPECT_EQ(status.code(), code) << status.ToString();
  EXPECT_CONTAINS(status.message(), text);
}

// ---- Dtypes ----

TEST(DlTypes, GoBothWays) {
  const std::pair<at::ScalarType, dlpack::DataType> pairs[] = {
      {at::kByte, {1, 8, 1}},
      {at::kChar, {0, 8, 1}},
      {at::kShort, {0, 16, 1}},
      {at::kInt, {0, 32, 1}},
      {at::kLong, {0, 64, 1}},
      {at::kHalf, {2, 16, 1}},
      {at::kFloat, {2, 32, 1}},
      {at::kDouble, {2, 64, 1}},
      {at::kBFloat16, {4, 16, 1}},
      {at::kComplexFloat, {5, 64, 1}},
      {at::kComplexDouble, {5, 128, 1}},
      {at::kBool, {6, 8, 1}},
  };
  for (const auto& [type, triple] : pairs) {
    EXPECT_EQ(*ScalarTypeOf(triple), type);
    const dlpack::DataType back = *DlTypeOf(type);
    EXPECT_EQ(back.code, triple.code);
    EXPECT_EQ(back.bits, triple.bits);
    EXPECT_EQ(back.lanes, 1);
  }
  EXPECT_EQ(*ScalarTypeOf({2, 32, 0}), at::kFloat);
}

TEST(DlTypes, OthersAreRefused) {
  ExpectRefused(ScalarTypeOf({2, 32, 4}).status(), Code::kUnsupported, "code 2, 32 bits and 4 lanes");
  ExpectRefused(ScalarTypeOf({1, 64, 1}).status(), Code::kUnsupported, "code 1, 64 bits");
  ExpectRefused(ScalarTypeOf({3, 64, 1}).status(), Code::kUnsupported, "code 3");
  ExpectRefused(DlTypeOf(at::kQInt8).status(), Code::kUnsupported, "QInt8");
}

// ---- Memory ----

struct Lender {
  int given_back = 0;
  std::thread::id thread;
  uintptr_t token() { return reinterpret_cast<uintptr_t>(this); }
  static void GiveBack(uintptr_t token) {
    auto* lender = reinterpret_cast<Lender*>(token);
    ++lender->given_back;
    lender->thread = std::this_thread::get_id();
  }
};

struct MemoryDoor : testing::Test {
  Memory Floats(c10::IntArrayRef sizes, const int64_t* strides = nullptr) {
    Memory memory;
    memory.dtype = kFloat32;
    memory.data = data;
    memory.sizes = sizes;
    memory.strides = strides;
    memory.deleter = &Lender::GiveBack;
    memory.deleter_token = lender.token();
    return memory;
  }
  void ExpectRefusal(const Memory& memory, Code code, const std::string& text) {
    ExpectRefused(FromMemory(memory).status(), code, text);
    EXPECT_EQ(lender.given_back, 0);
  }

  alignas(64) float data[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  Lender lender;
};

TEST_F(MemoryDoor, SharesTheMemory) {
  const std::vector<int64_t> sizes{3, 4};
  const at::Tensor tensor = *FromMemory(Floats(sizes));
  EXPECT_EQ(tensor.data_ptr(), data);
  EXPECT_TRUE(at::equal(tensor, at::arange(12, at::kFloat).reshape({3, 4})));
  data[5] = 50;
  EXPECT_EQ(tensor[1][1].item<float>(), 50);
}

TEST_F(MemoryDoor, TakesStrides) {
  const std::vector<int64_t> sizes{4, 3}, strides{1, 4}, zero{0, 1};
  EXPECT_TRUE(at::equal(*FromMemory(Floats(sizes, strides.data())), at::arange(12, at::kFloat).reshape({3, 4}).t()));
  EXPECT_TRUE(at::equal(*FromMemory(Floats(sizes, zero.data())), at::arange(3, at::kFloat).expand({4, 3})));
}

TEST_F(MemoryDoor, GivesBackOnceWhenTheLastUserIsGone) {
  const std::vector<int64_t> sizes{12};
  at::Tensor view;
  {
    const at::Tensor tensor = *FromMemory(Floats(sizes));
    view = tensor.slice(0, 3, 5);
  }
  EXPECT_EQ(lender.given_back, 0);
  EXPECT_EQ(view.sum().item<float>(), 7);
  std::thread last([&] { view.reset(); });
  const std::thread::id id = last.get_id();
  last.join();
  EXPECT_EQ(lender.given_back, 1);
  EXPECT_EQ(lender.thread, id);
}

TEST_F(MemoryDoor, ATensorWithoutElementsIsGivenBackToo) {
  const std::vector<int64_t> sizes{3, 0};
  for (void* pointer : {static_cast<void*>(nullptr), static_cast<void*>(data)}) {
    Memory memory = Floats(sizes);
    memory.data = pointer;
    lender.given_back = 0;
    {
      const at::Tensor tensor = *FromMemory(memory);
      EXPECT_EQ(tensor.numel(), 0);
      EXPECT_EQ(lender.given_back, 0);
    }
    EXPECT_EQ(lender.given_back, 1);
  }
}

TEST_F(MemoryDoor, NoDeleterMeansNothingHappens) {
  Memory memory = Floats({});
  memory.deleter = nullptr;
  EXPECT_EQ(FromMemory(memory)->item<float>(), 0);
  EXPECT_EQ(lender.given_back, 0);
}

TEST_F(MemoryDoor, TheTensorIsALeafThatCanRequireGrad) {
  const std::vector<int64_t> sizes{12};
  c10::InferenceMode inference;  // of the caller's thread; must not matter
  at::Tensor tensor = *FromMemory(Floats(sizes));
  EXPECT_FALSE(tensor.is_inference());
  EXPECT_TRUE(tensor.is_leaf());
  EXPECT_TRUE(tensor.set_requires_grad(true).requires_grad());
}

TEST_F(MemoryDoor, WrongShapesAreRefused) {
  const std::vector<int64_t> negative{3, -4}, huge{kHuge, 2}, many(65, 1), sizes{3, 4}, one{1, 1};
  const std::vector<int64_t> down{-4, 1}, far{kHuge, 1}, wide{int64_t{1} << 60, 1};
  ExpectRefusal(Floats(negative), Code::kInvalidArgument, "dimension 1 of a tensor has the negative size -4");
  ExpectRefusal(Floats(huge), Code::kInvalidArgument, "beyond 2^63 bytes");
  ExpectRefusal(Floats(many), Code::kInvalidArgument, "65 dimensions");
  ExpectRefusal(Floats(sizes, down.data()), Code::kUnsupported, "negative stride -4");
  ExpectRefusal(Floats(sizes, far.data()), Code::kInvalidArgument, "beyond 2^63 bytes");
  ExpectRefusal(Floats(sizes, wide.data()), Code::kInvalidArgument, "beyond 2^63 bytes");
  EXPECT_TRUE(FromMemory(Floats(one, far.data())).ok()) << "a stride that is never walked is harmless";
}

TEST_F(MemoryDoor, WrongMemoryIsRefused) {
  const std::vector<int64_t> sizes{2};
  Memory memory = Floats(sizes);
  memory.data = nullptr;
  ExpectRefusal(memory, Code::kInvalidArgument, "with elements has no memory (NULL)");
  memory.data = reinterpret_cast<char*>(data) + 2;
  ExpectRefusal(memory, Code::kInvalidArgument, "not aligned to its elements of 4 bytes");
  memory.data = data;
  memory.dtype = {2, 32, 2};
  ExpectRefusal(memory, Code::kUnsupported, "2 lanes");
  memory.dtype = {5, 128, 1};
  memory.data = data + 2;
  ExpectRefusal(memory, Code::kInvalidArgument, "not aligned to its elements of 16 bytes");
}

// ---- Our own memory ----

TEST(EmptyTensor, IsContiguousAndWritable) {
  const at::Tensor tensor = *EmptyTensor(kInt64, {2, 3});
  EXPECT_EQ(tensor.scalar_type(), at::kLong);
  EXPECT_TRUE(tensor.is_contiguous());
  std::fill_n(static_cast<int64_t*>(tensor.data_ptr()), 6, 7);
  EXPECT_EQ(tensor.sum().item<int64_t>(), 42);
  EXPECT_EQ(EmptyTensor(kInt64, {})->dim(), 0);
  EXPECT_EQ(EmptyTensor(kInt64, {0})->numel(), 0);
}

TEST(EmptyTensor, WrongShapesAreRefused) {
  ExpectRefused(EmptyTensor(kInt64, {-1}).status(), Code::kInvalidArgument, "negative size -1");
  ExpectRefused(EmptyTensor(kInt64, {kHuge}).status(), Code::kInvalidArgument, "beyond 2^63 bytes");
  ExpectRefused(EmptyTensor({9, 64, 1}, {1}).status(), Code::kUnsupported, "code 9");
  ExpectRefused(EmptyTensor(kInt64, {int64_t{1} << 57}).status(), Code::kResourceExhausted, "allocate");
}

TEST(ReadElements, CopiesRowMajorWhateverTheStrides) {
  const at::Tensor tensor = at::arange(6, at::kInt).reshape({2, 3}).t().requires_grad_(false);
  int32_t out[6] = {};
  ASSERT_TRUE(ReadElements(tensor, out, sizeof(out)).ok());
  EXPECT_EQ(std::vector<int32_t>(out, out + 6), (std::vector<int32_t>{0, 3, 1, 4, 2, 5}));
}

TEST(ReadElements, ResolvesLazyBitsAndIgnoresTheGraph) {
  const at::Tensor tensor = at::complex(at::ones({1}, at::kDouble), at::ones({1}, at::kDouble)).requires_grad_();
  double out[2] = {};
  ASSERT_TRUE(ReadElements(tensor.conj(), out, sizeof(out)).ok());
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[1], -1);
}

TEST(ReadElements, TheSizeMustFit) {
  float out[2];
  ExpectRefused(ReadElements(at::ones({3}), out, sizeof(out)), Code::kInvalidArgument,
                "float32[3] needs a buffer of 12 bytes, got 8");
  ExpectRefused(ReadElements(at::ones({3}), nullptr, 12), Code::kInvalidArgument, "NULL");
  ExpectRefused(ReadElements(at::eye(2).to_sparse(), out, 16), Code::kUnsupported, "sparse_coo");
  ExpectRefused(ReadElements(at::Tensor(), out, 0), Code::kUnsupported, "undefined tensor");
  EXPECT_TRUE(ReadElements(at::empty({0}), nullptr, 0).ok());
}

// ---- DLPack in ----

template <class Managed>
struct DlpackDoor : testing::Test {
  DlpackDoor() {
    managed.manager_ctx = this;
    managed.deleter = [](Managed* self) { ++static_cast<DlpackDoor*>(self->manager_ctx)->deleted; };
    managed.dl_tensor.data = data;
    managed.dl_tensor.device = {dlpack::kCpu, 0};
    managed.dl_tensor.ndim = 2;
    managed.dl_tensor.dtype = kFloat32;
    managed.dl_tensor.shape = shape;
    if constexpr (std::is_same_v<Managed, dlpack::ManagedTensorVersioned>) managed.version = {1, 1};
  }
  Result<at::Tensor> Import() {
    if constexpr (std::is_same_v<Managed, dlpack::ManagedTensorVersioned>) {
      return FromDlpack(&managed);
    } else {
      return FromDlpackLegacy(&managed);
    }
  }
  void ExpectRefusal(Code code, const std::string& text) {
    ExpectRefused(Import().status(), code, text);
    EXPECT_EQ(deleted, 0);
  }

  alignas(64) float data[12] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
  int64_t shape[2] = {2, 3};
  int64_t strides[2] = {4, 1};
  Managed managed{};
  int deleted = 0;
};

using Layouts = testing::Types<dlpack::ManagedTensor, dlpack::ManagedTensorVersioned>;
TYPED_TEST_SUITE(DlpackDoor, Layouts);

TYPED_TEST(DlpackDoor, SharesTheMemoryAndDeletesOnce) {
  at::Tensor view;
  {
    const at::Tensor tensor = *this->Import();
    EXPECT_TRUE(at::equal(tensor, at::arange(6, at::kFloat).reshape({2, 3})));
    EXPECT_EQ(tensor.data_ptr(), this->data);
    view = tensor[1];
  }
  EXPECT_EQ(this->deleted, 0);
  view.reset();
  EXPECT_EQ(this->deleted, 1);
}

TYPED_TEST(DlpackDoor, TakesStridesAndOffset) {
  this->managed.dl_tensor.strides = this->strides;
  this->managed.dl_tensor.byte_offset = 4;
  const at::Tensor tensor = *this->Import();
  EXPECT_TRUE(at::equal(tensor, at::tensor({1.f, 2.f, 3.f, 5.f, 6.f, 7.f}).reshape({2, 3})));
}

TYPED_TEST(DlpackDoor, TakesScalarsAndNothing) {
  this->managed.dl_tensor.ndim = 0;
  this->managed.dl_tensor.shape = nullptr;
  EXPECT_EQ(this->Import()->dim(), 0);
  EXPECT_EQ(this->deleted, 1);
  this->managed.dl_tensor.ndim = 2;
  this->managed.dl_tensor.shape = this->shape;
  this->managed.dl_tensor.data = nullptr;
  this->managed.dl_tensor.byte_offset = 64;
  this->shape[1] = 0;
  EXPECT_EQ(this->Import()->numel(), 0);
  EXPECT_EQ(this->deleted, 2);
}

TYPED_TEST(DlpackDoor, NoDeleterIsAllowed) {
  this->managed.deleter = nullptr;
  EXPECT_EQ(this->Import()->numel(), 6);
}

TYPED_TEST(DlpackDoor, OtherDevicesAreNamed) {
  this->managed.dl_tensor.device.device_type = dlpack::kCuda;
  this->ExpectRefusal(Code::kUnsupported, "device of type 2 (CUDA)");
  this->managed.dl_tensor.device.device_type = 99;
  this->ExpectRefusal(Code::kUnsupported, "device of type 99 (unknown)");
}

TYPED_TEST(DlpackDoor, WhatIsWrongIsRefusedAndStaysTheCallers) {
  this->managed.dl_tensor.dtype.lanes = 4;
  this->ExpectRefusal(Code::kUnsupported, "4 lanes");
  this->managed.dl_tensor.dtype.lanes = 0;
  this->ExpectRefusal(Code::kUnsupported, "0 lanes");
  this->managed.dl_tensor.dtype = {3, 64, 1};
  this->ExpectRefusal(Code::kUnsupported, "code 3");
  this->managed.dl_tensor.dtype = kFloat32;
  this->managed.dl_tensor.ndim = -1;
  this->ExpectRefusal(Code::kInvalidArgument, "-1 dimensions");
  this->managed.dl_tensor.ndim = 65;
  std::vector<int64_t> many(65, 1);
  this->managed.dl_tensor.shape = many.data();
  this->ExpectRefusal(Code::kInvalidArgument, "65 dimensions");
  this->managed.dl_tensor.ndim = 2;
  this->managed.dl_tensor.shape = nullptr;
  this->ExpectRefusal(Code::kInvalidArgument, "without a shape");
  this->managed.dl_tensor.shape = this->shape;
  this->shape[0] = -2;
  this->ExpectRefusal(Code::kInvalidArgument, "negative size -2");
  this->shape[0] = 2;
  this->strides[0] = -4;
  this->managed.dl_tensor.strides = this->strides;
  this->ExpectRefusal(Code::kUnsupported, "negative stride -4");
  this->managed.dl_tensor.strides = nullptr;
  this->managed.dl_tensor.byte_offset = 3;
  this->ExpectRefusal(Code::kInvalidArgument, "not aligned");
  this->managed.dl_tensor.byte_offset = 64;
  this->managed.dl_tensor.data = nullptr;
  this->ExpectRefusal(Code::kInvalidArgument, "NULL");
}

using VersionedDlpackDoor = DlpackDoor<dlpack::ManagedTensorVersioned>;

TEST_F(VersionedDlpackDoor, AReadOnlyTensorIsCopiedAndGivenBackAtOnce) {
  managed.flags = dlpack::kFlagReadOnly;
  managed.dl_tensor.strides = strides;
  const at::Tensor tensor = *Import();
  EXPECT_EQ(deleted, 1);
  EXPECT_NE(tensor.data_ptr(), data);
  tensor.fill_(9);
  EXPECT_EQ(data[0], 0);
}

TEST_F(VersionedDlpackDoor, AReadOnlyTensorThatIsRefusedStaysTheCallers) {
  managed.flags = dlpack::kFlagReadOnly;
  managed.dl_tensor.data = nullptr;
  ExpectRefusal(Code::kInvalidArgument, "NULL");
}

TEST_F(VersionedDlpackDoor, AnotherMajorVersionIsRefusedUnread) {
  managed.version = {2, 0};
  managed.dl_tensor.shape = reinterpret_cast<int64_t*>(1);  // must not be followed
  ExpectRefusal(Code::kUnsupported, "version 2.0; version 1 is supported");
  managed.version = {0, 8};
  ExpectRefusal(Code::kUnsupported, "version 0.8");
}

TEST(Dlpack, NullIsRefused) {
  ExpectRefused(FromDlpack(nullptr).status(), Code::kInvalidArgument, "NULL");
  ExpectRefused(FromDlpackLegacy(nullptr).status(), Code::kInvalidArgument, "NULL");
}

TEST(Dlpack, OurLegacyLayoutIsTheOneThatLibtorchWrites) {
  const at::Tensor tensor = at::arange(6).reshape({2, 3}).t();
  const at::Tensor imported = *FromDlpackLegacy(reinterpret_cast<dlpack::ManagedTensor*>(at::toDLPack(tensor)));
  EXPECT_TRUE(at::equal(imported, tensor));
  EXPECT_EQ(imported.data_ptr(), tensor.data_ptr());
}

// ---- DLPack out ----

struct DeleteManaged {
  void operator()(dlpack::ManagedTensorVersioned* managed) const { managed->deleter(managed); }
};
using Exported = std::unique_ptr<dlpack::ManagedTensorVersioned, DeleteManaged>;

Exported Export(const at::Tensor& tensor) {
  Result<dlpack::ManagedTensorVersioned*> managed = ToDlpack(tensor);
  EXPECT_TRUE(managed.ok()) << managed.status().ToString();
  return Exported(*managed);
}

TEST(DlpackExport, DescribesTheTensor) {
  const at::Tensor tensor = at::arange(24).reshape({4, 6}).slice(1, 2, 5);
  const Exported managed = Export(tensor);
  EXPECT_EQ(managed->version.major, 1u);
  EXPECT_EQ(managed->version.minor, 0u);
  EXPECT_EQ(managed->flags, 0u);
  const dlpack::Tensor& view = managed->dl_tensor;
  EXPECT_EQ(static_cast<char*>(view.data) + view.byte_offset, tensor.data_ptr());
  EXPECT_EQ(view.device.device_type, dlpack::kCpu);
  EXPECT_EQ(view.device.device_id, 0);
  EXPECT_EQ(view.dtype.code, kInt64.code);
  EXPECT_EQ(view.dtype.bits, kInt64.bits);
  EXPECT_EQ(view.dtype.lanes, 1);
  EXPECT_EQ(std::vector<int64_t>(view.shape, view.shape + view.ndim), (std::vector<int64_t>{4, 3}));
  EXPECT_EQ(std::vector<int64_t>(view.strides, view.strides + view.ndim), (std::vector<int64_t>{6, 1}));
}

TEST(DlpackExport, KeepsTheMemoryUntilItsDeleterIsCalled) {
  at::Tensor tensor = at::full({3}, 5, at::kLong);
  const c10::weak_intrusive_ptr<c10::TensorImpl> watch(tensor.getIntrusivePtr());
  Exported managed = Export(tensor);
  tensor.reset();
  EXPECT_FALSE(watch.expired());
  EXPECT_EQ(static_cast<int64_t*>(managed->dl_tensor.data)[2], 5);
  managed.reset();
  EXPECT_TRUE(watch.expired());
}

TEST(DlpackExport, ComesBackAsItLeft) {
  for (const at::Tensor& tensor : {at::ones({2, 3}, at::kBool), at::ones({}, at::kBFloat16), at::empty({0, 3}),
                                   at::arange(6).reshape({2, 3}).t(), at::ones({1}).expand({3, 2})}) {
    Exported managed = Export(tensor);
    const at::Tensor back = *FromDlpack(managed.release());
    EXPECT_EQ(back.scalar_type(), tensor.scalar_type());
    EXPECT_TRUE(at::equal(back, tensor));
  }
}

TEST(DlpackExport, LazyBitsAreResolvedIntoACopy) {
  const at::Tensor tensor = at::complex(at::ones({2}, at::kDouble), at::ones({2}, at::kDouble)).conj();
  const Exported managed = Export(tensor);
  EXPECT_EQ(managed->flags, dlpack::kFlagIsCopied);
  EXPECT_EQ(static_cast<double*>(managed->dl_tensor.data)[1], -1);
  const Exported zeros = Export(at::_efficientzerotensor({2}, at::kFloat));
  EXPECT_EQ(static_cast<float*>(zeros->dl_tensor.data)[1], 0);
}

TEST(DlpackExport, WhatHasNoViewIsRefused) {
  ExpectRefused(ToDlpack(at::ones({2}).requires_grad_()).status(), Code::kFailedPrecondition, "detach it first");
  ExpectRefused(ToDlpack(at::eye(2).to_sparse()).status(), Code::kUnsupported, "not float32[2, 2], sparse_coo");
  ExpectRefused(ToDlpack(at::empty({2}, at::kMeta)).status(), Code::kUnsupported, "on meta");
  ExpectRefused(ToDlpack(at::quantize_per_tensor(at::ones({2}), 0.1, 0, at::kQInt8)).status(), Code::kUnsupported,
                "QInt8");
  ExpectRefused(ToDlpack(at::Tensor()).status(), Code::kInvalidArgument, "undefined");
  EXPECT_NE(Export(at::ones({2}).requires_grad_().detach()), nullptr);
}

// ---- at::Tensor ----

TEST(AtenDoor, TheVersionMustBeTheLoadedOne) {
  EXPECT_TRUE(CheckTorchVersion(LoadedTorchVersion()).ok());
  EXPECT_TRUE(CheckTorchVersion(LoadedTorchVersion() + "+cpu").ok());
  ExpectRefused(CheckTorchVersion("0.4.1"), Code::kFailedPrecondition,
                "libtorch 0.4.1 cannot be exchanged: libtorch " + LoadedTorchVersion() + " is loaded");
  ExpectRefused(CheckTorchVersion(""), Code::kFailedPrecondition, "(no version given)");
  const at::Tensor tensor = at::ones({2});
  ExpectRefused(CheckAten(&tensor, "0.4.1"), Code::kFailedPrecondition, "0.4.1");
  ExpectRefused(ToAten(tensor, "0.4.1").status(), Code::kFailedPrecondition, "0.4.1");
}

TEST(AtenDoor, CompiledAndLoadedVersionsAreKnown) {
  EXPECT_EQ(CompiledTorchVersion(), TORCH_VERSION);
  EXPECT_EQ(LoadedTorchVersion().substr(0, 2), CompiledTorchVersion().substr(0, 2));
}

TEST(AtenDoor, OurOwnTensorsOfAllKindsPass) {
  for (const at::Tensor& tensor : {at::ones({2}), at::eye(2).to_sparse(), at::eye(2).to_sparse_csr(), at::Tensor(),
                                   at::quantize_per_tensor(at::ones({2}), 0.1, 0, at::kQInt8)}) {
    EXPECT_TRUE(CheckAten(&tensor, TORCH_VERSION).ok()) << CheckAten(&tensor, TORCH_VERSION).ToString();
  }
}

// A TensorImpl whose virtual table is in this test program, as one of another libtorch's would be elsewhere.
struct ForeignImpl : c10::TensorImpl {
  ForeignImpl()
      : c10::TensorImpl(c10::DispatchKeySet(c10::DispatchKey::CPU), caffe2::TypeMeta::Make<float>(),
                        c10::Device(c10::kCPU)) {}
};

TEST(AtenDoor, ATensorOfAnotherLibraryIsRefused) {
  const at::Tensor tensor(c10::make_intrusive<ForeignImpl>());
  ExpectRefused(CheckAten(&tensor, TORCH_VERSION), Code::kFailedPrecondition, "not of the libtorch that this library");
  EXPECT_CONTAINS(CheckAten(&tensor, TORCH_VERSION).message(), "libc10");
}

TEST(AtenDoor, WhatIsNoTensorIsRefusedWhereThatCanBeSeen) {
  ExpectRefused(CheckAten(nullptr, TORCH_VERSION), Code::kInvalidArgument, "NULL");
  const at::Tensor tensor = at::ones({2});
  ExpectRefused(CheckAten(reinterpret_cast<const char*>(&tensor) + 1, TORCH_VERSION), Code::kInvalidArgument,
                "not aligned");
  const void* nothing = nullptr;
  ExpectRefused(CheckAten(&nothing, TORCH_VERSION), Code::kInvalidArgument, "holds no TensorImpl");
  void* zeros[4] = {};
  const void* not_an_object = zeros;
  ExpectRefused(CheckAten(&not_an_object, TORCH_VERSION), Code::kFailedPrecondition, "no loaded library");
  const at::Tensor undefined;
  ExpectRefused(FromAten(&undefined, TORCH_VERSION).status(), Code::kInvalidArgument, "undefined");
}

TEST(AtenDoor, BorrowingKeepsTheGraphAndLeavesTheCallersTensor) {
  const auto theirs = std::make_unique<at::Tensor>(at::ones({2}).requires_grad_() * 2);
  const at::Tensor ours = *FromAten(theirs.get(), TORCH_VERSION);
  EXPECT_TRUE(ours.is_same(*theirs));
  EXPECT_NE(ours.grad_fn(), nullptr);
  EXPECT_EQ(theirs->use_count(), 2u);
}

TEST(AtenDoor, AdoptingTakesTheCallersReference) {
  auto* theirs = new at::Tensor(at::ones({2}));
  const at::Tensor ours = *AdoptAten(theirs, TORCH_VERSION);
  EXPECT_EQ(ours.use_count(), 1u);
}

TEST(AtenDoor, AFailedAdoptionLeavesIt) {
  const auto theirs = std::make_unique<at::Tensor>(at::ones({2}));
  EXPECT_FALSE(AdoptAten(theirs.get(), "0.4.1").ok());
  EXPECT_EQ(theirs->use_count(), 1u);
  EXPECT_EQ(theirs->sum().item<float>(), 2);
}

TEST(AtenDoor, ExportingGivesANewReference) {
  const at::Tensor ours = at::ones({2});
  const std::unique_ptr<at::Tensor> theirs(static_cast<at::Tensor*>(*ToAten(ours, TORCH_VERSION)));
  EXPECT_TRUE(theirs->is_same(ours));
  EXPECT_EQ(ours.use_count(), 2u);
}

}  // namespace
}  // namespace gradferry
