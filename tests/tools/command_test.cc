// The command's subcommands as processes: what they print, what they say when something is wrong, how they end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/support/c_abi/group.h"
#include "tests/tools/run_command.h"

namespace gf {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

int Lines(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

TEST(CommandTest, HelpAndVersionAreThere) {
  const Ran help = RunGradferry("--help");
  EXPECT_EQ(help.status, 0) << help.err;
  for (const char* command : {"doctor", "config", "ping", "top", "trace", "plugin-check"}) {
    EXPECT_THAT(help.out, HasSubstr(command));
  }
  for (const char* command : {"doctor", "config", "ping", "top", "trace merge"}) {
    const Ran one = RunGradferry(command + std::string(" --help"));
    EXPECT_EQ(one.status, 0) << command << one.err;
    EXPECT_THAT(one.out, HasSubstr("Example")) << command;
  }
  const Ran version = RunGradferry("--version");
  EXPECT_EQ(version.status, 0);
  EXPECT_THAT(version.out, AllOf(StartsWith("gradferry 0."), HasSubstr("libtorch ")));
}

TEST(CommandTest, WrongArgumentsAreOneLine) {
  for (const char* arguments : {"", "fly", "config --colour", "top", "ping x -c many", "trace", "trace merge"}) {
    const Ran ran = RunGradferry(arguments);
    EXPECT_EQ(ran.status, 2) << arguments;
    EXPECT_EQ(Lines(ran.err), 1) << arguments << ": " << ran.err;
    EXPECT_EQ(ran.out, "") << arguments;
  }
}

// ---- config --------------------------------------------------------------------------------------------------------

TEST(ConfigCommandTest, ShowsValuesAndWhereTheyComeFrom) {
  const TemporaryFolder folder;
  const std::string file = folder.Write("w.toml", "[worker]\nname = \"w\"\nthreads = 2\n[transport.sim]\nseed = 3\n");
  const Ran ran = RunGradferry("config " + file + " --set worker.id=5", "GRADFERRY_GROUP_NAME=g");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("worker.name = \"w\"  # " + file + ":2\n"));
  EXPECT_THAT(ran.out, HasSubstr("worker.id = 5  # call"));
  EXPECT_THAT(ran.out, HasSubstr("group.name = \"g\"  # GRADFERRY_GROUP_NAME\n"));
  EXPECT_THAT(ran.out, HasSubstr("transport.sim.seed = 3"));
  EXPECT_THAT(ran.out, HasSubstr("call.timeout = \"60s\"  # default"));
  const json described = json::parse(RunGradferry("config " + file + " --json").out);
  EXPECT_EQ(described["worker.threads"]["value"], 2);
  EXPECT_EQ(described["worker.threads"]["from"], "file");
}

TEST(ConfigCommandTest, ABadFileIsNamedWithLineAndKey) {
  const TemporaryFolder folder;
  const std::string file = folder.Write("bad.toml", "[worker]\nname = \"w\"\nthreads = \"two\"\n");
  const Ran ran = RunGradferry("config " + file);
  EXPECT_EQ(ran.status, 1);
  EXPECT_EQ(ran.out, "");
  EXPECT_THAT(ran.err, AllOf(HasSubstr(file + ":3"), HasSubstr("worker.threads")));
  EXPECT_EQ(Lines(ran.err), 1);
  EXPECT_THAT(RunGradferry("config " + folder.File("none.toml")).err, HasSubstr("none.toml"));
  EXPECT_THAT(RunGradferry("config", "GRADFERRY_WORKER_TREADS=1").err, HasSubstr("GRADFERRY_WORKER_THREADS"));
  EXPECT_THAT(RunGradferry("config --set worker.threads").err, HasSubstr("KEY=VALUE"));
}

TEST(ConfigCommandTest, ShowsTheTransportsOptionsWithTheirDefaults) {
  const TemporaryFolder folder;
  const std::string file =
      folder.Write("w.toml", "transport.name = [\"tensorpipe\", \"thrift\"]\n[transport.thrift]\nthreads = 2\n");
  const Ran ran = RunGradferry("config " + file, "GRADFERRY_TRANSPORT_TENSORPIPE_TRUSTED_NETWORK=true");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, HasSubstr("transport.thrift.threads = 2  # " + file + ":3\n"));
  EXPECT_THAT(ran.out, HasSubstr("transport.thrift.keepalive_s = 15  # default\n"));
  EXPECT_THAT(
      ran.out,
      HasSubstr("transport.tensorpipe.trusted_network = true  # GRADFERRY_TRANSPORT_TENSORPIPE_TRUSTED_NETWORK"));
  EXPECT_THAT(ran.out, Not(HasSubstr("transport.sim.")));
}

TEST(ConfigCommandTest, AWrongOptionOfATransportIsNamedAndTheRestIsShown) {
  const TemporaryFolder folder;
  struct Case {
    const char *name, *option, *wanted;
  };
  const Case cases[] = {
      {"sim", "sede = 3", "unknown key transport.sim.sede (did you mean transport.sim.seed?)"},
      {"sim", "latency_min_us = \"1ms\"", "transport.sim.latency_min_us wants an integer; got the string \"1ms\""},
      {"sim", "time = \"unreal\"", "transport.sim.time must be real or virtual, not unreal"},
      {"thrift", "insecur = true", "unknown key transport.thrift.insecur (did you mean transport.thrift.insecure?)"},
      {"thrift", "allow = \"a\"", "transport.thrift.allow wants an array; got the string \"a\""},
      {"thrift", "threads = 65", "transport.thrift.threads is greater than 64"},
      {"tensorpipe", "trust = 1", "unknown key transport.tensorpipe.trust"},
      {"tensorpipe", "trusted_network = 1",
       "transport.tensorpipe.trusted_network wants true or false; got the integer"},
      {"tensorpipe", "channels = [\"cmaa\"]", "transport.tensorpipe.channels names \"cmaa\"; allowed are"},
  };
  for (const Case& c : cases) {
    const std::string file = folder.Write("w.toml", std::string("[transport.") + c.name + "]\n\n" + c.option + "\n");
    const Ran ran = RunGradferry("config " + file + " --set transport.name=" + c.name);
    EXPECT_EQ(ran.status, 1) << c.option;
    EXPECT_THAT(ran.err, HasSubstr(file + ":3: " + c.wanted)) << c.option;
    EXPECT_EQ(Lines(ran.err), 1) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("call.timeout = \"60s\"  # default"));
  }
  const Ran variable = RunGradferry("config --set transport.name=sim --json", "GRADFERRY_TRANSPORT_SIM_SEED=many");
  EXPECT_EQ(variable.status, 1);
  EXPECT_THAT(variable.err, HasSubstr("GRADFERRY_TRANSPORT_SIM_SEED: transport.sim.seed wants an integer"));
  EXPECT_EQ(json::parse(variable.out)["transport.sim.seed"]["value"], "many");
}

TEST(ConfigCommandTest, AMissingOrUnusablePluginIsOneLine) {
  const TemporaryFolder folder;
  const auto error = [](const std::string& arguments) {
    const Ran ran = RunGradferry("config " + arguments);
    EXPECT_EQ(ran.status, 1) << arguments;
    EXPECT_EQ(Lines(ran.err), 1) << ran.err;
    EXPECT_THAT(ran.out, HasSubstr("transport.name = "));
    return ran.err;
  };
  EXPECT_THAT(error("--set transport.name=thirft"), HasSubstr("'thirft' (did you mean thrift?); tried "));
  const std::string text = folder.Write("libgradferry_transport_text.so", "no ELF file");
  EXPECT_THAT(error("--set transport.name=text --set transport.plugin=" + text),
              HasSubstr(text + ": not a Gradferry transport plugin: not an ELF file"));
  const std::string file = folder.Write("w.toml", "\n[transport.smi]\nseed = 1\n");
  EXPECT_THAT(error(file), AllOf(HasSubstr(file + ":3: transport.smi is"), HasSubstr("(did you mean sim?)")));
}

// ---- doctor --------------------------------------------------------------------------------------------------------

json Find(const json& report, const std::string& check) {
  for (const json& finding : report["findings"]) {
    if (finding["check"] == check) return finding;
  }
  return json();
}

TEST(DoctorTest, FindsNoProblemHere) {
  const Ran ran = RunGradferry("doctor --json");
  ASSERT_NE(ran.out, "") << ran.err;
  const json report = json::parse(ran.out);
  EXPECT_EQ(ran.status, report["problems"] == 0 ? 0 : 1);
  EXPECT_EQ(report["problems"], 0) << ran.out;
  EXPECT_EQ(Find(report, "libgradferry")["state"], "ok") << ran.out;
  EXPECT_EQ(Find(report, "libtorch")["state"], "ok") << ran.out;
  EXPECT_THAT(Find(report, "libtorch")["what"].get<std::string>(), HasSubstr("libtorch_cpu"));
  EXPECT_THAT(Find(report, "plugin sim")["what"].get<std::string>(), HasSubstr("listens at sim://"));
  EXPECT_THAT(Find(report, "address")["what"].get<std::string>(), HasSubstr("worker.listen is not set"));
  for (const char* check : {"cma", "limits", "clock", "host name", "duplicates"}) {
    EXPECT_FALSE(Find(report, check).is_null()) << check;
  }
  for (const json& finding : report["findings"]) EXPECT_EQ(finding["mend"] == "", finding["state"] == "ok") << finding;
}

TEST(DoctorTest, RunsWithoutTheLibrary) {
  const Ran ran = RunGradferry("doctor", "GRADFERRY_LIBRARY=/nowhere/libgradferry.so.0");
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("PROBLEM  libgradferry: "), HasSubstr("/nowhere/libgradferry.so.0"),
                             HasSubstr("-> install Gradferry")));
  EXPECT_THAT(ran.out, HasSubstr("libtorch: "));
}

TEST(DoctorTest, SaysWhyAPluginIsUnusable) {
  const TemporaryFolder folder;
  folder.Write("libgradferry_transport_broken.so", "no ELF file");
  const Ran ran = RunGradferry("doctor", "GRADFERRY_PLUGIN_PATH=$GRADFERRY_PLUGIN_PATH:" + folder.path());
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, HasSubstr("PROBLEM  plugin broken: " + folder.File("libgradferry_transport_broken.so")));
  EXPECT_THAT(ran.out, HasSubstr("1 problem."));
}

TEST(DoctorTest, WarnsOfFewDescriptors) {
  EXPECT_THAT(RunGradferry("doctor", "ulimit -n 512;").out, HasSubstr("warning  limits: nofile is 512"));
}

TEST(DoctorTest, ChecksAConfiguration) {
  const TemporaryFolder folder;
  const std::string file = folder.Write(
      "w.toml", "[worker]\nlisten = \"uv://127.0.0.1:0\"\n[transport]\nname = \"tensorpipe\"\n[group]\nrank = 0\n");
  EXPECT_THAT(RunGradferry("doctor " + file).out, AllOf(HasSubstr("address: uv://127.0.0.1:"), HasSubstr(file)));
  const std::string bad = folder.Write("bad.toml", "[transport]\nname = \"sim\"\n[transport.sim]\ncolour = 1\n");
  const Ran ran = RunGradferry("doctor " + bad);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("PROBLEM  config"), HasSubstr("colour")));
}

// ---- ping ----------------------------------------------------------------------------------------------------------

class PingTest : public LiveTest {
 protected:
  static std::string GroupFile(const TemporaryFolder& folder, const std::string& address,
                               const std::string& more = "") {
    return folder.Write("group.toml",
                        "[transport]\nname = \"tensorpipe\"\n[group]\nname = \"g\"\npeers = [{ id = 3, name = "
                        "\"target\", address = \"" +
                            address + "\" }]\n" + more);
  }
  static Worker OpenTarget() { return OpenWorker(WorkerConfig("tensorpipe", "", "target", 3, {{"group.name", "g"}})); }
};

TEST_F(PingTest, PrintsTimesAndTheTransport) {
  const TemporaryFolder folder;
  const Worker target = OpenTarget();
  const std::string file = GroupFile(folder, Address(target));
  const Ran ran = RunGradferry("ping target -f " + file + " -c 3 -i 0.01");
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, StartsWith("worker target (3) by tensorpipe at uv://127.0.0.1:"));
  EXPECT_THAT(ran.out, HasSubstr("3 answers: least "));
  EXPECT_EQ(Lines(ran.out), 5);
  const json report = json::parse(RunGradferry("ping target -f " + file + " -c 2 -i 0 --json").out);
  EXPECT_EQ(report["round_trips_ms"].size(), 2u);
  EXPECT_EQ(report["transport"], "tensorpipe");
  // Without a file: by flags.
  EXPECT_EQ(RunGradferry("ping target --id 3 --address " + Address(target) + " --set group.name=g -c 1").status, 0);
  Call(gf_worker_close, target, kPatience);
}

TEST_F(PingTest, SaysWhyThereIsNoAnswer) {
  const TemporaryFolder folder;
  const Worker target = OpenTarget();
  const std::string address = Address(target);
  const std::string file = GroupFile(folder, address);
  const auto error = [&](const std::string& arguments) {
    const Ran ran = RunGradferry(arguments);
    EXPECT_EQ(ran.status, 1) << arguments;
    EXPECT_EQ(Lines(ran.err), 1) << ran.err;
    return ran.err;
  };
  EXPECT_THAT(error("ping nobody -f " + file), HasSubstr("where is worker nobody?"));
  EXPECT_THAT(error("ping target -f " + file + " --set group.name=other"), HasSubstr("group"));
  EXPECT_THAT(error("ping other --id 3 --address " + address + " --set group.name=g"), HasSubstr("other"));
  Call(gf_worker_close, target, kPatience);
  EXPECT_THAT(error("ping target -f " + file + " -t 2"), HasSubstr("worker target does not answer"));
}

// ---- top -----------------------------------------------------------------------------------------------------------

TEST(TopTest, ShowsThePeersOfAWorker) {
  Group group("sim", {"a", "b"}, {{"metrics.listen", "127.0.0.1:0"}});
  RemoteOp(group[0], "b", {}, "aten::neg", Floats({}, {3}));
  const std::string port = Info(group[0])["metrics_address"];
  std::atomic<bool> done{false};
  std::thread caller([&] {
    while (!done) RemoteOp(group[0], "b", {}, "aten::neg", Floats({}, {3}));
  });
  const Ran ran = RunGradferry("top " + port + " --once -i 0.2");
  const Ran two = RunGradferry("top " + port + " -n 2 -i 0.1");
  done = true;
  caller.join();
  EXPECT_EQ(ran.status, 0) << ran.err;
  EXPECT_THAT(ran.out, AllOf(StartsWith("worker a of group default, open: "), HasSubstr("IN FLIGHT")));
  EXPECT_THAT(ran.out, ::testing::ContainsRegex("b +connected +sim +[1-9][0-9]* "));
  EXPECT_THAT(ran.out, Not(HasSubstr("\033")));  // no terminal
  EXPECT_EQ(Lines(ran.out), 4);
  EXPECT_EQ(Lines(two.out), 8);
}

TEST(TopTest, EndsWellWhenInterrupted) {
  Group group("sim", {"a"}, {{"metrics.listen", "127.0.0.1:0"}});
  const std::string port = Info(group[0])["metrics_address"];
  // A terminal of its own, by script(1): what was there comes back.
  const Ran ran = RunGradferry("top " + port + " -i 0.1", "timeout --foreground -s INT 1");
  EXPECT_THAT(ran.status, ::testing::AnyOf(0, 124)) << ran.err;
}

TEST(TopTest, SaysWhenThereIsNoWorker) {
  const auto error = [](const std::string& arguments) {
    const Ran ran = RunGradferry("top " + arguments);
    EXPECT_EQ(ran.status, 1);
    EXPECT_EQ(Lines(ran.err), 1) << ran.err;
    return ran.err;
  };
  EXPECT_THAT(error("127.0.0.1:1"), HasSubstr("127.0.0.1:1"));
  EXPECT_THAT(error("nowhere"), HasSubstr("HOST:PORT"));
}

}  // namespace
}  // namespace gf
