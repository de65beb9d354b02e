// Sparse gradients, coalesced or not, stay what they are on their way over workers.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/custom_function.h>

#include "tests/integration/aten.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The same values; the gradient is coalesced on its way.
struct Coalescing : torch::autograd::Function<Coalescing> {
  static at::Tensor forward(AutogradContext*, const at::Tensor& input) { return input.view_as(input); }
  static variable_list backward(AutogradContext*, variable_list gradients) { return {gradients[0].coalesce()}; }
};

class SparseTest : public TransportTest {
 protected:
  // The gradient of a table here after a look-up two workers away, as it arrives: libtorch's accumulation drops the
  // mark of a coalesced one, here as in one process.
  at::Tensor GradientOverTwoHops(bool coalesced) {
    Group group(transport(), {"worker0", "worker1", "worker2"});
    group.server(1).On("through", [worker = group[1]](const Request& request) {
      return CallWorker(worker, "worker2", "look_up", Arguments(request), CallOptions().Parent(request));
    });
    group.server(2).On("look_up", [coalesced](const Request& request) {
      const List arguments = Arguments(request);
      Tensor table = TensorAt(arguments, 0);
      if (coalesced) table = FromAten(Coalescing::apply(ToAten(table)));
      return CallOperator("aten::embedding", ListOf(table, TensorAt(arguments, 1), -1, false, true));
    });
    const Tensor table = WithGrad(Random({10, 3}, 1));
    const Tensor rows = TensorOf<int64_t>({4}, {4, 1, 4, 5});
    at::Tensor arrived;
    ToAten(table).register_hook([&arrived](at::Tensor gradient) { arrived = gradient; });
    const Context context = NewContext(group[0]);
    const Tensor found = TensorAt(CallWorker(group[0], "worker1", "through", ListOf(table, rows), In(context)), 0);
    Backward(context, {Sum(Mul(found, Floats({4, 1}, {1, 2, 4, 8})))});
    const at::Tensor gradient = ToAten(Gradient(context, table));
    EXPECT_TRUE(gradient.is_sparse());
    EXPECT_TRUE(at::equal(gradient.to_dense(), arrived.to_dense()));
    return arrived;
  }

  static void ExpectRows(const at::Tensor& gradient) {
    const at::Tensor dense = gradient.to_dense();
    const std::vector<float> wanted = {0, 2, 0, 0, 5, 8, 0, 0, 0, 0};
    for (int64_t row = 0; row < 10; ++row) {
      for (int64_t column = 0; column < 3; ++column) {
        EXPECT_EQ(dense[row][column].item<float>(), wanted[static_cast<size_t>(row)]) << row;
      }
    }
  }
};

TEST_P(SparseTest, AnUncoalescedGradientCrossesTwoHopsAsItIs) {
  const at::Tensor gradient = GradientOverTwoHops(false);
  ASSERT_TRUE(gradient.is_sparse());
  EXPECT_FALSE(gradient.is_coalesced());
  EXPECT_EQ(gradient._nnz(), 4);
  ExpectRows(gradient);
}

TEST_P(SparseTest, ACoalescedGradientCrossesTwoHopsAsItIs) {
  const at::Tensor gradient = GradientOverTwoHops(true);
  ASSERT_TRUE(gradient.is_sparse());
  EXPECT_TRUE(gradient.is_coalesced());
  EXPECT_EQ(gradient._nnz(), 3);
  ExpectRows(gradient);
}

GF_OVER_ALL_WAYS(SparseTest);

}  // namespace
}  // namespace gf
