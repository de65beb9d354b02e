// The exact shape of the graph that calls leave on each worker, as gf_context_describe tells it: which send functions
// lead to which nodes and to which outputs of recv functions.
#include <gtest/gtest.h>

#include "tests/integration/graphs.h"
#include "tests/integration/modes.h"

namespace gf {
namespace {

class GraphTest : public TransportTest {};

// test_graph_for_builtin_call and test_graph_for_python_call
TEST_P(GraphTest, ACallLeavesASendFunctionHereAndARecvFunctionThere) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  for (bool by_handler : {false, true}) {
    SCOPED_TRACE(by_handler ? "handler" : "operator");
    const Context context = NewContext(group[0]);
    const Tensor sum =
        TensorAt(by_handler ? CallByHandler(group[0], "worker1", "aten::add.Tensor", ListOf(a, b), In(context))
                            : CallWorker(group[0], "worker1", "aten::add.Tensor", ListOf(a, b), In(context)),
                 0);
    ExpectCallerGraph(Describe(context), /*callee=*/1);
    ExpectCalleeGraph(Describe(FindContext(group[1], gf_context_id(context))), /*caller=*/0);
  }
}

// test_graph_for_py_nested_call
TEST_P(GraphTest, ANestedCallLeavesAPairOnTheWorkerBetween) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  const Context context = NewContext(group[0]);
  const List sum = CallWorker(group[0], "worker1", "nested", ListOf(a, b, ListOf("worker2")), In(context));
  const int64_t id = gf_context_id(context);
  ExpectCallerGraph(Describe(context), 1);
  ExpectMiddleGraph(Describe(FindContext(group[1], id)), /*caller=*/0, /*callee=*/2);
  ExpectCalleeGraph(Describe(FindContext(group[2], id)), 1);
}

// The same over as many hops as upstream: each worker's neighbour is the next one.
TEST_P(GraphTest, EachWorkerOfAChainSeesItsNeighboursOnly) {
  Group group(transport(), {"worker0", "worker1", "worker2", "worker3"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  std::vector<Context> contexts;
  std::vector<List> sums;
  const std::vector<std::string> names = {"worker0", "worker1", "worker2", "worker3"};
  for (size_t start = 0; start < 4; ++start) {
    contexts.push_back(NewContext(group[start]));
    sums.push_back(CallWorker(group[start], names[(start + 1) % 4], "nested",
                              ListOf(a, b, ListOf(names[(start + 2) % 4], names[(start + 3) % 4])),
                              In(contexts.back())));
  }
  // Four contexts, and each worker's part of each of them.
  for (int start = 0; start < 4; ++start) {
    SCOPED_TRACE("context of worker " + std::to_string(start));
    const int64_t id = gf_context_id(contexts[start]);
    auto part = [&](int hop) { return Describe(FindContext(group[(start + hop) % 4], id)); };
    ExpectCallerGraph(part(0), (start + 1) % 4);
    ExpectMiddleGraph(part(1), start, (start + 2) % 4);
    ExpectMiddleGraph(part(2), (start + 1) % 4, (start + 3) % 4);
    ExpectCalleeGraph(part(3), (start + 2) % 4);
  }
}

// test_graph_for_py_nested_call_itself
TEST_P(GraphTest, ACallBackToItsCallerLeavesTwoOfEachThere) {
  Group group(transport(), {"worker0", "worker1"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  const Context context = NewContext(group[0]);
  const List sum = CallWorker(group[0], "worker1", "nested", ListOf(a, b, ListOf("worker0")), In(context));
  ExpectLoopGraph(Describe(context), /*peer=*/1);
  ExpectMiddleGraph(Describe(FindContext(group[1], gf_context_id(context))), /*caller=*/0, /*callee=*/0);
}

// test_rpc_complex_args
TEST_P(GraphTest, EdgesFollowTheTensorsThatRequireGradInTheirOrder) {
  Group group(transport(), {"worker0", "worker1"});
  for (bool by_handler : {false, true}) {
    SCOPED_TRACE(by_handler ? "handler" : "operator");
    if (by_handler) RegisterHandlers(group.server(1));
    std::vector<Tensor> tensors;
    for (uint32_t i = 0; i < 10; ++i) {
      const Tensor tensor = Random({3, 3}, i);
      tensors.push_back(i % 2 == 0 ? WithGrad(tensor) : tensor);
    }
    const Context context = NewContext(group[0]);
    const List arguments = ListOf(tensors);
    const Tensor stacked =
        TensorAt(by_handler ? CallByHandler(group[0], "worker1", "aten::stack", arguments, In(context))
                            : CallWorker(group[0], "worker1", "aten::stack", arguments, In(context)),
                 0);
    EXPECT_EQ(ReadFloats(stacked), ReadFloats(Op("aten::stack", tensors)));
    const auto here = Describe(context);
    ASSERT_EQ(here["send_functions"].size(), 1u);
    const auto& next = here["send_functions"][0]["next"];
    ASSERT_EQ(next.size(), 5u);
    std::set<int> leaves;
    for (const auto& edge : next) {
      EXPECT_EQ(NodeName(here, edge), kLeaf);
      leaves.insert(edge[0].get<int>());
    }
    EXPECT_EQ(leaves.size(), 5u);
    const auto there = Describe(FindContext(group[1], gf_context_id(context)));
    ASSERT_EQ(there["recv_functions"].size(), 1u);
    EXPECT_EQ(there["recv_functions"][0]["outputs"], 5);
    // That the edges are in the tensors' order shows in the gradients.
    std::vector<float> seed(90);
    for (size_t i = 0; i < seed.size(); ++i) seed[i] = static_cast<float>(i);
    Backward(context, {stacked}, BackwardOptions().Seeds({Floats({10, 3, 3}, seed)}));
    for (size_t i = 0; i < 10; i += 2) {
      EXPECT_EQ(ReadFloats(Gradient(context, tensors[i])),
                std::vector<float>(seed.begin() + 9 * i, seed.begin() + 9 * (i + 1)));
    }
  }
}

// A graph that was used up leaves no send function behind, so that a context can serve many steps.
TEST_P(GraphTest, APassThatDoesNotRetainUsesItsSendFunctionsUp) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  for (int step = 0; step < 3; ++step) {
    Backward(context, {Sum(RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a))});
    EXPECT_EQ(Describe(context)["send_functions"].size(), 0u) << step;
    EXPECT_EQ(Describe(FindContext(group[1], gf_context_id(context)))["send_functions"].size(), 0u) << step;
  }
  const Tensor sum = RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
  Backward(context, {Sum(sum)}, BackwardOptions().Retain());
  EXPECT_EQ(Describe(context)["send_functions"].size(), 1u);
}

GF_OVER_ALL_WAYS(GraphTest);

}  // namespace
}  // namespace gf
