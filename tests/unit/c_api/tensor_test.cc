// gf_tensor_*, through the C ABI. What the four doors take and refuse is tested with impl/tensor/doors.h.
#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/version.h>

#include <cstring>

#include "tests/unit/c_api/abi.h"

namespace gradferry::abi {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class TensorTest : public AbiTest {};

void CountDeletion(uintptr_t token) { ++*reinterpret_cast<int*>(token); }

gf_memory MemoryOf(std::vector<float>& data, const std::vector<int64_t>& shape, int* deletions) {
  gf_memory memory{};
  memory.struct_size = sizeof(memory);
  memory.dtype_code = GF_DTYPE_FLOAT;
  memory.dtype_bits = 32;
  memory.data = data.data();
  memory.shape = shape.data();
  memory.ndim = static_cast<int64_t>(shape.size());
  memory.deleter = &CountDeletion;
  memory.deleter_token = reinterpret_cast<uintptr_t>(deletions);
  return memory;
}

TEST_F(TensorTest, MemoryOfTheCallerIsUsedInPlaceAndGivenBackOnce) {
  std::vector<float> data = {1, 2, 3, 4, 5, 6};
  std::vector<int64_t> shape = {2, 3};
  int deletions = 0;
  gf_memory memory = MemoryOf(data, shape, &deletions);
  gf_tensor* tensor = Made<gf_tensor>(gf_tensor_from_memory, static_cast<const gf_memory*>(&memory));
  gf_tensor_info info = Describe(tensor);
  EXPECT_EQ(info.data, data.data());
  EXPECT_EQ(info.dtype_code, GF_DTYPE_FLOAT);
  EXPECT_EQ(info.dtype_bits, 32);
  EXPECT_EQ(info.dtype_lanes, 1);
  EXPECT_EQ(info.device_type, GF_DEVICE_CPU);
  EXPECT_EQ(info.device_index, 0);
  EXPECT_EQ(info.layout, GF_LAYOUT_STRIDED);
  EXPECT_EQ(info.requires_grad, 0);
  EXPECT_EQ(info.is_leaf, 1);
  EXPECT_EQ(info.ndim, 2);
  EXPECT_EQ(info.numel, 6);
  EXPECT_THAT(std::vector<int64_t>(info.shape, info.shape + 2), ElementsAre(2, 3));
  EXPECT_THAT(std::vector<int64_t>(info.strides, info.strides + 2), ElementsAre(3, 1));
  gf_tensor_ref(tensor);
  gf_tensor_unref(tensor);
  EXPECT_EQ(deletions, 0);
  gf_tensor_unref(tensor);
  EXPECT_EQ(deletions, 1);
}

TEST_F(TensorTest, StridesAreInElementsAndReadingIsRowMajor) {
  std::vector<float> data = {1, 2, 3, 4, 5, 6};
  std::vector<int64_t> shape = {3, 2}, strides = {1, 3};
  int deletions = 0;
  gf_memory memory = MemoryOf(data, shape, &deletions);
  memory.strides = strides.data();
  gf_tensor* tensor = Made<gf_tensor>(gf_tensor_from_memory, static_cast<const gf_memory*>(&memory));
  EXPECT_THAT(Floats(tensor), ElementsAre(1, 4, 2, 5, 3, 6));
  gf_tensor_unref(tensor);
}

TEST_F(TensorTest, WhatIsRefusedStaysTheCallers) {
  std::vector<float> data(6);
  std::vector<int64_t> shape = {2, 3}, strides = {3, -1};
  int deletions = 0;
  gf_tensor* out = reinterpret_cast<gf_tensor*>(8);
  auto refused = [&](gf_memory memory) {
    Failure failure = Try(gf_tensor_from_memory, static_cast<const gf_memory*>(&memory), &out);
    EXPECT_NE(failure.code, GF_OK);
    EXPECT_EQ(out, nullptr);
    return failure;
  };
  gf_memory good = MemoryOf(data, shape, &deletions), bad = good;
  bad.struct_size = 0;
  EXPECT_THAT(refused(bad).message, HasSubstr("gf_memory.struct_size is 0"));
  bad = good, bad.dtype_bits = 31;
  EXPECT_EQ(refused(bad).code, GF_UNSUPPORTED);
  bad = good, bad.strides = strides.data();
  EXPECT_EQ(refused(bad).code, GF_UNSUPPORTED);
  bad = good, bad.shape = nullptr;
  EXPECT_THAT(refused(bad).message, HasSubstr("the shape is NULL, with 2 dimensions"));
  bad = good, bad.ndim = 65;
  EXPECT_THAT(refused(bad).message, HasSubstr("got 65"));
  bad = good, bad.ndim = -1;
  EXPECT_EQ(refused(bad).code, GF_INVALID_ARGUMENT);
  bad = good, bad.data = nullptr;
  EXPECT_EQ(refused(bad).code, GF_INVALID_ARGUMENT);
  bad = good, bad.data = reinterpret_cast<char*>(data.data()) + 1;
  EXPECT_EQ(refused(bad).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(deletions, 0);
}

TEST_F(TensorTest, OnlyLeavesThatCanHaveGradientsAreToldToRequireThem) {
  gf_tensor* leaf = FloatTensor({2}, {1, 2});
  Must(gf_tensor_set_requires_grad, leaf, 1);
  EXPECT_EQ(Describe(leaf).requires_grad, 1);
  Must(gf_tensor_set_requires_grad, leaf, 0);
  EXPECT_EQ(Describe(leaf).requires_grad, 0);
  Must(gf_tensor_set_requires_grad, leaf, 1);

  gf_operator* op = Made<gf_operator>(gf_operator_find, "aten::exp", size_t{9}, "", size_t{0});
  gf_list* arguments = Made<gf_list>(gf_list_new);
  Must(gf_list_push_tensor, arguments, leaf);
  gf_list* results = Made<gf_list>(gf_operator_call, op, static_cast<const gf_list*>(arguments), GF_GRAD_RECORD);
  gf_tensor* result = Made<gf_tensor>(gf_list_get_tensor, static_cast<const gf_list*>(results), size_t{0});
  EXPECT_EQ(Describe(result).requires_grad, 1);
  EXPECT_EQ(Describe(result).is_leaf, 0);
  EXPECT_EQ(Try(gf_tensor_set_requires_grad, result, 0).code, GF_FAILED_PRECONDITION);
  EXPECT_EQ(Try(gf_tensor_set_requires_grad, result, 1).code, GF_OK);
  gf_tensor_unref(result);
  gf_list_unref(results);

  results = Made<gf_list>(gf_operator_call, op, static_cast<const gf_list*>(arguments), GF_GRAD_OFF);
  result = Made<gf_tensor>(gf_list_get_tensor, static_cast<const gf_list*>(results), size_t{0});
  EXPECT_EQ(Describe(result).requires_grad, 0);
  gf_tensor_unref(result);
  gf_list_unref(results);
  gf_list_unref(arguments);
  gf_operator_unref(op);
  gf_tensor_unref(leaf);

  gf_shape shape{};
  shape.struct_size = sizeof(shape);
  shape.dtype_code = GF_DTYPE_INT;
  shape.dtype_bits = 64;
  gf_tensor* integers = Made<gf_tensor>(gf_tensor_empty, static_cast<const gf_shape*>(&shape));
  EXPECT_THAT(Try(gf_tensor_set_requires_grad, integers, 1).message, HasSubstr("int64[]"));
  gf_tensor_unref(integers);
}

TEST_F(TensorTest, AtTensorsComeAndGoWithTheirGraph) {
  std::string version = TORCH_VERSION;
  at::Tensor leaf = at::ones({2}, at::kFloat).set_requires_grad(true);
  at::Tensor product = leaf * 3;
  gf_tensor* borrowed =
      Made<gf_tensor>(gf_tensor_from_aten, static_cast<const void*>(&product), version.data(), version.size());
  EXPECT_EQ(Describe(borrowed).is_leaf, 0);
  void* exported = Made<void>(gf_tensor_to_aten, borrowed, version.data(), version.size());
  EXPECT_TRUE(static_cast<at::Tensor*>(exported)->is_same(product));
  gf_tensor* adopted = Made<gf_tensor>(gf_tensor_adopt_aten, exported, version.data(), version.size());
  EXPECT_EQ(gf_tensor_is_same(borrowed, adopted), 1);
  EXPECT_EQ(product.use_count(), 3u);
  gf_tensor_unref(adopted);
  gf_tensor_unref(borrowed);
  EXPECT_EQ(product.use_count(), 1u);

  gf_tensor* out = nullptr;
  std::string other = "0.4.1";
  EXPECT_EQ(Try(gf_tensor_from_aten, static_cast<const void*>(&product), other.data(), other.size(), &out).code,
            GF_FAILED_PRECONDITION);
}

TEST_F(TensorTest, OnlyTheSameTensorIsTheSame) {
  gf_tensor* a = FloatTensor({1}, {1});
  gf_tensor* b = FloatTensor({1}, {1});
  EXPECT_EQ(gf_tensor_is_same(a, a), 1);
  EXPECT_EQ(gf_tensor_is_same(a, b), 0);
  EXPECT_EQ(gf_tensor_is_same(a, nullptr), 0);
  EXPECT_EQ(gf_tensor_is_same(nullptr, nullptr), 0);
  gf_tensor_unref(a);
  gf_tensor_unref(b);
}

TEST_F(TensorTest, AConjugatedViewShowsNoData) {
  std::string version = TORCH_VERSION;
  at::Tensor view = at::ones({2}, at::kComplexFloat).conj();
  gf_tensor* tensor =
      Made<gf_tensor>(gf_tensor_from_aten, static_cast<const void*>(&view), version.data(), version.size());
  EXPECT_EQ(Describe(tensor).data, nullptr);
  EXPECT_EQ(Describe(tensor).dtype_code, GF_DTYPE_COMPLEX);
  gf_tensor_unref(tensor);
}

TEST_F(TensorTest, SparseTensorsHaveShapeButNoStrides) {
  std::string version = TORCH_VERSION;
  at::Tensor sparse = at::eye(3).to_sparse();
  gf_tensor* tensor =
      Made<gf_tensor>(gf_tensor_from_aten, static_cast<const void*>(&sparse), version.data(), version.size());
  gf_tensor_info info = Describe(tensor);
  EXPECT_EQ(info.layout, GF_LAYOUT_SPARSE_COO);
  EXPECT_EQ(info.strides, nullptr);
  EXPECT_EQ(info.data, nullptr);
  EXPECT_THAT(std::vector<int64_t>(info.shape, info.shape + 2), ElementsAre(3, 3));
  gf_tensor_unref(tensor);
}

TEST_F(TensorTest, AnInfoThatCannotBeFilledIsZeroedOrLeftAlone) {
  gf_tensor_info info{};
  EXPECT_THAT(Try(gf_tensor_describe, static_cast<gf_tensor*>(nullptr), &info).message, HasSubstr("struct_size is 0"));
  std::memset(&info, 0x55, sizeof(info));
  info.struct_size = sizeof(info);
  EXPECT_EQ(Try(gf_tensor_describe, static_cast<gf_tensor*>(nullptr), &info).code, GF_INVALID_ARGUMENT);
  gf_tensor_info zero{};
  zero.struct_size = sizeof(zero);
  EXPECT_EQ(std::memcmp(&info, &zero, sizeof(info)), 0);
}

TEST_F(TensorTest, ABufferOfAnotherSizeIsRefused) {
  gf_tensor* tensor = FloatTensor({2}, {1, 2});
  char buffer[12];
  EXPECT_EQ(Try(gf_tensor_read, tensor, static_cast<void*>(buffer), size_t{7}).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_tensor_read, tensor, static_cast<void*>(buffer), size_t{12}).code, GF_INVALID_ARGUMENT);
  gf_tensor_unref(tensor);
}

}  // namespace
}  // namespace gradferry::abi
