// Wrong input, one thing at a time: each is refused with the code and the words that say what is wrong and where, and
// nothing is left behind (the fixture counts).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "tests/integration/modes.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

void ExpectError(const Error& error, int32_t code, const ::testing::Matcher<const std::string&>& text) {
  EXPECT_STREQ(gf_code_name(error.code), gf_code_name(code)) << error.description;
  EXPECT_THAT(error.description, text);
}

// ---- Handles -------------------------------------------------------------------------------------------------------

class BadHandleTest : public LiveTest {};

TEST_F(BadHandleTest, NullIsRefusedEverywhere) {
  ExpectError(ErrorOf([] { Call(gf_worker_start, static_cast<gf_worker*>(nullptr)); }), GF_INVALID_ARGUMENT,
              HasSubstr("gf_worker"));
  ExpectError(ErrorOf([] { Call(gf_context_release, static_cast<gf_context*>(nullptr)); }), GF_INVALID_ARGUMENT,
              HasSubstr("gf_context"));
  ExpectError(ErrorOf([] { Call(gf_future_cancel, static_cast<gf_future*>(nullptr)); }), GF_INVALID_ARGUMENT,
              HasSubstr("gf_future"));
  ExpectError(ErrorOf([] { Call(gf_queue_wake, static_cast<gf_queue*>(nullptr), uintptr_t{1}); }), GF_INVALID_ARGUMENT,
              HasSubstr("gf_queue"));
  ExpectError(ErrorOf([] { Call(gf_request_reply, static_cast<gf_request*>(nullptr), static_cast<gf_list*>(nullptr)); }),
              GF_INVALID_ARGUMENT, HasSubstr("gf_request"));
  EXPECT_EQ(gf_context_id(nullptr), 0);
  EXPECT_EQ(gf_future_is_done(nullptr), 0);
}

TEST_F(BadHandleTest, OneThatWasGivenBackOrIsOfAnotherKindIsRefused) {
  gf_queue* freed = nullptr;
  Call(gf_queue_new, &freed);
  gf_queue_unref(freed);
  ExpectError(ErrorOf([&] { Call(gf_queue_wake, freed, uintptr_t{1}); }), GF_INVALID_ARGUMENT, HasSubstr("gf_queue"));
  gf_queue_unref(freed);  // does nothing
  const List list = NewList();
  ExpectError(ErrorOf([&] { Call(gf_queue_wake, reinterpret_cast<gf_queue*>(list.get()), uintptr_t{1}); }),
              GF_INVALID_ARGUMENT, HasSubstr("gf_queue"));
}

// ---- Configurations and plugins ------------------------------------------------------------------------------------

class BadConfigTest : public LiveTest {
 protected:
  static Error Load(const std::string& toml) {
    const Config config = NewConfig();
    return ErrorOf([&] { Call(gf_config_load_text, config, toml.data(), toml.size()); });
  }
  static Error Open(const Settings& settings) {
    return ErrorOf([&] { OpenWorker(WorkerConfig("sim", UniqueName(), "alone", 0, settings)); });
  }
  static std::string Write(const std::string& name, const std::string& bytes) {
    const std::string path = ::testing::TempDir() + "/" + UniqueName() + name;
    std::ofstream(path, std::ios::binary) << bytes;
    return path;
  }
  static std::string Slurp(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  }
};

TEST_F(BadConfigTest, AnUnknownKeyIsNamedWithTheNearestKnownOne) {
  ExpectError(Load("[worker]\nthread = 2\n"), GF_INVALID_ARGUMENT,
              AllOf(HasSubstr("worker.thread"), HasSubstr("worker.threads")));
}

TEST_F(BadConfigTest, AWrongTypeSaysWhatIsWanted) {
  ExpectError(Load("[worker]\nthreads = 'two'\n"), GF_INVALID_ARGUMENT,
              AllOf(HasSubstr("worker.threads"), HasSubstr("integer")));
}

TEST_F(BadConfigTest, AMissingFileIsNamed) {
  const Config config = NewConfig();
  const std::string path = "/nowhere/gradferry.toml";
  ExpectError(ErrorOf([&] { Call(gf_config_load_file, config, path.data(), path.size()); }), GF_NOT_FOUND,
              HasSubstr(path));
}

TEST_F(BadConfigTest, AWorkerWithoutANameOrWithABadOneIsRefused) {
  const Config config = NewConfig();
  ExpectError(ErrorOf([&] { OpenWorker(config); }), GF_INVALID_ARGUMENT, HasSubstr("worker.name"));
  ExpectError(Open({{"worker.name", "two words"}}), GF_INVALID_ARGUMENT, HasSubstr("two words"));
  ExpectError(Open({{"worker.id", "32768"}}), GF_INVALID_ARGUMENT, HasSubstr("32768"));
}

TEST_F(BadConfigTest, APluginThatIsMissingIsAnErrorThatListsThePlaces) {
  ExpectError(Open({{"transport.name", "pigeon"}, {"transport.plugin_path", "['/nowhere/plugins']"}}), GF_NOT_FOUND,
              AllOf(HasSubstr("pigeon"), HasSubstr("/nowhere/plugins")));
}

TEST_F(BadConfigTest, AFileThatIsNoPluginIsRefused) {
  const std::string text = Write("_text.so", "this is no shared object");
  ExpectError(Open({{"transport.plugin", text}}), GF_INVALID_ARGUMENT, AllOf(HasSubstr(text), HasSubstr("not a")));
}

TEST_F(BadConfigTest, APluginOfAnotherEpochIsRefusedBeforeItRuns) {
  std::string bytes = Slurp("plugins/sim/libgradferry_transport_sim.so");
  ASSERT_FALSE(bytes.empty());
  const size_t note = bytes.find(std::string("Gradferry\0\0\0", 12));
  ASSERT_NE(note, std::string::npos);
  bytes[note + 12] = 77;  // the epoch follows the name
  const std::string path = Write("_epoch.so", bytes);
  ExpectError(Open({{"transport.plugin", path}}), GF_UNSUPPORTED, AllOf(HasSubstr("77"), HasSubstr("epoch")));
}

TEST_F(BadConfigTest, AnUnknownOptionOfTheTransportIsNamed) {
  ExpectError(Open({{"transport.sim.colour", "red"}}), GF_INVALID_ARGUMENT, HasSubstr("colour"));
}

TEST_F(BadConfigTest, ARendezvousThatIsNoneIsRefused) {
  ExpectError(Open({{"group.rendezvous", "carrier://pigeon"}, {"group.rank", "0"}, {"group.world_size", "1"}}),
              GF_INVALID_ARGUMENT, HasSubstr("carrier://pigeon"));
}

TEST_F(BadConfigTest, AMemberThatDoesNotJoinIsNamed) {
  const std::string file = ::testing::TempDir() + "/" + UniqueName();
  ExpectError(Open({{"group.rendezvous", "file://" + file},
                    {"group.rank", "0"},
                    {"group.world_size", "2"},
                    {"group.join_timeout", "50ms"}}),
              GF_DEADLINE_EXCEEDED, HasSubstr("rank 1"));
}

// ---- Over each transport -------------------------------------------------------------------------------------------

class BadInputTest : public TransportTest {
 protected:
  void SetUp() override {
    TransportTest::SetUp();
    group_ = std::make_unique<Group>(transport(), std::vector<std::string>{"alice", "bob"});
  }
  void TearDown() override {
    group_.reset();
    TransportTest::TearDown();
  }
  Error CallBob(const std::string& name, const List& arguments, const CallOptions& options = {}) {
    return ErrorOf([&] { CallWorker((*group_)[0], "bob", name, arguments, options); });
  }

  std::unique_ptr<Group> group_;
};

TEST_P(BadInputTest, AnUnknownWorkerIsNamed) {
  ExpectError(ErrorOf([&] { CallWorker((*group_)[0], "carol", "f", NewList()); }), GF_NOT_FOUND, HasSubstr("carol"));
}

TEST_P(BadInputTest, AnUnknownHandlerIsNamedWithItsWorker) {
  ExpectError(CallBob("nothing", NewList()), GF_NOT_FOUND, AllOf(HasSubstr("nothing"), HasSubstr("bob")));
}

TEST_P(BadInputTest, AnOperatorThatIsNotOnTheListIsRefused) {
  ExpectError(CallBob("aten::from_file", ListOf("/etc/passwd")), GF_PERMISSION_DENIED,
              AllOf(HasSubstr("aten::from_file"), HasSubstr("bob")));
  ExpectError(CallBob("aten::save", ListOf(1, "/tmp/x")), GF_PERMISSION_DENIED, HasSubstr("aten::save"));
}

TEST_P(BadInputTest, AnOperatorOrOverloadThatDoesNotExistIsNamed) {
  ExpectError(CallBob("aten::add.Nothing", NewList()), GF_NOT_FOUND, HasSubstr("aten::add"));
}

TEST_P(BadInputTest, AnArgumentThatDoesNotFitNamesOperatorAndParameter) {
  const Tensor tensor = Floats({2}, {1, 2});
  ExpectError(CallBob("aten::add.Tensor", ListOf(tensor, "two")), GF_INVALID_ARGUMENT,
              AllOf(HasSubstr("aten::add.Tensor"), HasSubstr("other"), HasSubstr("Tensor"), HasSubstr("string")));
  ExpectError(CallBob("aten::matmul", ListOf(tensor, Floats({3}, {1, 2, 3}))), GF_UNKNOWN, HasSubstr("aten::matmul"));
}

TEST_P(BadInputTest, ATensorWithoutMemoryCannotTravel) {
  ExpectError(CallBob("aten::neg", ListOf(MetaTensor({2}))), GF_UNSUPPORTED, HasSubstr("meta"));
}

TEST_P(BadInputTest, ADefaultCannotTravelToAHandler) {
  RegisterHandlers(group_->server(1));
  ExpectError(CallBob("contexts", ListOf(Default())), GF_INVALID_ARGUMENT, HasSubstr("default"));
}

TEST_P(BadInputTest, AMessageThatIsTooLargeIsRefusedAndTheConnectionLives) {
  RegisterHandlers(group_->server(1));
  const std::string large(2 << 20, 'x');
  ExpectError(CallBob("contexts", ListOf(large)), GF_RESOURCE_EXHAUSTED, HasSubstr("limits.header_bytes"));
  group_->server(1).On("large", [&large](const Request&) { return ListOf(large); });
  ExpectError(CallBob("large", NewList()), GF_RESOURCE_EXHAUSTED, HasSubstr("limits.header_bytes"));
  EXPECT_EQ(IntAt(CallWorker((*group_)[0], "bob", "contexts", ListOf(std::string(900000, 'x'))), 0), 0);
}

TEST_P(BadInputTest, AHandlerThatFailsGivesItsCodeAndWords) {
  group_->server(1).On("fail", [](const Request& request) -> List {
    Fail(request, GF_DATA_LOSS, "the data set is gone");
    return NewList();
  });
  const Error error = CallBob("fail", NewList());
  ExpectError(error, GF_DATA_LOSS, AllOf(HasSubstr("the data set is gone"), HasSubstr("bob")));
  EXPECT_EQ(error.worker, "bob");
  EXPECT_EQ(error.operation, "fail");
}

TEST_P(BadInputTest, AHandlerThatNeverAnswersEndsAtTheDeadline) {
  Request kept;
  HandleDirect((*group_)[1], "never", [&kept](Request request) { kept = std::move(request); });
  const Error error = CallBob("never", NewList(), CallOptions().Deadline(50 * kMillisecond));
  ExpectError(error, GF_DEADLINE_EXCEEDED, AllOf(HasSubstr("never"), HasSubstr("bob")));
  EXPECT_GE(error.elapsed_ns, 50 * kMillisecond);
  EXPECT_TRUE(Eventually([&] { return gf_request_is_cancelled(kept) == 1; }));
}

TEST_P(BadInputTest, ARequestIsAnsweredOnce) {
  Error second;
  group_->server(1).On("twice", [&second](const Request& request) {
    Reply(request, ListOf(1));
    second = ErrorOf([&] { Reply(request, ListOf(2)); });
    return ListOf(3);
  });
  EXPECT_EQ(IntAt(CallWorker((*group_)[0], "bob", "twice", NewList()), 0), 1);
  EXPECT_TRUE(Eventually([&] { return Info((*group_)[1])["requests"] == 0; }));
  group_.reset();  // joins the handler's thread
  ExpectError(second, GF_FAILED_PRECONDITION, HasSubstr("twice"));
}

TEST_P(BadInputTest, ARequestThatIsGivenBackUnansweredFails) {
  HandleDirect((*group_)[1], "forget", [](Request) {});
  ExpectError(CallBob("forget", NewList()), GF_INTERNAL, AllOf(HasSubstr("forget"), HasSubstr("answer")));
}

TEST_P(BadInputTest, TheRootsOfAPassAreChecked) {
  const Context context = NewContext((*group_)[0]);
  const Tensor leaf = WithGrad(Floats({2}, {1, 2}));
  const Tensor root = RemoteOp((*group_)[0], "bob", In(context), "aten::neg", leaf);
  auto backward = [&](const std::vector<Tensor>& roots, const BackwardOptions& options = {}) {
    return ErrorOf([&] { Backward(context, roots, options); });
  };
  ExpectError(backward({}), GF_INVALID_ARGUMENT, HasSubstr("roots"));
  ExpectError(backward({Floats({}, {1})}), GF_INVALID_ARGUMENT, HasSubstr("root 0 does not require grad"));
  ExpectError(backward({root}), GF_INVALID_ARGUMENT, AllOf(HasSubstr("root 0"), HasSubstr("2 elements")));
  ExpectError(backward({root}, BackwardOptions().Seeds({Floats({3}, {1, 1, 1})})), GF_INVALID_ARGUMENT,
              AllOf(HasSubstr("root 0"), HasSubstr("[3]")));
  ExpectError(backward({root}, BackwardOptions().Seeds({Doubles({2}, {1, 1})})), GF_INVALID_ARGUMENT,
              HasSubstr("float64"));
  // The context is as good as before.
  Backward(context, {root}, BackwardOptions().Seeds({Floats({2}, {1, 3})}));
  EXPECT_EQ(ReadFloats(Gradient(context, leaf)), (std::vector<float>{-1, -3}));
}

TEST_P(BadInputTest, UnknownAndReleasedContextsAreRefused) {
  ExpectError(ErrorOf([&] { FindContext((*group_)[0], 12345); }), GF_NOT_FOUND, HasSubstr("12345"));
  const Context context = NewContext((*group_)[0]);
  const Tensor leaf = WithGrad(Floats({2}, {1, 2}));
  const Tensor root = Sum(RemoteOp((*group_)[0], "bob", In(context), "aten::neg", leaf));
  Release(context);
  const auto released = HasSubstr("was released");
  ExpectError(ErrorOf([&] { Backward(context, {root}); }), GF_NOT_FOUND, released);
  ExpectError(ErrorOf([&] { Gradient(context, leaf); }), GF_NOT_FOUND, released);
  ExpectError(ErrorOf([&] { Describe(context); }), GF_NOT_FOUND, released);
  ExpectError(CallBob("aten::neg", ListOf(leaf), In(context)), GF_NOT_FOUND, released);
}

TEST_P(BadInputTest, AContextOfAnotherWorkerIsRefused) {
  const Context context = NewContext((*group_)[1]);
  ExpectError(CallBob("aten::neg", ListOf(Floats({1}, {1})), In(context)), GF_INVALID_ARGUMENT,
              AllOf(HasSubstr("alice"), HasSubstr("bob")));
}

TEST_P(BadInputTest, AnAddressInUseIsNamed) {
  const std::string address = Address((*group_)[0]);
  const Config config = WorkerConfig(transport(), group_->network(), "second", 5, {{"worker.listen", address}});
  ExpectError(ErrorOf([&] { OpenWorker(config); }), GF_ALREADY_EXISTS, HasSubstr(address.substr(0, address.find('#'))));
}

TEST_P(BadInputTest, APeerThatIsNotThereIsNamed) {
  std::string address;
  {
    const Worker gone = OpenWorker(WorkerConfig(transport(), group_->network(), "ghost", 9));
    address = Address(gone);
    Call(gf_worker_close, gone, kPatience);
  }
  AddPeer((*group_)[0], 9, "ghost", address);
  ExpectError(ErrorOf([&] { CallWorker((*group_)[0], "ghost", "f", NewList()); }), GF_UNAVAILABLE, HasSubstr("ghost"));
}

TEST_P(BadInputTest, AWorkerOfAnotherGroupIsRefusedByBothSides) {
  const Config config = WorkerConfig(transport(), group_->network(), "stranger", 7, {{"group.name", "others"}});
  const Worker stranger = OpenWorker(config);
  AddPeer(stranger, 1, "bob", Address((*group_)[1]));
  ExpectError(ErrorOf([&] { CallWorker(stranger, "bob", "f", NewList()); }), GF_PERMISSION_DENIED,
              AllOf(HasSubstr("others"), HasSubstr("bob")));
  Call(gf_worker_close, stranger, kPatience);
}

TEST_P(BadInputTest, AWorkerThatIsNotWhomItIsTakenForIsRefused) {
  AddPeer((*group_)[0], 3, "carol", Address((*group_)[1]));  // bob is there
  ExpectError(ErrorOf([&] { CallWorker((*group_)[0], "carol", "f", NewList()); }), GF_FAILED_PRECONDITION,
              AllOf(HasSubstr("carol"), HasSubstr("bob")));
}

TEST_P(BadInputTest, AWorkerCannotDoAnythingBeforeItStartsOrTwice) {
  const Config config = WorkerConfig(transport(), group_->network(), "new", 8);
  Worker worker;
  Call(gf_worker_create, config, worker.out());
  ExpectError(ErrorOf([&] { CallWorker(worker, "bob", "f", NewList()); }), GF_FAILED_PRECONDITION, HasSubstr("started"));
  ExpectError(ErrorOf([&] { NewContext(worker); }), GF_FAILED_PRECONDITION, HasSubstr("started"));
  Call(gf_worker_start, worker);
  ExpectError(ErrorOf([&] { Call(gf_worker_start, worker); }), GF_FAILED_PRECONDITION, HasSubstr("already"));
  Call(gf_worker_close, worker, kPatience);
  ExpectError(ErrorOf([&] { CallWorker(worker, "bob", "f", NewList()); }), GF_CLOSED, HasSubstr("new"));
}

GF_OVER_ALL_TRANSPORTS(BadInputTest);

}  // namespace
}  // namespace gf
