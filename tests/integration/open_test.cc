// Opening workers that cannot be: configurations, plugins, addresses, peers; and finding no one, or someone else, where
// a peer should be.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "gradferry/transport.h"
#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

class ConfigurationTest : public LiveTest {};

Error ErrorOfText(const std::string& toml) {
  const Config config = NewConfig();
  return ErrorOf([&] { Call(gf_config_load_text, config, toml.data(), toml.size()); });
}

TEST_F(ConfigurationTest, AWrongTypeNamesTheKeyAndTheLine) {
  const Error error = ErrorOfText("[worker]\nname = \"a\"\nthreads = \"many\"\n");
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("worker.threads"), HasSubstr("3"), HasSubstr("integer")));
  const Config config = NewConfig();
  const Error set = ErrorOf([&] { Set(config, "worker.id", "seven"); });
  EXPECT_EQ(set.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(set.message, HasSubstr("worker.id"));
}

TEST_F(ConfigurationTest, AnUnknownKeyNamesItAndTheNearestKnownOne) {
  const Error error = ErrorOfText("[worker]\ntheads = 3\n");
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("worker.theads"), HasSubstr("worker.threads")));
  const Config config = NewConfig();
  const Error set = ErrorOf([&] { Set(config, "group.rendevous", "env"); });
  EXPECT_EQ(set.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(set.message, AllOf(HasSubstr("group.rendevous"), HasSubstr("group.rendezvous")));
}

TEST_F(ConfigurationTest, TextThatIsNoTomlNamesTheLine) {
  const Error error = ErrorOfText("[worker]\nname = \"a\nid = 1\n");
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("2"));
}

TEST_F(ConfigurationTest, AMissingFileIsNamed) {
  const Config config = NewConfig();
  const TemporaryFolder folder;
  const std::string path = folder.File("missing.toml");
  const Error error = ErrorOf([&] { Call(gf_config_load_file, config, path.data(), path.size()); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_THAT(error.message, HasSubstr(path));
}

TEST_F(ConfigurationTest, AFileIsReadAndItsErrorsNameIt) {
  const TemporaryFolder folder;
  const Config config = NewConfig();
  const std::string good = folder.Write("good.toml", "[worker]\nname = \"from_file\"\n");
  Call(gf_config_load_file, config, good.data(), good.size());
  const auto described = nlohmann::json::parse(Text(gf_config_describe, config.get()));
  EXPECT_EQ(described["worker.name"]["value"], "from_file");
  EXPECT_EQ(described["worker.name"]["from"], "file");
  const std::string bad = folder.Write("bad.toml", "[worker]\nname = 3\n");
  const Error error = ErrorOf([&] { Call(gf_config_load_file, config, bad.data(), bad.size()); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("bad.toml"), HasSubstr("worker.name")));
}

TEST_F(ConfigurationTest, WhatAWorkerNeedsIsAskedFor) {
  const Config config = NewConfig();
  Set(config, "transport.name", "sim");
  const Error no_name = ErrorOf([&] { OpenWorker(config); });
  EXPECT_EQ(no_name.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(no_name.message, HasSubstr("worker.name"));
  Set(config, "worker.name", "someone");
  const Error no_id = ErrorOf([&] { OpenWorker(config); });
  EXPECT_EQ(no_id.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(no_id.message, AllOf(HasSubstr("worker.id"), HasSubstr("someone")));
  // The list of peers may give it.
  Set(config, "group.peers", "[{ id = 3, name = \"someone\" }]");
  Set(config, "transport.sim.network", UniqueName());
  const Worker worker = OpenWorker(config);
  EXPECT_EQ(Info(worker)["id"], 3);
  Call(gf_worker_close, worker, kPatience);
}

TEST_F(ConfigurationTest, AnOptionThatATransportDoesNotKnowIsNamed) {
  for (const char* transport : {"sim", "tensorpipe", "thrift"}) {
    const Error error = ErrorOf([&] {
      OpenWorker(
          WorkerConfig(transport, UniqueName(), "a", 0, {{std::string("transport.") + transport + ".colour", "red"}}));
    });
    EXPECT_EQ(error.code, GF_INVALID_ARGUMENT) << transport;
    EXPECT_THAT(error.message, HasSubstr("colour"));
    EXPECT_EQ(error.worker, "a");
  }
}

// The options that only plugins know, with the places that set them.
TEST_F(ConfigurationTest, AWrongOptionOfATransportNamesFileLineAndTheNearest) {
  const TemporaryFolder folder;
  struct Case {
    const char *toml, *wanted;
  };
  const Case cases[] = {
      {"[transport.sim]\nsede = 3\n", ":3: unknown key transport.sim.sede (did you mean transport.sim.seed?)"},
      {"[transport.sim]\nseed = \"x\"\n", ":3: transport.sim.seed wants an integer; got the string \"x\""},
      {"[transport.sim]\n\ntime = \"unreal\"\n", ":4: transport.sim.time must be real or virtual, not unreal"},
      {"[transport.sim]\nfaults = [{ fault = \"theft\" }]\n", ":3: transport.sim.faults[0].fault"},
  };
  for (const Case& c : cases) {
    const std::string file = folder.Write("w.toml", std::string("worker = { name = \"a\", id = 0 }\n") + c.toml);
    const Config config = NewConfig();
    Call(gf_config_load_file, config, file.data(), file.size());
    Set(config, "transport.name", "sim");
    const Error opened = ErrorOf([&] { OpenWorker(config); });
    EXPECT_EQ(opened.code, GF_INVALID_ARGUMENT) << c.toml;
    EXPECT_THAT(opened.message, ::testing::StartsWith(file + c.wanted));
    const Error checked = ErrorOf([&] { Call(gf_config_check, config); });
    EXPECT_EQ(checked.message, opened.message);
    EXPECT_EQ(checked.code, opened.code);
  }
}

TEST_F(ConfigurationTest, ACheckedConfigurationDescribesTheTransportsAsWell) {
  const Config config = NewConfig();
  Set(config, "transport.name", R"(["tensorpipe", "sim"])");
  Set(config, "transport.sim.time", "real");
  Set(config, "transport.thrift.threads", "2");  // not in use, and asked all the same
  EXPECT_FALSE(nlohmann::json::parse(Text(gf_config_describe, config.get())).contains("transport.sim.seed"));
  Call(gf_config_check, config);
  const auto described = nlohmann::json::parse(Text(gf_config_describe, config.get()));
  EXPECT_EQ(described["transport.sim.seed"], nlohmann::json::parse(R"({"value": 0, "from": "default"})"));
  EXPECT_EQ(described["transport.tensorpipe.trusted_network"]["value"], false);
  EXPECT_EQ(described["transport.thrift.threads"]["from"], "call");
  EXPECT_EQ(described["transport.thrift.insecure"]["from"], "default");
}

TEST_F(ConfigurationTest, ASectionOfNoTransportIsNamedWithTheNearest) {
  const Config config = NewConfig();
  Set(config, "transport.name", "sim");
  const std::string text = "[transport.tensorpip]\ntrusted_network = true\n";
  Call(gf_config_load_text, config, text.data(), text.size());
  const Error error = ErrorOf([&] { Call(gf_config_check, config); });
  EXPECT_EQ(error.code, GF_NOT_FOUND);
  EXPECT_EQ(error.message,
            "line 2: transport.tensorpip is the section of a transport that has no plugin here (did you mean "
            "tensorpipe?)");
}

class PluginTest : public LiveTest {
 protected:
  Error ErrorOfPlugin(const std::string& path) {
    return ErrorOf([&] { OpenWorker(WorkerConfig("sim", UniqueName(), "a", 0, {{"transport.plugin", path}})); });
  }
  static std::string SimPlugin() {
    const auto info = nlohmann::json::parse(Text(gf_build_info));
    for (const auto& plugin : info["plugins"]) {
      if (plugin["name"] == "sim") return plugin["path"];
    }
    return "";
  }
  const TemporaryFolder folder_;
};

TEST_F(PluginTest, AMissingOneListsThePlacesTried) {
  const std::string path = folder_.File("libnothing.so");
  const Error given = ErrorOfPlugin(path);
  EXPECT_EQ(given.code, GF_NOT_FOUND);
  EXPECT_THAT(given.message, HasSubstr(path));

  const Config config = WorkerConfig("sim", UniqueName(), "a", 0);
  Set(config, "transport.name", "pigeons");
  Set(config, "transport.plugin_path", "[\"" + folder_.path() + "\"]");
  const Error searched = ErrorOf([&] { OpenWorker(config); });
  EXPECT_EQ(searched.code, GF_NOT_FOUND);
  EXPECT_THAT(searched.message, AllOf(HasSubstr("pigeons"), HasSubstr(folder_.path()), HasSubstr("plugins/sim")));
}

TEST_F(PluginTest, AFileThatIsNoneIsRefused) {
  for (const std::string& path :
       {folder_.Write("text.so", "this is no shared library\n"), folder_.path(), std::string("/proc/self/exe")}) {
    const Error error = ErrorOfPlugin(path);
    EXPECT_EQ(error.code, GF_INVALID_ARGUMENT) << path;
    EXPECT_THAT(error.message, AllOf(HasSubstr(path), HasSubstr("not a Gradferry transport plugin")));
  }
}

TEST_F(PluginTest, OneOfAnotherEpochIsRefused) {
  std::ifstream in(SimPlugin(), std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  gf_transport_note note = {10,
                            8,
                            GF_TRANSPORT_NOTE_TYPE,
                            {'G', 'r', 'a', 'd', 'f', 'e', 'r', 'r', 'y', 0, 0, 0},
                            GF_TRANSPORT_EPOCH,
                            GF_TRANSPORT_MINOR};
  const std::string ours(reinterpret_cast<const char*>(&note), sizeof(note));
  note.epoch = GF_TRANSPORT_EPOCH + 7;
  const std::string other(reinterpret_cast<const char*>(&note), sizeof(note));
  size_t replaced = 0;
  for (size_t at = bytes.find(ours); at != std::string::npos; at = bytes.find(ours, at + 1), ++replaced) {
    bytes.replace(at, ours.size(), other);
  }
  ASSERT_GT(replaced, 0u);
  const std::string path = folder_.Write("libother.so", bytes);
  const Error error = ErrorOfPlugin(path);
  EXPECT_EQ(error.code, GF_UNSUPPORTED);
  EXPECT_THAT(error.message, AllOf(HasSubstr(path), HasSubstr("epoch " + std::to_string(note.epoch)),
                                   HasSubstr("epoch " + std::to_string(GF_TRANSPORT_EPOCH))));
}

TEST_F(PluginTest, OneOfAnotherNameIsRefused) {
  const Config config = WorkerConfig("sim", UniqueName(), "a", 0, {{"transport.plugin", SimPlugin()}});
  Set(config, "transport.name", "tensorpipe");
  const Error error = ErrorOf([&] { OpenWorker(config); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("sim"), HasSubstr("tensorpipe")));
}

class OpenTest : public TransportTest {
 protected:
  // An address at which nobody listens any more.
  std::string DeadAddress(const std::string& network) {
    const Worker worker = OpenWorker(WorkerConfig(transport(), network, "late", 9));
    const std::string address = Address(worker);
    Call(gf_worker_close, worker, kPatience);
    return address;
  }
};

TEST_P(OpenTest, AnAddressInUseIsNamed) {
  Group group(transport(), {"first"});
  const std::string address = Address(group[0]);
  const std::string port = address.substr(0, address.find('#'));
  const Error error = ErrorOf([&] {
    OpenWorker(WorkerConfig(transport(), group.network(), "second", 1, {{"worker.listen", port}}));
  });
  EXPECT_EQ(error.code, GF_ALREADY_EXISTS);
  EXPECT_THAT(error.message, AllOf(HasSubstr("in use"), HasSubstr(port)));
  EXPECT_EQ(error.worker, "second");
}

TEST_P(OpenTest, AnAddressThatIsNoneIsNamed) {
  const Error error = ErrorOf([&] {
    OpenWorker(WorkerConfig(transport(), UniqueName(), "a", 0, {{"worker.listen", "somewhere"}}));
  });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("somewhere"));
}

TEST_P(OpenTest, APeerThatIsNotThereIsNamed) {
  Group group(transport(), {"worker0"});
  AddPeer(group[0], 1, "gone", DeadAddress(group.network()));
  const Error error = ErrorOf([&] { CallWorker(group[0], "gone", "x", NewList()); });
  EXPECT_TRUE(error.code == GF_UNAVAILABLE || error.code == GF_PEER_LOST) << error.description;
  EXPECT_THAT(error.message, HasSubstr("gone"));
  EXPECT_EQ(error.peer, "gone");
  EXPECT_EQ(error.operation, "x");
}

TEST_P(OpenTest, APeerWithoutAnAddressIsNamed) {
  Group group(transport(), {"worker0"});
  AddPeer(group[0], 1, "somewhere", "");
  const Error error = ErrorOf([&] { CallWorker(group[0], "somewhere", "x", NewList()); });
  EXPECT_EQ(error.code, GF_UNAVAILABLE);
  EXPECT_THAT(error.message, AllOf(HasSubstr("somewhere"), HasSubstr("address")));
}

TEST_P(OpenTest, AnAddressThatTheTransportCannotReadIsAnErrorOfTheCall) {
  Group group(transport(), {"worker0"});
  AddPeer(group[0], 1, "odd", "not an address");
  const Error error = ErrorOf([&] { CallWorker(group[0], "odd", "x", NewList()); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("not an address"));
  EXPECT_EQ(error.peer, "odd");
}

TEST_P(OpenTest, AnotherWorkerAtThePeersAddressIsRefused) {
  Group group(transport(), {"worker0", "worker1"});
  const Worker lone = OpenWorker(WorkerConfig(transport(), group.network(), "lone", 5));
  AddPeer(lone, 1, "someone_else", Address(group[1]));
  const Error error = ErrorOf([&] { CallWorker(lone, "someone_else", "x", NewList()); });
  EXPECT_EQ(error.code, GF_FAILED_PRECONDITION);
  EXPECT_THAT(error.message, AllOf(HasSubstr("someone_else"), HasSubstr("worker1")));
  Call(gf_worker_close, lone, kPatience);
}

TEST_P(OpenTest, WorkersOfAnotherGroupAreRefused) {
  Group group(transport(), {"worker0", "worker1"}, {{"group.name", "ours"}});
  const Worker stranger =
      OpenWorker(WorkerConfig(transport(), group.network(), "stranger", 5, {{"group.name", "theirs"}}));
  AddPeer(stranger, 1, "worker1", Address(group[1]));
  const Error error = ErrorOf([&] { CallWorker(stranger, "worker1", "x", NewList()); });
  EXPECT_EQ(error.code, GF_PERMISSION_DENIED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("ours"), HasSubstr("theirs")));
  Call(gf_worker_close, stranger, kPatience);
}

GF_OVER_ALL_WAYS(OpenTest);

}  // namespace
}  // namespace gf
