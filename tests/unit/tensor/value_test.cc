// Values: kinds, the tensor table, and how tensors are called in error texts.
#include "impl/tensor/value.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace gradferry {
namespace {

TEST(Value, KindFollowsWhatItHolds) {
  EXPECT_EQ(Value().kind(), ValueKind::kNone);
  EXPECT_EQ(Value(true).kind(), ValueKind::kBool);
  EXPECT_EQ(Value(3).kind(), ValueKind::kInt);
  EXPECT_EQ(Value(int64_t{3}).kind(), ValueKind::kInt);
  EXPECT_EQ(Value(0.5).kind(), ValueKind::kDouble);
  EXPECT_EQ(Value("text").kind(), ValueKind::kString);
  EXPECT_EQ(Value(Bytes{"text"}).kind(), ValueKind::kBytes);
  EXPECT_EQ(Value(at::ones({1})).kind(), ValueKind::kTensor);
  EXPECT_EQ(Value(ValueList{1, 2}).kind(), ValueKind::kList);
  EXPECT_EQ(Value(DefaultValue{}).kind(), ValueKind::kDefault);
}

TEST(Value, KindNamesAreTheOnesOfErrorTexts) {
  EXPECT_STREQ(ValueKindName(ValueKind::kNone), "none");
  EXPECT_STREQ(ValueKindName(ValueKind::kBytes), "bytes");
  EXPECT_STREQ(ValueKindName(ValueKind::kDefault), "default");
  EXPECT_STREQ(ValueKindName(static_cast<ValueKind>(99)), "unknown kind");
}

TEST(Value, CopiesShareTensors) {
  const Value value = at::zeros({2});
  Value copy = value;
  copy.get<at::Tensor>()->fill_(7);
  EXPECT_EQ(value.get<at::Tensor>()->sum().item<double>(), 14);
}

TEST(CollectTensors, GoesDepthFirstInOrder) {
  const at::Tensor a = at::ones({1}), b = at::ones({2}), c = at::ones({3});
  ValueList values{a, 1, ValueList{"x", b, ValueList{}}, c};
  const std::vector<at::Tensor*> tensors = CollectTensors(values);
  ASSERT_EQ(tensors.size(), 3u);
  EXPECT_TRUE(tensors[0]->is_same(a));
  EXPECT_TRUE(tensors[1]->is_same(b));
  EXPECT_TRUE(tensors[2]->is_same(c));
  const ValueList& constant = values;
  EXPECT_EQ(CollectTensors(constant)[1], tensors[1]);
}

TEST(CollectTensors, PointersReplaceTheTensorsInPlace) {
  ValueList values{ValueList{at::ones({1})}};
  const at::Tensor other = at::ones({4});
  *CollectTensors(values)[0] = other;
  EXPECT_TRUE(values[0].get<ValueList>()->at(0).get<at::Tensor>()->is_same(other));
}

TEST(DescribeTensor, NamesDtypeSizesDeviceAndLayout) {
  EXPECT_EQ(DescribeTensor(at::Tensor()), "undefined tensor");
  EXPECT_EQ(DescribeTensor(at::ones({2, 3})), "float32[2, 3]");
  EXPECT_EQ(DescribeTensor(at::ones({}, at::kBool)), "bool[]");
  EXPECT_EQ(DescribeTensor(at::empty({4}, at::TensorOptions().device(at::kMeta).dtype(at::kHalf))),
            "float16[4] on meta");
  EXPECT_EQ(DescribeTensor(at::eye(2, at::kDouble).to_sparse()), "float64[2, 2], sparse_coo");
  EXPECT_EQ(DescribeTensor(at::eye(2).to_sparse_csr()), "float32[2, 2], sparse_csr");
  EXPECT_EQ(DescribeTensor(at::ones({2}).to(at::kComplexHalf)), "complexhalf[2]");
}

TEST(DescribeTensor, TakesTensorsThatHaveNoSizes) {
  const at::Tensor nested = at::_nested_tensor_from_mask(at::ones({1, 2, 3}), at::ones({1, 2}, at::kBool));
  EXPECT_EQ(DescribeTensor(nested), "nested float32");
}

}  // namespace
}  // namespace gradferry
