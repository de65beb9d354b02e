#include "impl/tensor/quick_operators.h"

#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

namespace gradferry {
namespace {

TEST(QuickOperatorsTest, SmallArithmeticIsQuick) {
  EXPECT_TRUE(IsQuick("aten::add", {at::ones({64}), at::ones({64}), int64_t{1}}));
  EXPECT_TRUE(IsQuick("aten::abs", {at::ones({128, 128})}));
  EXPECT_TRUE(IsQuick("aten::tanh", {at::ones({})}));
  EXPECT_TRUE(IsQuick("aten::mul", {at::ones({100, 100}), at::ones({100, 100})}));
}

TEST(QuickOperatorsTest, WhatMayTakeLongIsNot) {
  EXPECT_FALSE(IsQuick("aten::add", {at::ones({129, 128}), at::ones({129, 128})}));
  // A row and a column make a matrix.
  EXPECT_FALSE(IsQuick("aten::add", {at::ones({1, 4096}), at::ones({4096, 1})}));
  EXPECT_FALSE(IsQuick("aten::linalg_svd", {at::ones({2, 2})}));
  EXPECT_FALSE(IsQuick("aten::ones", {ValueList{int64_t{1}}}));
  EXPECT_FALSE(IsQuick("aten::add", {ValueList{at::ones({1})}, at::ones({1})}));
  EXPECT_FALSE(IsQuick("aten::neg", {at::Tensor()}));
}

}  // namespace
}  // namespace gradferry
