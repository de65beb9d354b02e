// Unit tests of impl/base/config.h.
#include "impl/base/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>

namespace gradferry {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

void MustBeOk(const Status& status) { ASSERT_TRUE(status.ok()) << status.ToString(); }

std::string MessageOf(const Status& status) {
  EXPECT_FALSE(status.ok());
  return status.message();
}

std::string LoadError(std::string_view toml) {
  Config config;
  Status status = config.LoadText(toml);
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << toml;
  return status.message();
}

std::string SetError(std::string_view key, std::string_view text) {
  Config config;
  Status status = config.Set(key, text);
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << key << " = " << text;
  EXPECT_FALSE(config.IsSet(key));
  return status.message();
}

TEST(ConfigTest, HasDefaults) {
  Config config;
  EXPECT_EQ(config.GetString("worker.name"), "");
  EXPECT_EQ(config.GetString("group.name"), "default");
  EXPECT_EQ(config.GetNames("transport.name"), std::vector<std::string>({"tensorpipe"}));
  EXPECT_EQ(config.GetInt("worker.id"), -1);
  EXPECT_EQ(config.GetInt("worker.threads"), std::max(1u, std::thread::hardware_concurrency()));
  EXPECT_EQ(config.GetDuration("call.timeout"), int64_t{60} * 1000000000);
  EXPECT_EQ(config.GetDuration("backward.timeout"), int64_t{300} * 1000000000);
  EXPECT_EQ(config.GetInt("limits.message_bytes"), int64_t{16} << 30);
  EXPECT_TRUE(config.GetStrings("security.operators").empty());
  EXPECT_TRUE(config.GetPeers().empty());
  EXPECT_EQ(config.GetSection("transport.sim"), "{}");
  EXPECT_FALSE(config.IsSet("worker.id"));
}

TEST(ConfigTest, EveryDefaultPassesItsOwnCheck) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (*key.default_text == '\0') continue;
    Config config;
    Status status = config.Set(key.name, key.default_text);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

TEST(ConfigTest, EveryKeyHasAVariableOfItsOwn) {
  std::set<std::string> variables;
  for (const ConfigKey& key : ConfigKeys()) {
    std::string name = key.name;
    for (char& c : name) c = c == '.' ? '_' : c;
    EXPECT_TRUE(variables.insert(name).second) << key.name;
  }
}

TEST(ConfigTest, ReadsEveryTypeFromText) {
  Config config;
  MustBeOk(config.LoadText(R"(
    [worker]
    name = "trainer"
    threads = 3
    [group]
    peers = [{ id = 0, name = "trainer" }, { id = 1, name = "stage1", address = "tcp://10.0.0.1:5" }]
    join_timeout = "250ms"
    [security]
    operators_extra = ["aten::add", "aten::mul"]
    [transport.sim]
    seed = 7
    loss = 0.5
    link = { delay = "3ms", up = true }
  )"));
  EXPECT_EQ(config.GetString("worker.name"), "trainer");
  EXPECT_EQ(config.GetInt("worker.threads"), 3);
  EXPECT_EQ(config.GetDuration("group.join_timeout"), 250000000);
  EXPECT_THAT(config.GetStrings("security.operators_extra"), ElementsAre("aten::add", "aten::mul"));
  std::vector<ConfigPeer> peers = config.GetPeers();
  ASSERT_EQ(peers.size(), 2u);
  EXPECT_EQ(peers[0].id, 0);
  EXPECT_EQ(peers[0].name, "trainer");
  EXPECT_EQ(peers[0].address, "");
  EXPECT_EQ(peers[1].id, 1);
  EXPECT_EQ(peers[1].address, "tcp://10.0.0.1:5");
  json section = json::parse(config.GetSection("transport.sim"));
  EXPECT_EQ(section, json::parse(R"({"seed": 7, "loss": 0.5, "link": {"delay": "3ms", "up": true}})"));
}

TEST(ConfigTest, ALaterTextOverridesAnEarlierOneKeyByKey) {
  Config config;
  MustBeOk(config.LoadText("[worker]\nname = 'a'\nthreads = 1\n[transport.sim]\nseed = 1\nloss = 0.1"));
  MustBeOk(config.LoadText("[worker]\nname = 'b'\n[transport.sim]\nseed = 2"));
  EXPECT_EQ(config.GetString("worker.name"), "b");
  EXPECT_EQ(config.GetInt("worker.threads"), 1);
  EXPECT_EQ(json::parse(config.GetSection("transport.sim")), json::parse(R"({"seed": 2, "loss": 0.1})"));
}

TEST(ConfigTest, ACallGoesBeforeTheEnvironmentBeforeTextsBeforeDefaults) {
  Config config;
  EXPECT_EQ(config.WhereFrom("worker.threads"), Config::From::kDefault);
  MustBeOk(config.Set("worker.threads", "4"));
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_WORKER_THREADS=3", "GRADFERRY_WORKER_ID=3",
                                    "GRADFERRY_TRANSPORT_SIM_A=3", "GRADFERRY_TRANSPORT_SIM_B=3"}));
  MustBeOk(config.LoadText("worker = { threads = 2, id = 2, name = 'two' }\ntransport.sim = { a = 2, b = 2, c = 2 }"));
  MustBeOk(config.Set("transport.sim.a", "4"));
  EXPECT_EQ(config.GetInt("worker.threads"), 4);
  EXPECT_EQ(config.WhereFrom("worker.threads"), Config::From::kCall);
  EXPECT_EQ(config.GetInt("worker.id"), 3);
  EXPECT_EQ(config.WhereFrom("worker.id"), Config::From::kEnvironment);
  EXPECT_EQ(config.GetString("worker.name"), "two");
  EXPECT_EQ(config.WhereFrom("worker.name"), Config::From::kFile);
  EXPECT_EQ(json::parse(config.GetSection("transport.sim")), json::parse(R"({"a": 4, "b": 3, "c": 2})"));
}

TEST(ConfigTest, ACopyIsIndependent) {
  Config config;
  MustBeOk(config.Set("worker.name", "a"));
  Config copy = config;
  MustBeOk(copy.Set("worker.name", "b"));
  EXPECT_EQ(config.GetString("worker.name"), "a");
  EXPECT_EQ(copy.GetString("worker.name"), "b");
}

TEST(ConfigTest, SetTakesBareTextForStringsOnly) {
  Config config;
  MustBeOk(config.Set("worker.name", "42"));
  EXPECT_EQ(config.GetString("worker.name"), "42");
  MustBeOk(config.Set("worker.name", "\"quoted\""));
  EXPECT_EQ(config.GetString("worker.name"), "quoted");
  MustBeOk(config.Set("call.timeout", "2m"));
  EXPECT_EQ(config.GetDuration("call.timeout"), int64_t{120} * 1000000000);
  MustBeOk(config.Set("security.operators", "[\"aten::add\"]"));
  EXPECT_THAT(config.GetStrings("security.operators"), ElementsAre("aten::add"));
  MustBeOk(config.Set("group.peers", "[{ id = 5, name = \"x\", address = \"y\" }]"));
  ASSERT_EQ(config.GetPeers().size(), 1u);
  EXPECT_EQ(config.GetPeers()[0].id, 5);
  EXPECT_THAT(SetError("security.operators", "aten::add"), HasSubstr("security.operators wants a value as in TOML"));
  EXPECT_THAT(SetError("worker.threads", "many"), HasSubstr("worker.threads wants a value as in TOML"));
}

TEST(ConfigTest, OneSetCannotSmuggleInASecondKey) {
  EXPECT_THAT(SetError("worker.threads", "3\nother = 4"), HasSubstr("several lines"));
}

TEST(ConfigTest, TransportOptionsHaveTheTypeThatTheirTextHas) {
  Config config;
  MustBeOk(config.Set("transport.sim.seed", "3"));
  MustBeOk(config.Set("transport.sim.on", "true"));
  MustBeOk(config.Set("transport.sim.device", "eth0"));
  MustBeOk(config.Set("transport.sim.link", "{ delay = 1, jitter = 2 }"));
  MustBeOk(config.Set("transport.sim.link.delay", "5"));
  EXPECT_EQ(json::parse(config.GetSection("transport.sim")),
            json::parse(R"({"seed": 3, "on": true, "device": "eth0", "link": {"delay": 5, "jitter": 2}})"));
  EXPECT_EQ(config.GetSection("transport.other"), "{}");
}

TEST(ConfigTest, OneKeyOfATableIsOverriddenWithoutTheOthers) {
  Config config;
  MustBeOk(config.LoadText("transport.sim = { link = { delay = 1, jitter = 2 }, up = 3 }"));
  MustBeOk(config.Set("transport.sim.link", "{ delay = 5 }"));
  // Not the same shape in both places: the table wins.
  MustBeOk(config.Set("transport.sim.up.since", "4"));
  EXPECT_EQ(json::parse(config.GetSection("transport.sim")),
            json::parse(R"({"link": {"delay": 5, "jitter": 2}, "up": {"since": 4}})"));
}

TEST(ConfigTest, AnUnknownKeyIsRefusedWithItsLineAndTheNearest) {
  EXPECT_EQ(LoadError("[worker]\nname = 'a'\nthread = 3"),
            "line 3: unknown key worker.thread (did you mean worker.threads?)");
  EXPECT_EQ(LoadError("[worker]\nxyzzy = 3"), "line 2: unknown key worker.xyzzy");
  EXPECT_THAT(LoadError("threads = 3"), HasSubstr("unknown key threads (did you mean worker.threads?)"));
  EXPECT_THAT(LoadError("\n[wroker]"), HasSubstr("line 2: unknown key wroker"));
  EXPECT_THAT(LoadError("[transport.name]\nx = 3"), HasSubstr("unknown key transport.name.x"));
  EXPECT_THAT(LoadError("transport.sim = 3"), HasSubstr("unknown key transport.sim"));
  EXPECT_EQ(SetError("worker.nmae", "x"), "unknown key worker.nmae (did you mean worker.name?)");
  Config config;
  MustBeOk(config.LoadText("[worker]\n[transport.sim]\n"));  // empty sections say nothing
}

TEST(ConfigTest, TheFirstWrongLineIsNamed) {
  EXPECT_THAT(LoadError("[worker]\nthreads = 'x'\nid = 'y'\n"), StartsWith("line 2: "));
  EXPECT_THAT(LoadError("[worker]\nzzz = 1\nid = 'y'\n"), StartsWith("line 2: "));
}

TEST(ConfigTest, AWrongTypeIsRefusedWithWhatIsWantedAndGot) {
  EXPECT_EQ(LoadError("[worker]\nthreads = 'many'"),
            "line 2: worker.threads wants an integer from 1 to 1024; got the string \"many\"");
  EXPECT_THAT(LoadError("worker.threads = 0"), HasSubstr("from 1 to 1024; got the integer 0"));
  EXPECT_THAT(LoadError("worker.threads = 2.0"), HasSubstr("got the number 2.0"));
  EXPECT_THAT(LoadError("worker.name = 3"), HasSubstr("worker.name wants a string; got the integer 3"));
  EXPECT_THAT(LoadError("worker.name = 'a b'"), HasSubstr("1 to 127 characters"));
  EXPECT_THAT(LoadError("group.name = ''"), HasSubstr("not empty"));
  EXPECT_THAT(LoadError("limits.tensors = -1"), HasSubstr("limits.tensors wants an integer from 1"));
  EXPECT_THAT(LoadError("call.timeout = 60"), AllOf(HasSubstr("wants a duration"), HasSubstr("got the integer 60")));
  EXPECT_THAT(LoadError("security.operators = 'aten::add'"), HasSubstr("an array of strings"));
  EXPECT_THAT(LoadError("security.operators = ['aten::add', 3]"), HasSubstr("got the array [\"aten::add\",3]"));
  EXPECT_THAT(LoadError("group.rendezvous = 'http://x'"), HasSubstr("tcp://host:port"));
  EXPECT_THAT(LoadError("group.rendezvous = 'tcp://x'"), HasSubstr("tcp://host:port"));
  EXPECT_THAT(LoadError("group.rendezvous = 'file://x'"), HasSubstr("file:///path"));
  EXPECT_THAT(LoadError("transport.sim.x = nan"), HasSubstr("x wants a finite number, got nan"));
}

TEST(ConfigTest, RendezvousFormsAreTaken) {
  for (const char* text : {"", "env", "tcp://127.0.0.1:29500", "tcp://[::1]:29500", "file:///tmp/x"}) {
    Config config;
    MustBeOk(config.Set("group.rendezvous", text));
    EXPECT_EQ(config.GetString("group.rendezvous"), text);
  }
}

TEST(ConfigTest, PeersAreCheckedOneByOne) {
  EXPECT_THAT(LoadError("group.peers = ['0 a x']"), HasSubstr("an array of { id = 0"));
  EXPECT_THAT(LoadError("group.peers = { id = 0, name = 'a' }"), HasSubstr("unknown key group.peers.id"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0 }]"), HasSubstr("each with id and name"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 40000, name = 'a' }]"), HasSubstr("0 to 32767"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0, name = 'a b' }]"), HasSubstr("each name 1 to 127"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0, name = 'a', adress = 'x' }]"), HasSubstr("did you mean address?"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0, name = 'a', address = 3 }]"), HasSubstr("each address a string"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0, name = 'a' }, { id = 0, name = 'b' }]"), HasSubstr("id 0 is there"));
  EXPECT_THAT(LoadError("group.peers = [{ id = 0, name = 'a' }, { id = 1, name = 'a' }]"), HasSubstr("\"a\" is there"));
}

TEST(ConfigTest, ABrokenTextIsRefusedWithItsLine) {
  EXPECT_THAT(LoadError("[worker]\nname = \n"), StartsWith("line 2: "));
  EXPECT_THAT(LoadError("[worker]\nname = 'a'\nname = 'b'\n"), StartsWith("line 3: "));
}

TEST(ConfigTest, AFailedTextAddsNothing) {
  Config config;
  EXPECT_FALSE(config.LoadText("[worker]\nname = 'a'\nthreads = 'x'").ok());
  EXPECT_FALSE(config.IsSet("worker.name"));
}

class ConfigFileTest : public ::testing::Test {
 protected:
  ConfigFileTest() : folder_(::testing::TempDir() + "gradferry_config_XXXXXX") {
    EXPECT_NE(mkdtemp(folder_.data()), nullptr);
    path_ = folder_ + "/worker.toml";
  }
  ~ConfigFileTest() override {
    std::remove(path_.c_str());
    std::remove(folder_.c_str());
  }
  void Write(const char* text) {
    FILE* file = std::fopen(path_.c_str(), "w");
    ASSERT_NE(file, nullptr);
    std::fputs(text, file);
    std::fclose(file);
  }
  std::string folder_;
  std::string path_;
};

TEST_F(ConfigFileTest, IsReadLikeAText) {
  Write("[worker]\nname = 'from_file'\n");
  Config config;
  MustBeOk(config.LoadFile(path_));
  EXPECT_EQ(config.GetString("worker.name"), "from_file");
  EXPECT_EQ(config.WhereFrom("worker.name"), Config::From::kFile);
}

TEST_F(ConfigFileTest, MayBeEmpty) {
  Write("");
  Config config;
  MustBeOk(config.LoadFile(path_));
}

TEST_F(ConfigFileTest, ErrorsNameFileAndLine) {
  Write("[worker]\nthreads = 'x'\n");
  Config config;
  EXPECT_THAT(MessageOf(config.LoadFile(path_)), StartsWith(path_ + ":2: worker.threads wants"));
  Write("[worker]\nthreads = \n");
  EXPECT_THAT(MessageOf(config.LoadFile(path_)), StartsWith(path_ + ":2: "));
}

TEST_F(ConfigFileTest, AMissingFileAndAFolderAreNamed) {
  Config config;
  Status missing = config.LoadFile(path_);
  EXPECT_EQ(missing.code(), Code::kNotFound);
  EXPECT_THAT(missing.message(), AllOf(HasSubstr(path_), HasSubstr("No such file")));
  EXPECT_THAT(MessageOf(config.LoadFile(folder_)), AllOf(HasSubstr(folder_), HasSubstr("directory")));
}

TEST(ConfigEnvironmentTest, ReadsEveryTypeAndLeavesOtherVariablesAlone) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"PATH=/bin", "GRADFERRY_WORKER_NAME=stage1", "GRADFERRY_WORKER_THREADS=2",
                                    "GRADFERRY_CALL_TIMEOUT=none",
                                    "GRADFERRY_GROUP_PEERS=[{ id = 1, name = 'a', address = 'b=c' }]",
                                    "GRADFERRY_TRANSPORT_PLUGIN_PATH=['/a', '/b']", "GRADFERRY_TRANSPORT_SIM_SEED=9",
                                    "GRADFERRY_TRANSPORT_SIM_LONG_NAME=bare text"}));
  EXPECT_EQ(config.GetString("worker.name"), "stage1");
  EXPECT_EQ(config.GetInt("worker.threads"), 2);
  EXPECT_EQ(config.GetDuration("call.timeout"), kNever);
  ASSERT_EQ(config.GetPeers().size(), 1u);
  EXPECT_EQ(config.GetPeers()[0].address, "b=c");
  EXPECT_THAT(config.GetStrings("transport.plugin_path"), ElementsAre("/a", "/b"));
  EXPECT_EQ(json::parse(config.GetSection("transport.sim")), json::parse(R"({"seed": 9, "long_name": "bare text"})"));
}

TEST(ConfigEnvironmentTest, ATransportWhoseNameHasAnUnderscoreGetsItsOptions) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_TRANSPORT_MY_NET_SEED=9", "GRADFERRY_TRANSPORT_NAME=my_net"}));
  EXPECT_EQ(config.GetSection("transport.my_net"), "{\"seed\":9}");
}

TEST(ConfigEnvironmentTest, AnUnknownVariableIsRefusedWithTheNearest) {
  Config config;
  EXPECT_EQ(MessageOf(config.ApplyEnvironment({"GRADFERRY_WORKER_THREAD=2"})),
            "the environment has GRADFERRY_WORKER_THREAD, which is no setting of Gradferry's (did you mean "
            "GRADFERRY_WORKER_THREADS?)");
  EXPECT_THAT(MessageOf(config.ApplyEnvironment({"GRADFERRY_TRANSPORT_PLUGIN_PTH=['x']"})),
              HasSubstr("did you mean GRADFERRY_TRANSPORT_PLUGIN_PATH?"));
  EXPECT_FALSE(config.ApplyEnvironment({"GRADFERRY_=x"}).ok());
  EXPECT_THAT(MessageOf(config.ApplyEnvironment({"GRADFERRY_WORKER_THREADS=0"})),
              StartsWith("GRADFERRY_WORKER_THREADS: worker.threads wants an integer"));
}

TEST(ConfigEnvironmentTest, ReservedAndEmptyVariablesAreNotRead) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_PLUGIN_PATH=/a:/b", "GRADFERRY_TORCH=/opt", "GRADFERRY_TORCH_HOME=x",
                                    "GRADFERRY_LOG=debug", "GRADFERRY_LOG_FILE=x", "GRADFERRY_TENSORPIPE=/opt",
                                    "GRADFERRY_GTEST=/opt", "GRADFERRY_LIBRARY=/lib/x.so", "GRADFERRY_DEMO_DATA=/x",
                                    "GRADFERRY_OUTPUT_BASE=/x", "GRADFERRY_WORKER_THREADS=", "GRADFERRY_UNHEARD_OF="}));
  EXPECT_FALSE(config.IsSet("worker.threads"));
}

TEST(ConfigEnvironmentTest, ReadingAgainForgetsWhatIsGone) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_WORKER_NAME=a"}));
  MustBeOk(config.ApplyEnvironment(std::vector<std::string>{}));
  EXPECT_FALSE(config.IsSet("worker.name"));
}

TEST(ConfigEnvironmentTest, TheProcesssOwnEnvironmentIsReadWhenAsked) {
  Config config;
  ASSERT_EQ(setenv("GRADFERRY_WORKER_NAME", "from_env", 1), 0);
  EXPECT_FALSE(config.IsSet("worker.name"));
  Status status = config.ApplyEnvironment();
  unsetenv("GRADFERRY_WORKER_NAME");
  MustBeOk(status);
  EXPECT_EQ(config.GetString("worker.name"), "from_env");
}

TEST(ConfigTest, DescribesWhatIsInEffectAndWhereItComesFrom) {
  Config config;
  MustBeOk(config.LoadText("worker.name = 'a'\ntransport.sim = { seed = 1, token = 'hush' }"));
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_CALL_TIMEOUT=5s"}));
  MustBeOk(config.Set("worker.threads", "2"));
  json all = json::parse(config.DescribeJson());
  EXPECT_EQ(all["worker.name"], json::parse(R"({"value": "a", "from": "file", "where": "line 1"})"));
  EXPECT_EQ(all["call.timeout"],
            json::parse(R"({"value": "5s", "from": "environment", "where": "GRADFERRY_CALL_TIMEOUT"})"));
  EXPECT_EQ(all["worker.threads"], json::parse(R"({"value": 2, "from": "call"})"));
  EXPECT_EQ(all["group.name"], json::parse(R"({"value": "default", "from": "default"})"));
  EXPECT_EQ(all["transport.sim.seed"], json::parse(R"({"value": 1, "from": "file", "where": "line 2"})"));
  EXPECT_FALSE(all.contains("transport.sim.token"));
  const auto secrets =
      std::count_if(ConfigKeys().begin(), ConfigKeys().end(), [](const auto& key) { return key.secret; });
  EXPECT_EQ(all.size(), ConfigKeys().size() - static_cast<size_t>(secrets) + 1);
}

// Of the variables GRADFERRY_LOG*, which are the bindings', those of logging.* are ours.
TEST(ConfigTest, TheLogsSettingsMayBeInTheEnvironment) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_LOGGING_LEVEL=debug", "GRADFERRY_LOG=x"}));
  EXPECT_EQ(config.GetString("logging.level"), "debug");
  EXPECT_THAT(SetError("logging.level", "loud"), HasSubstr("warning"));
}

TEST(ConfigTest, ASecretIsNeverShown) {
  Config config;
  MustBeOk(config.ApplyEnvironment({"GRADFERRY_SECURITY_SECRET=open sesame, my friend"}));
  EXPECT_EQ(config.GetString("security.secret"), "open sesame, my friend");
  EXPECT_THAT(config.DescribeJson(), Not(HasSubstr("sesame")));
  const Status status = config.LoadText("security.secret = ['open sesame']");
  EXPECT_THAT(status.message(), AllOf(HasSubstr("security.secret"), Not(HasSubstr("sesame"))));
}

TEST(ConfigTest, AskingForAKeyThatDoesNotExistIsAFaultOfTheProgram) {
  Config config;
  EXPECT_THROW(config.GetString("worker.nmae"), std::logic_error);
  EXPECT_THROW(config.GetInt("worker.name"), std::logic_error);
}

TEST(ConfigTest, TheReferenceHasARowForEachKey) {
  std::string reference = ConfigReference();
  for (const ConfigKey& key : ConfigKeys()) {
    EXPECT_THAT(reference, HasSubstr(std::string("| `") + key.name + "` |"));
    EXPECT_STRNE(key.help, "");
    EXPECT_TRUE(*key.default_text != '\0' || *key.default_note != '\0') << key.name;
  }
}

TEST(DurationTest, UnderstandsEveryUnit) {
  EXPECT_EQ(*ParseDuration("1ns"), 1);
  EXPECT_EQ(*ParseDuration("20us"), 20000);
  EXPECT_EQ(*ParseDuration("250ms"), 250000000);
  EXPECT_EQ(*ParseDuration("1.5s"), 1500000000);
  EXPECT_EQ(*ParseDuration("2m"), int64_t{120} * 1000000000);
  EXPECT_EQ(*ParseDuration("1h"), int64_t{3600} * 1000000000);
  EXPECT_EQ(*ParseDuration("none"), kNever);
}

TEST(DurationTest, RefusesWhatIsNone) {
  for (const char* text : {"", "5", "s", "0s", "-1s", "1 s", "1.s", ".5s", "1.2.3s", "1e3s", "5x", "99999999h", "0.1ns",
                           "None", "9999999999999999999999s"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
}

TEST(ConfigTest, TheDocumentHasTheTable) {
  std::ifstream file("docs/configuration.md");
  const std::string document((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  EXPECT_THAT(document, HasSubstr(ConfigReference())) << "write it anew:\n" << ConfigReference();
}

}  // namespace
}  // namespace gradferry
