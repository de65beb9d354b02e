// What a caller can get wrong about handles, values, workers, handlers, operators and contexts: each has an error of
// its own that names the thing concerned, and leaves nothing behind.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class BadInputTest : public TransportTest {};

TEST_P(BadInputTest, NullHandlesAreRefusedEverywhere) {
  Group group(transport(), {"worker0"});
  const Context context = NewContext(group[0]);
  gf_call call{};
  call.struct_size = sizeof(call);
  call.name = "x";
  call.name_length = 1;
  gf_backward backward{};
  backward.struct_size = sizeof(backward);
  gf_peer peer{};
  peer.struct_size = sizeof(peer);
  gf_direct direct{};
  direct.struct_size = sizeof(direct);
  gf_entry entry;
  gf_tensor_info info{};
  info.struct_size = sizeof(info);
  size_t length = 0, count = 0;
  int32_t number = 0;
  Tensor tensor;
  List list;
  Future future;
  Context found;
  char* const none = nullptr;
  const std::vector<std::pair<const char*, std::function<void()>>> calls = {
      {"gf_worker", [&] { Call(gf_worker_info, nullptr, none, size_t{0}, &length); }},
      {"gf_worker", [&] { Call(gf_worker_address, nullptr, none, size_t{0}, &length); }},
      {"gf_worker", [&] { Call(gf_worker_add_peer, nullptr, &peer); }},
      {"gf_worker", [&] { Call(gf_worker_close, nullptr, kSecond); }},
      {"gf_worker", [&] { Call(gf_worker_close_start, nullptr, kSecond, future.out()); }},
      {"gf_worker", [&] { Call(gf_worker_abort, nullptr); }},
      {"gf_worker", [&] { Call(gf_worker_handle_direct, nullptr, "x", size_t{1}, &direct); }},
      {"gf_worker", [&] { Call(gf_worker_unhandle, nullptr, "x", size_t{1}); }},
      {"gf_queue", [&] { Call(gf_worker_handle_queue, group[0], "x", size_t{1}, nullptr, uintptr_t{0}); }},
      {"gf_queue", [&] { Call(gf_queue_next, nullptr, &entry, size_t{1}, int64_t{0}, &count); }},
      {"gf_queue", [&] { Call(gf_queue_fd, nullptr, &number); }},
      {"gf_queue", [&] { Call(gf_queue_wake, nullptr, uintptr_t{0}); }},
      {"gf_worker", [&] { Call(gf_call_sync, nullptr, &call, list.out()); }},
      {"gf_worker", [&] { Call(gf_call_start, nullptr, &call, future.out()); }},
      {"gf_worker", [&] { Call(gf_context_new, nullptr, found.out()); }},
      {"gf_worker", [&] { Call(gf_context_find, nullptr, int64_t{1}, found.out()); }},
      {"gf_context", [&] { Call(gf_context_release, nullptr); }},
      {"gf_context", [&] { Call(gf_context_describe, nullptr, none, size_t{0}, &length); }},
      {"gf_context", [&] { Call(gf_backward_sync, nullptr, &backward); }},
      {"gf_context", [&] { Call(gf_backward_start, nullptr, &backward, future.out()); }},
      {"gf_context", [&] { Call(gf_context_gradients, nullptr, list.out()); }},
      {"gf_tensor", [&] { Call(gf_context_gradient, context, nullptr, tensor.out()); }},
      {"gf_tensor", [&] { Call(gf_tensor_describe, nullptr, &info); }},
      {"gf_future", [&] { Call(gf_future_wait, nullptr, kSecond); }},
      {"gf_future", [&] { Call(gf_future_cancel, nullptr); }},
      {"gf_future", [&] { Call(gf_future_take, nullptr, list.out()); }},
      {"gf_request", [&] { Call(gf_request_arguments, nullptr, list.out()); }},
      {"gf_request", [&] { Call(gf_request_context, nullptr, found.out()); }},
      {"gf_request", [&] { Call(gf_request_reply, nullptr, nullptr); }},
      {"gf_request", [&] { Call(gf_request_fail, nullptr, GF_ABORTED, "x", size_t{1}); }},
      {"gf_optimizer", [&] { Call(gf_optimizer_step, nullptr, context); }},
      {"out-parameter", [&] { Call(gf_call_sync, group[0], &call, nullptr); }},
      {"gf_call", [&] { Call(gf_call_sync, group[0], nullptr, list.out()); }},
      {"gf_backward", [&] { Call(gf_backward_sync, context, nullptr); }},
      {"gf_peer", [&] { Call(gf_worker_add_peer, group[0], nullptr); }},
      {"gf_direct", [&] { Call(gf_worker_handle_direct, group[0], "x", size_t{1}, nullptr); }},
      {"handler", [&] { Call(gf_worker_handle_direct, group[0], "x", size_t{1}, &direct); }},
      {"queue", [&] { Call(gf_call_start, group[0], &call, nullptr); }},
  };
  for (size_t i = 0; i < calls.size(); ++i) {
    const Error error = ErrorOf(calls[i].second);
    EXPECT_EQ(error.code, GF_INVALID_ARGUMENT) << i;
    EXPECT_THAT(error.message, HasSubstr(calls[i].first)) << i;
  }
  // Those that return no code say nothing of nothing.
  EXPECT_EQ(gf_context_id(nullptr), 0);
  EXPECT_EQ(gf_future_is_done(nullptr), 0);
  EXPECT_EQ(gf_request_is_cancelled(nullptr), 0);
  EXPECT_EQ(gf_request_grad(nullptr), GF_GRAD_OFF);
  EXPECT_EQ(std::string(gf_request_name(nullptr, &length)), "");
  gf_worker_unref(nullptr);
  gf_context_unref(nullptr);
}

TEST_P(BadInputTest, HandlesGivenBackOrOfAnotherKindAreRefused) {
  Group group(transport(), {"worker0", "worker1"});
  gf_context* stale = nullptr;
  {
    const Context context = NewContext(group[0]);
    stale = context;
  }
  const Error given_back = ErrorOf([&] { Call(gf_context_release, stale); });
  EXPECT_EQ(given_back.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(given_back.message, AllOf(HasSubstr("gf_context"), HasSubstr("given back")));
  EXPECT_EQ(gf_context_id(stale), 0);
  gf_context_unref(stale);

  const Context context = NewContext(group[0]);
  auto* other = reinterpret_cast<gf_worker*>(context.get());
  const Error another = ErrorOf([&] { CallWorker(other, "worker1", "x", NewList()); });
  EXPECT_EQ(another.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(another.message, AllOf(HasSubstr("gf_worker"), HasSubstr("gf_context")));

  // A worker's handle that was given back.
  Worker lone = OpenWorker(WorkerConfig(transport(), UniqueName(), "lone", 0));
  Call(gf_worker_close, lone, kPatience);
  gf_worker* closed = lone;
  lone.reset();
  EXPECT_EQ(ErrorOf([&] { Text(gf_worker_info, closed); }).code, GF_INVALID_ARGUMENT);
}

TEST_P(BadInputTest, AContextOrAParentOfAnotherWorkerIsRefused) {
  Group group(transport(), {"worker0", "worker1"});
  const Context foreign = NewContext(group[1]);
  const Error context = ErrorOf([&] { CallWorker(group[0], "worker1", "x", NewList(), In(foreign)); });
  EXPECT_EQ(context.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(context.message, AllOf(HasSubstr("worker0"), HasSubstr("worker1")));
  const Queue queue = NewQueue();
  HandleQueue(group[1], "wait", queue, 0);
  const Future call = StartCall(group[0], "worker1", "wait", NewList());
  const Entry entry = Next(queue);
  const Error parent =
      ErrorOf([&] { CallWorker(group[0], "worker1", "x", NewList(), CallOptions().Parent(entry.request)); });
  EXPECT_EQ(parent.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(parent.message, HasSubstr("parent"));
  Reply(entry.request, NewList());
  Await(call);
}

TEST_P(BadInputTest, FieldsThatMakeNoSense) {
  Group group(transport(), {"worker0", "worker1"});
  auto error_of = [&](const std::function<void(gf_call&)>& change) {
    gf_call call{};
    call.struct_size = sizeof(call);
    call.to = "worker1";
    call.to_length = 7;
    call.name = "x";
    call.name_length = 1;
    change(call);
    List results;
    return ErrorOf([&] { Call(gf_call_sync, group[0], &call, results.out()); });
  };
  const Queue queue = NewQueue();
  const std::vector<std::tuple<int32_t, const char*, std::function<void(gf_call&)>>> cases = {
      {GF_INVALID_ARGUMENT, "struct_size", [](gf_call& call) { call.struct_size = 0; }},
      {GF_INVALID_ARGUMENT, "name", [](gf_call& call) { call.name_length = 0; }},
      {GF_INVALID_ARGUMENT, "name", [](gf_call& call) { call.name = "\xff"; }},
      {GF_INVALID_ARGUMENT, "deadline", [](gf_call& call) { call.deadline = -1; }},
      {GF_INVALID_ARGUMENT, "queue", [&](gf_call& call) { call.queue = queue; }},
      {GF_INVALID_ARGUMENT, "to_id", [](gf_call& call) { call.to_length = 0, call.to_id = -1; }},
      {GF_INVALID_ARGUMENT, "to_id", [](gf_call& call) { call.to_length = 0, call.to_id = 40000; }},
      {GF_UNSUPPORTED, "kind", [](gf_call& call) { call.kind = 7; }},
      {GF_UNSUPPORTED, "no_grad", [](gf_call& call) { call.no_grad = 2; }},
  };
  for (const auto& [code, text, change] : cases) {
    const Error error = error_of(change);
    EXPECT_EQ(error.code, code) << text;
    EXPECT_THAT(error.message, HasSubstr(text));
  }
  // A field beyond those that this library knows must be zero.
  struct Newer {
    gf_call call;
    uint64_t more;
  } newer{};
  newer.call.struct_size = sizeof(newer);
  newer.call.to = "worker1";
  newer.call.to_length = 7;
  newer.call.name = "contexts";
  newer.call.name_length = 8;
  RegisterHandlers(group.server(1));
  List results;
  Call(gf_call_sync, group[0], &newer.call, results.out());
  newer.more = 1;
  EXPECT_EQ(ErrorOf([&] { Call(gf_call_sync, group[0], &newer.call, results.out()); }).code, GF_UNSUPPORTED);
}

TEST_P(BadInputTest, UnknownWorkersHandlersAndOperatorsAreNamed) {
  Group group(transport(), {"worker0", "worker1"});
  const Error worker = ErrorOf([&] { CallWorker(group[0], "nobody", "handler", NewList()); });
  EXPECT_EQ(worker.code, GF_NOT_FOUND);
  EXPECT_THAT(worker.message, HasSubstr("nobody"));
  EXPECT_EQ(worker.operation, "handler");

  const Error handler = ErrorOf([&] { CallWorker(group[0], "worker1", "no_such_handler", NewList()); });
  EXPECT_EQ(handler.code, GF_NOT_FOUND);
  EXPECT_THAT(handler.message, AllOf(HasSubstr("no_such_handler"), HasSubstr("worker1")));
  EXPECT_EQ(handler.worker, "worker1");

  const Error unlisted = ErrorOf([&] { CallWorker(group[0], "worker1", "aten::save", ListOf("/tmp/x")); });
  EXPECT_EQ(unlisted.code, GF_PERMISSION_DENIED);
  EXPECT_THAT(unlisted.message,
              AllOf(HasSubstr("aten::save"), HasSubstr("worker1"), HasSubstr("security.operators_extra")));

  const Tensor a = Random({2}, 1);
  const Error overload = ErrorOf([&] { CallWorker(group[0], "worker1", "aten::add.Nothing", ListOf(a, a)); });
  EXPECT_EQ(overload.code, GF_NOT_FOUND);
  EXPECT_THAT(overload.message, AllOf(HasSubstr("aten::add"), HasSubstr("Tensor")));
  EXPECT_EQ(overload.worker, "worker1");
}

TEST_P(BadInputTest, TheAllowListIsConfiguredOnTheCallee) {
  Group group(transport(), {"worker0", "worker1"},
              {{"security.operators", "[\"aten::mul\"]"}, {"security.operators_extra", "[\"aten::cos\"]"}});
  const Tensor a = Floats({1}, {0});
  EXPECT_EQ(ReadFloats(RemoteOp(group[0], "worker1", {}, "aten::mul.Tensor", a, a)), std::vector<float>({0}));
  EXPECT_EQ(ReadFloats(RemoteOp(group[0], "worker1", {}, "aten::cos", a)), std::vector<float>({1}));
  const Error error = ErrorOf([&] { RemoteOp(group[0], "worker1", {}, "aten::add.Tensor", a, a); });
  EXPECT_EQ(error.code, GF_PERMISSION_DENIED);
  EXPECT_THAT(error.message, HasSubstr("aten::add"));
}

TEST_P(BadInputTest, AnOperatorThatFailsSaysWhereAndWhy) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({2, 3}, 1)), b = Random({4, 5}, 2);
  const Context context = NewContext(group[0]);
  const Error shapes = ErrorOf([&] { RemoteOp(group[0], "worker1", In(context), "aten::matmul", a, b); });
  EXPECT_NE(shapes.code, GF_OK);
  EXPECT_EQ(shapes.worker, "worker1");
  EXPECT_THAT(shapes.operation, HasSubstr("aten::matmul"));
  EXPECT_THAT(shapes.description, HasSubstr("2x3"));
  const Error argument = ErrorOf([&] { RemoteOp(group[0], "worker1", In(context), "aten::add.Tensor", a, "text"); });
  EXPECT_EQ(argument.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(argument.message, AllOf(HasSubstr("aten::add"), HasSubstr("other"), HasSubstr("text")));
  // A call that failed after it was sent does not stand in the way of a pass.
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mul.Tensor", a, a);
  Backward(context, {Sum(product)});
  EXPECT_TRUE(HasGradient(context, a));
}

TEST_P(BadInputTest, TensorsThatCannotBeSent) {
  Group group(transport(), {"worker0", "worker1"});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const Context context = NewContext(group[0]);
  constexpr int kQuint8 = 13;  // libtorch's number of the dtype
  const Tensor quantized = Op("aten::quantize_per_tensor", Random({4}, 1), 0.1, 0, kQuint8);
  for (const auto& [tensor, text] :
       std::vector<std::pair<Tensor, const char*>>{{MetaTensor({2, 3}), "meta"}, {quantized, "quantized"}}) {
    const Error error = ErrorOf([&] { CallWorker(group[0], "worker1", "echo", ListOf(tensor), In(context)); });
    EXPECT_EQ(error.code, GF_UNSUPPORTED);
    EXPECT_THAT(error.message, HasSubstr(text));
    EXPECT_EQ(error.operation, "echo");
    EXPECT_EQ(error.peer, "worker1");
  }
  EXPECT_EQ(gf_live_objects(GF_LIVE_CALLS), 0);
  // One that requires grad leaves no send function behind.
  const Tensor meta = WithGrad(MetaTensor({2}));
  EXPECT_EQ(ErrorOf([&] { CallWorker(group[0], "worker1", "echo", ListOf(meta), In(context)); }).code, GF_UNSUPPORTED);
  EXPECT_EQ(Describe(context)["send_functions"].size(), 0u);
}

TEST_P(BadInputTest, MessagesBeyondTheLimitsAreRefusedBeforeTheyLeave) {
  Group group(transport(), {"worker0", "worker1"}, {{"limits.message_bytes", "65536"}, {"limits.nesting", "3"}});
  HandleDirect(group[1], "echo", [](Request request) { Reply(request, Arguments(request)); });
  const Error bytes = ErrorOf([&] { CallWorker(group[0], "worker1", "echo", ListOf(Random({256, 256}, 1))); });
  EXPECT_EQ(bytes.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(bytes.message, HasSubstr("limits.message_bytes"));
  const Error deep =
      ErrorOf([&] { CallWorker(group[0], "worker1", "echo", ListOf(ListOf(ListOf(ListOf(ListOf(1)))))); });
  EXPECT_EQ(deep.code, GF_RESOURCE_EXHAUSTED);
  EXPECT_THAT(deep.message, HasSubstr("limits.nesting"));
  // The connection is as good as before.
  EXPECT_EQ(IntAt(CallWorker(group[0], "worker1", "echo", ListOf(1)), 0), 1);
}

TEST_P(BadInputTest, GradientsThatAreNotThere) {
  Group group(transport(), {"worker0"});
  const Context context = NewContext(group[0]);
  const Tensor a = WithGrad(Random({2, 3}, 1));
  const Error error = ErrorOf([&] { Gradient(context, a); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_THAT(error.message, AllOf(HasSubstr("no gradient"), HasSubstr("worker0"), HasSubstr("[2, 3]")));
}

TEST_P(BadInputTest, PeersThatCannotBe) {
  Group group(transport(), {"worker0", "worker1"});
  const Error no_name = ErrorOf([&] { AddPeer(group[0], 5, "", "x"); });
  EXPECT_EQ(no_name.code, GF_INVALID_ARGUMENT);
  const Error bad_name = ErrorOf([&] { AddPeer(group[0], 5, "a worker", "x"); });
  EXPECT_EQ(bad_name.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(bad_name.message, HasSubstr("a worker"));
  const Error bad_id = ErrorOf([&] { AddPeer(group[0], 40000, "worker5", "x"); });
  EXPECT_EQ(bad_id.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(bad_id.message, AllOf(HasSubstr("40000"), HasSubstr("worker5")));
  const Error taken_name = ErrorOf([&] { AddPeer(group[0], 5, "worker1", "x"); });
  EXPECT_EQ(taken_name.code, GF_ALREADY_EXISTS);
  EXPECT_THAT(taken_name.message, HasSubstr("worker1"));
  const Error taken_id = ErrorOf([&] { AddPeer(group[0], 1, "worker5", "x"); });
  EXPECT_EQ(taken_id.code, GF_ALREADY_EXISTS);
  EXPECT_THAT(taken_id.message, HasSubstr("worker1"));
  EXPECT_EQ(Info(group[0])["peers"].size(), 2u);
}

GF_OVER_ALL_WAYS(BadInputTest);

}  // namespace
}  // namespace gf
