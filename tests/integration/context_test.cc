// Contexts: their ids, what they record, and that their release reaches every worker that took part.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

int64_t Contexts(gf_worker* worker) { return Info(worker)["contexts"].get<int64_t>(); }

class ContextTest : public TransportTest {
 protected:
  // A call from worker0 with these arguments makes a context over there, and the release removes it.
  void ExpectCleanUp(const std::string& handler, const List& arguments) {
    Group group(transport(), {"worker0", "worker1"});
    RegisterHandlers(group.server(1));
    const Context context = NewContext(group[0]);
    CallWorker(group[0], "worker1", handler, arguments, In(context));
    EXPECT_EQ(Contexts(group[0]), 1);
    EXPECT_EQ(Contexts(group[1]), 1);
    EXPECT_EQ(gf_context_id(FindContext(group[1], gf_context_id(context))), gf_context_id(context));
    Release(context);
    EXPECT_EQ(Contexts(group[0]), 0);
    EXPECT_TRUE(Eventually([&] { return Contexts(group[1]) == 0; }));
    EXPECT_EQ(ErrorOf([&] { FindContext(group[1], gf_context_id(context)); }).code, GF_NOT_FOUND);
  }
};

// test_autograd_context
TEST_P(ContextTest, AnIdHoldsTheWorkerAndACounter) {
  const Worker worker = OpenWorker(WorkerConfig(transport(), UniqueName(), "worker7", 7));
  const int64_t last = (int64_t{7} << 48) | ((int64_t{1} << 48) - 1);
  EXPECT_EQ(Info(worker)["max_context_id"].get<int64_t>(), last);
  std::set<int64_t> ids;
  std::vector<Context> contexts;
  for (int i = 0; i < 200; ++i) {
    contexts.push_back(NewContext(worker));
    const int64_t id = gf_context_id(contexts.back());
    EXPECT_EQ(id >> 48, 7);
    EXPECT_EQ(gf_context_id(FindContext(worker, id)), id);
    ids.insert(id);
  }
  EXPECT_EQ(ids.size(), 200u);
  EXPECT_EQ(Contexts(worker), 200);
  for (const Context& context : contexts) Release(context);
  EXPECT_EQ(Contexts(worker), 0);
  for (int64_t id : ids) {
    const Error error = ErrorOf([&] { FindContext(worker, id); });
    EXPECT_EQ(error.code, GF_NOT_FOUND);
    EXPECT_THAT(error.message, HasSubstr(std::to_string(id)));
  }
  EXPECT_EQ(ErrorOf([&] { Release(contexts[0]); }).code, GF_NOT_FOUND);
  Call(gf_worker_close, worker, kPatience);
}

// Giving the last handle back does what releasing does.
TEST_P(ContextTest, AContextEndsWithItsLastHandle) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({2}, 1));
  Context context = NewContext(group[0]);
  Context second = context;
  (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
  context.reset();
  EXPECT_EQ(Contexts(group[0]), 1);
  EXPECT_EQ(Contexts(group[1]), 1);
  second.reset();
  EXPECT_TRUE(Eventually([&] { return Contexts(group[0]) + Contexts(group[1]) == 0; }));
}

// test_nested_context: there a thread has one context at most. Here they are arguments.
TEST_P(ContextTest, TwoContextsOnOneThreadAreIndependent) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Floats({2}, {2, 3}));
  const Context outer = NewContext(group[0]);
  const Tensor first = RemoteOp(group[0], "worker1", In(outer), "aten::mul.Tensor", a, a);
  const Context inner = NewContext(group[0]);
  EXPECT_NE(gf_context_id(outer), gf_context_id(inner));
  const Tensor second = RemoteOp(group[0], "worker1", In(inner), "aten::add.Tensor", a, a);
  const Tensor third = RemoteOp(group[0], "worker1", In(outer), "aten::add.Tensor", first, a);
  Backward(inner, {Sum(second)});
  EXPECT_EQ(ReadFloats(Gradient(inner, a)), std::vector<float>({2, 2}));
  EXPECT_FALSE(HasGradient(outer, a));
  Release(inner);
  Backward(outer, {Sum(third)});
  EXPECT_EQ(ReadFloats(Gradient(outer, a)), std::vector<float>({5, 7}));
}

// test_context_cleanup_tensor_with_grad
TEST_P(ContextTest, ReleaseCleansUpAfterACallWithTensorsThatRequireGrad) {
  const Tensor a = WithGrad(Random({3, 3}, 1));
  ExpectCleanUp("operator", ListOf("aten::add.Tensor", ListOf(a, a)));
}

// test_context_cleanup_tensor_no_grad
TEST_P(ContextTest, ReleaseCleansUpAfterACallWithoutGrad) {
  const Tensor a = Random({3, 3}, 1);
  ExpectCleanUp("operator", ListOf("aten::add.Tensor", ListOf(a, a)));
}

// test_context_cleanup_no_tensors
TEST_P(ContextTest, ReleaseCleansUpAfterACallWithoutTensors) { ExpectCleanUp("contexts", NewList()); }

// test_context_cleanup_nested_rpc
TEST_P(ContextTest, ReleaseReachesWorkersTwoHopsAway) {
  Group group(transport(), {"worker0", "worker1", "worker2", "worker3"});
  for (size_t i = 0; i < group.size(); ++i) RegisterHandlers(group.server(i));
  const Tensor a = WithGrad(Random({3, 3}, 1)), b = WithGrad(Random({3, 3}, 2));
  const Context context = NewContext(group[0]);
  CallWorker(group[0], "worker1", "nested", ListOf(a, b, ListOf("worker2", "worker3")), In(context));
  EXPECT_THAT(Describe(context)["known_workers"].get<std::vector<int>>(), ElementsAre(1));
  for (size_t i = 0; i < group.size(); ++i) EXPECT_EQ(Contexts(group[i]), 1) << i;
  Release(context);
  for (size_t i = 0; i < group.size(); ++i) {
    EXPECT_TRUE(Eventually([&] { return Contexts(group[i]) == 0; })) << i;
  }
}

// B6, for a call that begins after the release (failed_calls_test.cc: for one that is under way).
TEST_P(ContextTest, ACallOfAReleasedContextIsRefusedAndDoesNotReviveIt) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({2}, 1));
  const Context context = NewContext(group[0]);
  (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
  Release(context);
  const Error error = ErrorOf([&] { RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr(std::to_string(gf_context_id(context))));
  EXPECT_TRUE(Eventually([&] { return Contexts(group[1]) == 0; }));
  EXPECT_EQ(ErrorOf([&] { Backward(context, {a}); }).code, GF_NOT_FOUND);
  EXPECT_EQ(ErrorOf([&] { Gradient(context, a); }).code, GF_NOT_FOUND);
  EXPECT_EQ(ErrorOf([&] { Describe(context); }).code, GF_NOT_FOUND);
}

// test_worker_ids_recorded
TEST_P(ContextTest, WorkersThatWereCalledAreRecordedWithAndWithoutGrad) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  for (bool grad : {false, true}) {
    const Tensor a = grad ? WithGrad(Random({3, 3}, 1)) : Random({3, 3}, 1);
    const Context context = NewContext(group[0]);
    EXPECT_THAT(Describe(context)["known_workers"].get<std::vector<int>>(), ElementsAre());
    (void)RemoteOp(group[0], "worker2", In(context), "aten::add.Tensor", a, a);
    EXPECT_THAT(Describe(context)["known_workers"].get<std::vector<int>>(), ElementsAre(2));
    (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
    (void)RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, a);
    EXPECT_THAT(Describe(context)["known_workers"].get<std::vector<int>>(), ElementsAre(1, 2));
  }
}

// test_no_graph_with_tensors_not_require_grad
TEST_P(ContextTest, NothingIsRecordedForTensorsThatRequireNoGrad) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor a = Random({3, 3}, 1);
  const Context context = NewContext(group[0]);
  for (const char* how : {"operator", "nested"}) {
    const List arguments =
        how == std::string("nested") ? ListOf(a, a, NewList()) : ListOf("aten::add.Tensor", ListOf(a, a));
    const Tensor sum = TensorAt(CallWorker(group[0], "worker1", how, arguments, In(context)), 0);
    EXPECT_FALSE(RequiresGrad(sum));
    for (size_t worker : {0, 1}) {
      const auto described = Describe(FindContext(group[worker], gf_context_id(context)));
      EXPECT_EQ(described["send_functions"].size(), 0u) << how << " on worker " << worker;
      EXPECT_EQ(described["recv_functions"].size(), 0u) << how << " on worker " << worker;
    }
  }
}

// The same with tensors that do, when the call is made under no_grad, as for a metric.
TEST_P(ContextTest, NothingIsRecordedUnderNoGrad) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor a = WithGrad(Random({3, 3}, 1));
  const Context context = NewContext(group[0]);
  for (const char* name : {"aten::add.Tensor", "operator"}) {
    const List arguments = name == std::string("operator") ? ListOf("aten::add.Tensor", ListOf(a, a)) : ListOf(a, a);
    const Tensor sum = TensorAt(CallWorker(group[0], "worker1", name, arguments, In(context).NoGrad()), 0);
    EXPECT_FALSE(RequiresGrad(sum)) << name;
  }
  EXPECT_EQ(Describe(context)["send_functions"].size(), 0u);
  EXPECT_EQ(Describe(FindContext(group[1], gf_context_id(context)))["recv_functions"].size(), 0u);
}

// Without a context no gradient flows, and no tensor that comes back pretends otherwise.
TEST_P(ContextTest, CallsWithoutAContextReturnTensorsThatRequireNoGrad) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  CallWorker(group[0], "worker1", "hold", ListOf(0, Random({2}, 1)));
  const Tensor a = WithGrad(Random({2}, 2));
  EXPECT_FALSE(RequiresGrad(RemoteOp(group[0], "worker1", {}, "aten::add.Tensor", a, a)));
  EXPECT_FALSE(RequiresGrad(TensorAt(CallWorker(group[0], "worker1", "use", ListOf(0, a)), 0)));
  EXPECT_EQ(Contexts(group[1]), 0);
}

// test_grad_only_on_return_value
TEST_P(ContextTest, OnlyTheReturnedTensorRequiresGrad) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  CallWorker(group[0], "worker1", "hold", ListOf(0, Floats({2}, {2, 3})));
  const Context context = NewContext(group[0]);
  const Tensor product =
      TensorAt(CallWorker(group[0], "worker1", "use", ListOf(0, Floats({2}, {5, 7})), In(context)), 0);
  EXPECT_TRUE(RequiresGrad(product));
  const auto here = Describe(context);
  EXPECT_EQ(here["send_functions"].size(), 0u);
  EXPECT_EQ(here["recv_functions"].size(), 1u);
  Backward(context, {Sum(product)});
  EXPECT_EQ(GradientCount(context), 0u);
  const List gradient = CallWorker(group[0], "worker1", "gradient", ListOf(gf_context_id(context), 0));
  EXPECT_EQ(ReadFloats(TensorAt(gradient, 0)), std::vector<float>({5, 7}));
}

// test_mixed_requires_grad
TEST_P(ContextTest, TheCalleeSeesWhichArgumentsRequireGrad) {
  Group group(transport(), {"worker0", "worker1"});
  group.server(1).On("mixed", [](const Request& request) {
    const List arguments = Arguments(request);
    const Tensor a = TensorAt(arguments, 0), b = TensorAt(arguments, 1);
    EXPECT_TRUE(RequiresGrad(a));
    return ListOf(RequiresGrad(b) ? Op("aten::sub.Tensor", a, b) : Mul(a, b));
  });
  const Tensor a = WithGrad(Floats({2}, {2, 3})), constant = Floats({2}, {5, 7});
  const Tensor parameter = WithGrad(Floats({2}, {5, 7}));
  const Context context = NewContext(group[0]);
  const Tensor product = TensorAt(CallWorker(group[0], "worker1", "mixed", ListOf(a, constant), In(context)), 0);
  EXPECT_EQ(ReadFloats(product), std::vector<float>({10, 21}));
  const Tensor difference = TensorAt(CallWorker(group[0], "worker1", "mixed", ListOf(a, parameter), In(context)), 0);
  EXPECT_EQ(ReadFloats(difference), std::vector<float>({-3, -4}));
  Backward(context, {Sum(product)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({5, 7}));
  EXPECT_FALSE(HasGradient(context, constant));
  Backward(context, {Sum(difference)});
  EXPECT_EQ(ReadFloats(Gradient(context, a)), std::vector<float>({6, 8}));
  EXPECT_EQ(ReadFloats(Gradient(context, parameter)), std::vector<float>({-1, -1}));
}

GF_OVER_ALL_WAYS(ContextTest);

}  // namespace
}  // namespace gf
