#include "impl/engine/small_parts.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/variable.h>

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "impl/autograd/functions.h"

namespace gradferry {
namespace {

using torch::autograd::Edge;

at::Tensor WithGrad(at::IntArrayRef sizes) { return at::ones(sizes).set_requires_grad(true); }

Edge EdgeOf(const at::Tensor& tensor) { return torch::autograd::impl::gradient_edge(tensor); }

bool LeadsToAtMost(const at::Tensor& tensor, int64_t steps) { return LeadsToFew({EdgeOf(tensor)}, &steps); }

TEST(LeadsToFew, CountsNodesUpToItsLimit) {
  at::Tensor tensor = WithGrad({2});
  for (int i = 0; i < 9; ++i) tensor = tensor.neg();
  EXPECT_TRUE(LeadsToAtMost(tensor, 10));
  EXPECT_FALSE(LeadsToAtMost(tensor, 9));
  int64_t steps = 100;
  EXPECT_TRUE(LeadsToFew({EdgeOf(tensor), Edge(), EdgeOf(tensor)}, &steps));
  EXPECT_EQ(steps, 80);
}

TEST(LeadsToFew, StopsWhereWaysAreMany) {
  at::Tensor tensor = WithGrad({2});
  for (int i = 0; i < 60; ++i) tensor = tensor + tensor;  // 2^60 ways
  EXPECT_FALSE(LeadsToAtMost(tensor, 1000));
}

bool IsQuickFor(const at::Tensor& result) { return IsQuick(*result.grad_fn(), {at::ones(result.sizes())}); }

TEST(IsQuick, ElementwiseNodesWithFewElements) {
  const at::Tensor a = WithGrad({10}), b = WithGrad({10});
  for (const at::Tensor& result :
       {a + b, a - b, a * b, a / b, a.neg(), a.relu(), a.tanh(), a.exp(), a.sum(), a.clone(), a.view({2, 5}), a.t()}) {
    EXPECT_TRUE(IsQuickFor(result)) << result.grad_fn()->name();
  }
  EXPECT_TRUE(IsQuick(*(a + b).grad_fn(), {at::Tensor()})) << "none came";
}

TEST(IsQuick, NotThoseWhoseWorkIsMoreThanTheirGradients) {
  const at::Tensor square = WithGrad({4, 4}), vector = WithGrad({4});
  for (const at::Tensor& result : {square.mm(square), vector.dot(vector), square.cumsum(0), square.mean()}) {
    EXPECT_FALSE(IsQuickFor(result)) << result.grad_fn()->name();
  }
}

TEST(IsQuick, NotWithManyElements) {
  EXPECT_TRUE(IsQuickFor(WithGrad({1 << 14}).neg()));
  EXPECT_FALSE(IsQuickFor(WithGrad({(1 << 14) + 1}).neg()));
}

TEST(IsQuick, NotWithHooks) {
  const at::Tensor leaf = WithGrad({3}), result = leaf.neg();
  EXPECT_TRUE(IsQuick(*EdgeOf(leaf).function, {at::ones({3})}));
  leaf.register_hook([](const at::Tensor& gradient) { return gradient; });
  EXPECT_FALSE(IsQuick(*EdgeOf(leaf).function, {at::ones({3})}));
  EXPECT_TRUE(IsQuickFor(result));
  result.register_hook([](const at::Tensor& gradient) { return gradient; });
  EXPECT_FALSE(IsQuickFor(result));
}

// A user's own function, whose class may be called as it likes.
struct AddBackward0 : Node {
  variable_list apply(variable_list&& inputs) override { return std::move(inputs); }
};

TEST(IsQuick, NotCodeOfOthersButOurs) {
  EXPECT_FALSE(IsQuick(*MakeNode<AddBackward0>(), {at::ones({1})}));
  at::Tensor received = at::zeros({3});
  ASSERT_TRUE(MakeRecvFunction(7, 1, {received}).ok());
  EXPECT_TRUE(IsQuickFor(received));
}

TEST(IsQuick, NotSparseGradients) {
  const at::Tensor leaf = WithGrad({3});
  EXPECT_FALSE(IsQuick(*EdgeOf(leaf).function, {at::ones({3}).to_sparse()}));
}

}  // namespace
}  // namespace gradferry
