// Profiles of calls, and the trace of a worker: who sees which operators of whom, nested how.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/integration/fleet.h"
#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {
namespace {

using nlohmann::json;

class ProfileTest : public TransportTest {};

// "worker:kind:name" of each event after those around it, as in "a:call:f > b:request:f".
std::vector<std::string> Paths(const json& profile) {
  std::vector<std::string> paths;
  for (const json& event : profile["events"]) {
    const std::string own = event["worker"].get<std::string>() + ":" + event["kind"].get<std::string>() + ":" +
                            event["name"].get<std::string>();
    const int parent = event["parent"];
    paths.push_back(parent < 0 ? own : paths.at(static_cast<size_t>(parent)) + " > " + own);
  }
  return paths;
}

bool Has(const std::vector<std::string>& paths, const std::string& path) {
  return std::find(paths.begin(), paths.end(), path) != paths.end();
}

void ExpectNested(const json& profile) {
  const json& events = profile["events"];
  ASSERT_GE(events.size(), 1u);
  EXPECT_EQ(events[0]["start_ns"], 0);
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_LE(events[i]["start_ns"].get<int64_t>(), events[i]["end_ns"].get<int64_t>());
    if (i == 0) continue;
    const json& around = events[events[i]["parent"].get<size_t>()];
    EXPECT_EQ(events[i]["depth"], around["depth"].get<int>() + 1);
    EXPECT_GE(events[i]["start_ns"].get<int64_t>(), around["start_ns"].get<int64_t>()) << events[i];
    EXPECT_LE(events[i]["end_ns"].get<int64_t>(), around["end_ns"].get<int64_t>()) << events[i];
  }
}

json Profiled(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
              CallOptions options = {}) {
  Future ended;
  CallWorker(from, to, name, arguments, options.Profiled().Ended(ended));
  const json profile = ProfileOf(ended);
  ExpectNested(profile);
  return profile;
}

// Around what a handler does, on the thread that does it.
class Working {
 public:
  explicit Working(const Request& request) : request_(request) { Call(gf_request_profile_begin, request_); }
  ~Working() { Call(gf_request_profile_end, request_); }

 private:
  const Request request_;
};

TEST_P(ProfileTest, ShowsTheOperatorsOfTheCallee) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({4, 4}, 1));
  const std::string request = "worker0:call:aten::linear > worker1:request:aten::linear";
  for (bool in_context : {false, true}) {
    const Context context = NewContext(group[0]);
    const json profile =
        Profiled(group[0], "worker1", "aten::linear", ListOf(a, a), in_context ? In(context) : CallOptions());
    const auto paths = Paths(profile);
    EXPECT_EQ(paths[0], "worker0:call:aten::linear");
    EXPECT_EQ(paths[1], request);
    EXPECT_EQ(paths[2], request + " > worker1:operator:aten::linear");
    EXPECT_TRUE(Has(paths, request + " > worker1:operator:aten::linear > worker1:operator:aten::matmul")) << profile;
    EXPECT_EQ(profile["dropped"], 0);
  }
}

// Another worker's call of a handler that computes, calls on, and computes again; once on a thread of its own, once on
// the library's.
TEST_P(ProfileTest, ShowsNestedCallsWithinTheirParents) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  gf_worker* const middle = group[1];
  group.server(1).On("queued", [&](const Request& request) {
    const Working working(request);
    const Tensor input = TensorAt(Arguments(request), 0);
    const Tensor there = RemoteOp(middle, "worker2", CallOptions().Parent(request), "aten::mul.Tensor", input, input);
    return ListOf(Op("aten::neg", there));
  });
  const Queue completions = NewQueue();
  HandleDirect(middle, "direct", [&](const Request& request) {
    const Tensor input = TensorAt(Arguments(request), 0);
    const Tensor negated = Op("aten::neg", input);
    QueueCall(middle, "worker2", "aten::mul.Tensor", ListOf(negated, input),
              CallOptions().Parent(request).To(completions, reinterpret_cast<uintptr_t>(gf_request_ref(request))));
  });
  Threads threads;
  threads.Start([&] {
    const Entry entry = Next(completions);
    Reply(Request(reinterpret_cast<gf_request*>(entry.token)), entry.results);
  });
  const Tensor a = Random({2}, 1);
  for (const std::string name : {"queued", "direct"}) {
    SCOPED_TRACE(name);
    const json profile = Profiled(group[0], "worker1", name, ListOf(a));
    const auto paths = Paths(profile);
    const std::string handler = "worker0:call:" + name + " > worker1:request:" + name + " > worker1:handler:" + name;
    const std::string call = handler + " > worker1:call:aten::mul.Tensor";
    EXPECT_TRUE(Has(paths, handler + " > worker1:operator:aten::neg")) << profile;
    EXPECT_TRUE(Has(paths, call + " > worker2:request:aten::mul.Tensor > worker2:operator:aten::mul")) << profile;
  }
  threads.Join();
}

// Not even when the handler's own thread runs the nodes.
TEST_P(ProfileTest, PassesOfAHandlerAreNotInIt) {
  Group group(transport(), {"worker0", "worker1", "worker2"});
  gf_worker* const middle = group[1];
  group.server(1).On("train", [&](const Request& request) {
    const Working working(request);
    const Tensor x = WithGrad(Floats({2}, {1, 2}));
    const Context context = NewContext(middle);
    const Tensor there = RemoteOp(middle, "worker2", In(context), "aten::mul.Tensor", x, x);
    Backward(context, {Op("aten::sum", Op("aten::sigmoid", there))});
    return ListOf(Gradient(context, x));
  });
  const json profile = Profiled(group[0], "worker1", "train", NewList());
  const std::string handler = "worker0:call:train > worker1:request:train > worker1:handler:train";
  EXPECT_TRUE(Has(Paths(profile), handler + " > worker1:operator:aten::sigmoid")) << profile;
  for (const std::string& path : Paths(profile)) EXPECT_EQ(path.find("sigmoid_backward"), std::string::npos) << path;
}

TEST_P(ProfileTest, OfACallThatFailed) {
  Group group(transport(), {"worker0", "worker1"});
  group.server(1).On("fail", [&](const Request& request) -> List {
    const Working working(request);
    Op("aten::neg", TensorAt(Arguments(request), 0));
    Error error;
    error.code = GF_OUT_OF_RANGE;
    error.message = "no";
    throw Failure(error);
  });
  const Tensor a = Random({2}, 1);
  Future ended;
  const auto fail = [&](const std::string& name, const List& arguments, CallOptions options = {}) {
    return ErrorOf([&] { CallWorker(group[0], "worker1", name, arguments, options.Profiled().Ended(ended)); }).code;
  };
  EXPECT_EQ(fail("fail", ListOf(a)), GF_OUT_OF_RANGE);
  ExpectNested(ProfileOf(ended));
  EXPECT_TRUE(Has(Paths(ProfileOf(ended)),
                  "worker0:call:fail > worker1:request:fail > worker1:handler:fail > worker1:operator:aten::neg"));
  EXPECT_EQ(ErrorOf([&] { Call(gf_future_take, ended, nullptr); }).code, GF_OUT_OF_RANGE);
  EXPECT_NE(fail("aten::mm", ListOf(a, a)), GF_OK);
  EXPECT_TRUE(Has(Paths(ProfileOf(ended)), "worker0:call:aten::mm > worker1:request:aten::mm"));
  EXPECT_EQ(fail("nobody", NewList()), GF_NOT_FOUND);
  EXPECT_EQ(ProfileOf(ended)["events"].size(), 2u);
  // What was never answered has its caller's part.
  RegisterHandlers(group.server(1));
  EXPECT_EQ(fail("hang", NewList(), CallOptions().Deadline(20 * kMillisecond)), GF_DEADLINE_EXCEEDED);
  EXPECT_EQ(Paths(ProfileOf(ended)), std::vector<std::string>({"worker0:call:hang"}));
}

TEST_P(ProfileTest, IsThereOnlyWhenItWasAskedForAndTheCallHasEnded) {
  Group group(transport(), {"worker0", "worker1"});
  RegisterHandlers(group.server(1));
  const Tensor a = Random({2}, 1);
  const Future plain = StartCall(group[0], "worker1", "aten::neg", ListOf(a));
  Await(plain);
  EXPECT_EQ(ErrorOf([&] { ProfileOf(plain); }).code, GF_NOT_FOUND);
  const Future running = StartCall(group[0], "worker1", "hang", NewList(), CallOptions().Profiled());
  EXPECT_EQ(ErrorOf([&] { ProfileOf(running); }).code, GF_FAILED_PRECONDITION);
  Call(gf_future_cancel, running);
  EXPECT_EQ(ErrorOf([&] { ProfileOf(running); }).code, GF_NOT_FOUND);
  const Future asked = StartCall(group[0], "worker1", "aten::neg", ListOf(a), CallOptions().Profiled());
  Await(asked);
  EXPECT_TRUE(
      Has(Paths(ProfileOf(asked)), "worker0:call:aten::neg > worker1:request:aten::neg > worker1:operator:aten::neg"));
}

// A call that is not profiled is the plain message. (Of several calls, since other frames may be sent meanwhile.)
TEST_P(ProfileTest, CostsNothingOnTheWireWhereNobodyAskedForIt) {
  Group group(transport(), {"worker0", "worker1"});
  const auto bytes_of_a_call = [&](const CallOptions& options) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 5; ++i) {
      const auto sent = [&] { return Info(group[0])["metrics"]["bytes_sent"].get<uint64_t>(); };
      const uint64_t before = sent();
      RemoteOp(group[0], "worker1", options, "aten::neg", Floats({1}, {1}));
      least = std::min(least, sent() - before);
    }
    return least;
  };
  constexpr uint64_t kWrapper = 4 + 8 + 4 + 1;  // most_events, dropped, no events, kind
  const uint64_t plain = bytes_of_a_call({});
  EXPECT_EQ(bytes_of_a_call(CallOptions().Profiled()), plain + kWrapper);
  Call(gf_worker_trace_start, group[0], uint64_t{0});
  EXPECT_EQ(bytes_of_a_call({}), plain);
}

TEST_P(ProfileTest, IsBounded) {
  Group group(transport(), {"worker0", "worker1"}, {{"limits.profile_events", "5"}});
  group.server(1).On("busy", [](const Request& request) {
    const Working working(request);
    Tensor sum = TensorAt(Arguments(request), 0);
    for (int i = 0; i < 20; ++i) sum = Add(sum, sum);
    return ListOf(sum);
  });
  const json profile = Profiled(group[0], "worker1", "busy", ListOf(Random({2}, 1)));
  EXPECT_EQ(profile["events"].size(), 5u);
  // 22 at the callee, one more here.
  EXPECT_EQ(profile["dropped"], 22 + 1 - 5);
}

// The results come first: a reply that has no room for the profile comes without its events.
TEST_P(ProfileTest, NeverKeepsAReplyFromFitting) {
  Group group(transport(), {"worker0", "worker1"});
  const std::string text((1 << 20) - 2000, 'x');
  group.server(1).On("large", [&](const Request& request) {
    const Working working(request);
    for (int i = 0; i < 100; ++i) Op("aten::neg", Floats({1}, {1}));
    return ListOf(text);
  });
  Future ended;
  const List results = CallWorker(group[0], "worker1", "large", NewList(), CallOptions().Profiled().Ended(ended));
  EXPECT_EQ(StringAt(results, 0).size(), text.size());
  EXPECT_EQ(Paths(ProfileOf(ended)), std::vector<std::string>({"worker0:call:large"}));
  EXPECT_EQ(ProfileOf(ended)["dropped"], 102);
}

TEST_P(ProfileTest, WrongUseIsRefused) {
  Group group(transport(), {"worker0", "worker1"});
  const std::string to = "worker1", name = "f";
  gf_call call{};
  call.struct_size = sizeof(call);
  call.to = to.data();
  call.to_length = to.size();
  call.name = name.data();
  call.name_length = name.size();
  call.profile = 2;
  List results;
  EXPECT_EQ(ErrorOf([&] { Call(gf_call_sync, group[0], &call, results.out()); }).code, GF_UNSUPPORTED);
  call.profile = 1;
  Future ended, started;
  call.ended = ended.out();
  EXPECT_EQ(ErrorOf([&] { Call(gf_call_start, group[0], &call, started.out()); }).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(ErrorOf([&] { Call(gf_worker_trace_start, group[0], uint64_t{10000001}); }).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(ErrorOf([&] { TraceOf(nullptr); }).code, GF_INVALID_ARGUMENT);
  std::vector<int32_t> codes;
  group.server(1).On("handler", [&](const Request& request) {
    const auto code = [](auto function, const Request& of) { return ErrorOf([&] { Call(function, of); }).code; };
    codes.push_back(code(gf_request_profile_end, request));
    codes.push_back(code(gf_request_profile_begin, request));
    codes.push_back(code(gf_request_profile_begin, request));
    codes.push_back(code(gf_request_profile_end, request));
    codes.push_back(code(gf_request_profile_end, request));
    codes.push_back(code(gf_request_profile_end, request));
    return NewList();
  });
  Profiled(group[0], "worker1", "handler", NewList());
  EXPECT_EQ(codes, std::vector<int32_t>({GF_FAILED_PRECONDITION, GF_OK, GF_OK, GF_OK, GF_OK, GF_FAILED_PRECONDITION}));
}

// The complete events of a trace.
std::vector<json> Complete(const json& trace, const std::string& category = "") {
  std::vector<json> events;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] == "X" && (category.empty() || event["cat"] == category)) events.push_back(event);
  }
  return events;
}

TEST_P(ProfileTest, TheTraceHasCallsRequestsAndPasses) {
  Group group(transport(), {"worker0", "worker1"});
  const Tensor a = WithGrad(Random({2, 2}, 1));
  Call(gf_worker_trace_start, group[0], uint64_t{0});
  Call(gf_worker_trace_start, group[1], uint64_t{0});
  const Context context = NewContext(group[0]);
  const Tensor product = RemoteOp(group[0], "worker1", In(context), "aten::mm", a, a);
  const Tensor sum = RemoteOp(group[0], "worker1", In(context).Profiled(), "aten::linear", product, a);
  EXPECT_NE(ErrorOf([&] { CallWorker(group[0], "worker1", "nobody", NewList()); }).code, GF_OK);
  Backward(context, {Sum(sum)});

  const json here = TraceOf(group[0]);
  const auto calls = Complete(here, "call"), passes = Complete(here, "pass");
  ASSERT_EQ(calls.size(), 3u);
  EXPECT_EQ(calls[0]["name"], "aten::mm");
  EXPECT_EQ(calls[0]["args"]["peer"], "worker1");
  EXPECT_EQ(calls[0]["args"]["outcome"], "OK");
  EXPECT_EQ(calls[0]["pid"], 0);
  EXPECT_EQ(calls[2]["args"]["outcome"], "NOT_FOUND");
  ASSERT_EQ(passes.size(), 1u);
  EXPECT_EQ(passes[0]["args"]["outcome"], "OK");
  // Those of the callee are in the row of the call that was profiled, within it.
  const auto operators = Complete(here, "operator");
  ASSERT_GE(operators.size(), 2u);
  for (const json& event : operators) {
    EXPECT_EQ(event["args"]["worker"], "worker1");
    EXPECT_EQ(event["tid"], calls[1]["tid"]);
    EXPECT_GE(double(event["ts"]), double(calls[1]["ts"]));
    // A double of µs since the machine started is exact to a fraction of a ns.
    EXPECT_LE(double(event["ts"]) + double(event["dur"]), double(calls[1]["ts"]) + double(calls[1]["dur"]) + 0.001);
  }
  // A request is recorded when its answer has gone, which may have arrived by then.
  EXPECT_TRUE(Eventually([&] {
    const json trace = TraceOf(group[1]);
    return Complete(trace, "request").size() == 3 && Complete(trace, "pass").size() >= 1;
  }));
  const json there = TraceOf(group[1]);
  EXPECT_EQ(Complete(there, "request").size(), 3u);
  EXPECT_EQ(Complete(there, "request")[0]["args"]["peer"], "worker0");
  EXPECT_EQ(Complete(there, "call").size(), 0u);
  const auto parts = Complete(there, "pass");
  ASSERT_GE(parts.size(), 1u);
  EXPECT_EQ(parts[0]["args"]["peer"], "worker0");
  EXPECT_EQ(parts[0]["args"]["outcome"], "OK");
  EXPECT_EQ(Complete(there, "operator").size(), operators.size());

  Call(gf_worker_trace_stop, group[0]);
  RemoteOp(group[0], "worker1", {}, "aten::neg", a);
  EXPECT_EQ(Complete(TraceOf(group[0]), "call").size(), 3u);
  Call(gf_worker_trace_start, group[0], uint64_t{2});
  for (int i = 0; i < 5; ++i) RemoteOp(group[0], "worker1", {}, "aten::neg", a);
  const json last = TraceOf(group[0]);
  EXPECT_EQ(Complete(last).size(), 2u);
  EXPECT_EQ(last["otherData"]["dropped"], 3);
}

// Many profiled calls at once, from many threads, while somebody reads the trace.
TEST_P(ProfileTest, ManyCallsAtOnce) {
  Group group(transport(), {"worker0", "worker1"});
  group.server(1).On("twice", [&](const Request& request) {
    const Working working(request);
    const Tensor input = TensorAt(Arguments(request), 0);
    return ListOf(RemoteOp(group[1], "worker0", CallOptions().Parent(request), "aten::add.Tensor", input, input));
  });
  Call(gf_worker_trace_start, group[0], uint64_t{100});
  const Tensor a = Random({2}, 1);
  Threads threads;
  for (int i = 0; i < 3; ++i) {
    threads.Start([&] {
      for (int turn = 0; turn < 20; ++turn) {
        const auto paths = Paths(Profiled(group[0], "worker1", "twice", ListOf(a)));
        EXPECT_TRUE(
            Has(paths,
                "worker0:call:twice > worker1:request:twice > worker1:handler:twice > "
                "worker1:call:aten::add.Tensor > worker0:request:aten::add.Tensor > worker0:operator:aten::add"));
        (void)TraceOf(group[0]);
      }
    });
  }
  threads.Join();
  EXPECT_EQ(Complete(TraceOf(group[0])).size(), 100u);
}

// Processes of their own: the clocks are the same, the threads are not.
class ProfileProcessesTest : public TransportTest {};

TEST_P(ProfileProcessesTest, AChainOfProcessesIsOneTree) {
  Fleet fleet(3, transport());
  const Tensor a = WithGrad(Random({2}, 1));
  const Context context = NewContext(fleet.worker());
  Call(gf_worker_trace_start, fleet.worker(), uint64_t{0});
  const json profile =
      Profiled(fleet.worker(), "worker1", "nested", ListOf(a, a, ListOf("worker2", "worker0", "worker1")), In(context));
  const auto paths = Paths(profile);
  std::string path = "worker0:call:nested > worker1:request:nested";
  for (const std::string hop :
       {"worker1:call:nested > worker2:request:nested", "worker2:call:nested > worker0:request:nested",
        "worker0:call:nested > worker1:request:nested"}) {
    path += " > " + hop;
    EXPECT_TRUE(Has(paths, path)) << profile;
  }
  EXPECT_EQ(profile["events"].size(), 8u) << profile;
  EXPECT_TRUE(Eventually([&] {
    const auto requests = Complete(TraceOf(fleet.worker()), "request");
    return std::any_of(requests.begin(), requests.end(), [](const json& event) {
      return event["args"].value("peer", "") == "worker2";  // what came here, besides what others told of theirs
    });
  }));
}

GF_OVER_ALL_WAYS(ProfileTest);
GF_OVER_ALL_REAL_WAYS(ProfileProcessesTest);

}  // namespace
}  // namespace gf
