// The command's subcommands as processes: what they print, what they say when something is wrong, how they end.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <set>

#include "tests/support/c_abi/group.h"
#include "tests/tools/run_command.h"
#include "tools/gradferry/findings.h"

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
      {"thrift", "insecur = true", "unknown key transport.thrift.insecur (did you mean transport.thrift.insecure?)"},
      {"thrift", "threads = 65", "transport.thrift.threads is greater than 64"},
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

// Of every report: valid JSON, one finding for each check, a line that mends each that is not ok, and the exit status.
json Doctor(const std::string& arguments, const std::string& before = "") {
  const Ran ran = RunGradferry("doctor --json " + arguments, before);
  const json report = json::parse(ran.out, nullptr, /*allow_exceptions=*/false);
  EXPECT_FALSE(report.is_discarded()) << ran.out << ran.err;
  if (report.is_discarded()) return {{"findings", json::array()}};
  std::set<std::string> checks;
  int problems = 0;
  for (const json& finding : report["findings"]) {
    EXPECT_TRUE(checks.insert(finding["check"]).second) << finding;
    const std::string mend = finding["mend"];
    EXPECT_EQ(mend.empty(), finding["state"] == "ok") << finding;
    EXPECT_EQ(Lines(mend), 0) << finding;
    problems += finding["state"] == "problem" ? 1 : 0;
  }
  EXPECT_EQ(report["problems"], problems);
  EXPECT_EQ(ran.status, problems == 0 ? 0 : 1) << ran.err;
  EXPECT_EQ(ran.err, "");
  return report;
}

std::string What(const json& report, const std::string& check) { return Find(report, check).value("what", ""); }
std::string Mend(const json& report, const std::string& check) { return Find(report, check).value("mend", ""); }

TEST(DoctorTest, FindsNoProblemHere) {
  const json report = Doctor("");
  EXPECT_EQ(report["problems"], 0) << report;
  EXPECT_EQ(Find(report, "libgradferry")["state"], "ok") << report;
  EXPECT_EQ(Find(report, "libtorch")["state"], "ok") << report;
  EXPECT_THAT(What(report, "libtorch"), HasSubstr("libtorch_cpu"));
  EXPECT_THAT(What(report, "plugin sim"), HasSubstr("listens at sim://"));
  EXPECT_THAT(What(report, "address"), HasSubstr("worker.listen is not set"));
  for (const char* check : {"cma", "nofile", "memlock", "clock", "host name", "duplicates"}) {
    EXPECT_FALSE(Find(report, check).is_null()) << check;
  }
}

TEST(DoctorTest, RunsWithoutTheLibrary) {
  const std::string nowhere = "GRADFERRY_LIBRARY=/nowhere/libgradferry.so.0";
  const Ran ran = RunGradferry("doctor", nowhere);
  EXPECT_EQ(ran.status, 1);
  EXPECT_THAT(ran.out, AllOf(HasSubstr("PROBLEM  libgradferry: "), HasSubstr("/nowhere/libgradferry.so.0"),
                             HasSubstr("-> install Gradferry")));
  EXPECT_THAT(ran.out, HasSubstr("libtorch: "));
  EXPECT_EQ(Doctor("", nowhere)["problems"], 1);
  const TemporaryFolder folder;
  const std::string text = folder.Write("libgradferry.so.0", "no ELF file");
  EXPECT_THAT(What(Doctor("", "GRADFERRY_LIBRARY=" + text), "libgradferry"), HasSubstr(text));
}

TEST(DoctorTest, SaysWhyAPluginIsUnusable) {
  const TemporaryFolder folder;
  const std::string file = folder.Write("libgradferry_transport_broken.so", "no ELF file");
  const json report = Doctor("", "GRADFERRY_PLUGIN_PATH=$GRADFERRY_PLUGIN_PATH:" + folder.path());
  EXPECT_EQ(report["problems"], 1);
  EXPECT_THAT(What(report, "plugin broken"), AllOf(HasSubstr(file), HasSubstr("not an ELF file")));
  EXPECT_THAT(Mend(report, "plugin broken"), HasSubstr("gradferry plugin-check " + file));
  // The same file at a place that comes first: the good one behind it is not used.
  folder.Write("libgradferry_transport_sim.so", "no ELF file");
  const json hidden = Doctor("", "GRADFERRY_PLUGIN_PATH=" + folder.path() + ":$GRADFERRY_PLUGIN_PATH");
  EXPECT_EQ(Find(hidden, "plugin sim")["state"], "problem");
  EXPECT_THAT(What(hidden, "copies of plugin sim"), HasSubstr("not used"));
}

TEST(DoctorTest, SaysWhereThereIsNoPlugin) {
  const json nowhere = Doctor("", "GRADFERRY_PLUGIN_PATH=/nowhere");
  EXPECT_EQ(nowhere["problems"], 1) << nowhere;
  EXPECT_THAT(What(nowhere, "plugins"), HasSubstr("there is no transport plugin in /nowhere, "));
  EXPECT_THAT(Mend(nowhere, "plugins"), HasSubstr("GRADFERRY_PLUGIN_PATH"));
  EXPECT_THAT(What(nowhere, "plugin path"), HasSubstr("no folder: /nowhere"));
  const json without = Doctor("--set transport.name=sma");
  EXPECT_EQ(without["problems"], 1);
  EXPECT_THAT(What(without, "address"), HasSubstr("the transport 'sma' (did you mean sim?)"));
  EXPECT_THAT(Mend(without, "address"), HasSubstr("install that plugin"));
}

TEST(DoctorTest, BlamesAVariableForWhatItSays) {
  const json unknown = Doctor("", "GRADFERRY_WORKER_TREADS=2");
  EXPECT_EQ(unknown["problems"], 1);
  EXPECT_THAT(What(unknown, "config"), HasSubstr("did you mean GRADFERRY_WORKER_THREADS?"));
  EXPECT_EQ(Mend(unknown, "config"), "correct or unset the variable");
  const json option = Doctor("", "GRADFERRY_TRANSPORT_SIM_SEED=many");
  EXPECT_EQ(option["problems"], 1) << option;
  EXPECT_THAT(What(option, "plugin sim"), HasSubstr("GRADFERRY_TRANSPORT_SIM_SEED: transport.sim.seed wants"));
  EXPECT_EQ(Mend(option, "plugin sim"), "correct or unset the variable");
}

TEST(DoctorTest, WarnsOfFewDescriptors) {
  const json report = Doctor("", "ulimit -n 512; ulimit -l 64;");
  EXPECT_EQ(Find(report, "nofile")["state"], "warning");
  EXPECT_THAT(What(report, "nofile"), HasSubstr("nofile is 512"));
  EXPECT_THAT(What(report, "memlock"), HasSubstr("memlock is 65536"));
}

TEST(DoctorTest, ChecksAConfiguration) {
  const TemporaryFolder folder;
  const std::string file = folder.Write(
      "w.toml", "[worker]\nlisten = \"uv://127.0.0.1:0\"\n[transport]\nname = \"tensorpipe\"\n[group]\nrank = 0\n");
  EXPECT_THAT(What(Doctor(file), "address"), AllOf(HasSubstr("uv://127.0.0.1:"), HasSubstr(file)));
  const std::string option = folder.Write("option.toml", "[transport]\nname = \"sim\"\n[transport.sim]\ncolour = 1\n");
  const json wrong = Doctor(option);
  EXPECT_EQ(wrong["problems"], 1);
  EXPECT_THAT(What(wrong, "address"), HasSubstr(option + ":4: unknown key transport.sim.colour"));
  EXPECT_THAT(Mend(wrong, "address"), HasSubstr("gradferry config " + option));
  const std::string bad = folder.Write("bad.toml", "[worker]\nthreads = \"two\"\n");
  EXPECT_THAT(What(Doctor(bad), "config"), HasSubstr(bad + ":2: worker.threads wants"));
  EXPECT_THAT(What(Doctor(folder.File("none.toml")), "config"), HasSubstr("none.toml cannot be read"));
}

TEST(DoctorTest, WarnsOfANameThatOthersCannotReach) {
  const auto look = [](const std::string& name) {
    gradferry::command::Findings findings;
    CheckHostName(findings, name);
    return json::parse(findings.Json())["findings"][0];
  };
  const json debian = look("127.0.1.1");  // what Debian gives a machine's own name
  EXPECT_EQ(debian["state"], "warning");
  EXPECT_THAT(debian["what"].get<std::string>(), HasSubstr("is 127.0.1.1, which other machines cannot reach"));
  EXPECT_THAT(debian["mend"].get<std::string>(), HasSubstr("/etc/hosts"));
  EXPECT_EQ(look("::1")["state"], "warning");
  EXPECT_EQ(look("192.0.2.1")["state"], "ok");
  EXPECT_THAT(look("no name at all")["what"].get<std::string>(), HasSubstr("has no address"));
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
  EXPECT_THAT(error("ping target"), HasSubstr("where is worker target?"));
  EXPECT_THAT(error("ping target -f " + folder.File("none.toml")), HasSubstr("none.toml cannot be read"));
  EXPECT_THAT(error("ping target --id 3 --address nowhere"), HasSubstr("nowhere"));
  EXPECT_THAT(error("ping target -f " + file + " --set transport.name=none"), HasSubstr("'none'"));
  EXPECT_THAT(error("ping target -f " + file + " --set group.name=other"), HasSubstr("group"));
  EXPECT_THAT(error("ping other --id 3 --address " + address + " --set group.name=g"), HasSubstr("other"));
  Call(gf_worker_close, target, kPatience);
  EXPECT_THAT(error("ping target -f " + file + " -t 2"), HasSubstr("worker target does not answer"));
}

// It is gone between two round trips: what was measured is shown, then the error.
TEST_F(PingTest, AWorkerThatDiesMeanwhileIsAnErrorAfterTheTimes) {
  const TemporaryFolder folder;
  for (const bool json_wanted : {false, true}) {
    Worker target = OpenTarget();
    const std::string file = GroupFile(folder, Address(target));
    const std::string errors = folder.File("errors");
    const std::string line = "timeout 60 tools/gradferry/gradferry ping target -c 1000000 -i 0.001 -t 5 -f " + file +
                             (json_wanted ? " --json" : "") + " 2>" + errors;
    FILE* pipe = popen(line.c_str(), "r");
    ASSERT_NE(pipe, nullptr);
    // It has been here: the guest is among the peers.
    ASSERT_TRUE(Eventually([&] { return Info(target)["peers"].size() > 0; }));
    char text[4096];
    std::string out;
    if (!json_wanted) {
      for (int i = 0; i < 2 && fgets(text, sizeof(text), pipe) != nullptr; ++i) out += text;
    }
    Call(gf_worker_abort, target);
    while (fgets(text, sizeof(text), pipe) != nullptr) out += text;
    const int status = pclose(pipe);
    EXPECT_EQ(WEXITSTATUS(status), 1) << out;
    std::ifstream stream(errors);
    const std::string err((std::istreambuf_iterator<char>(stream)), std::istreambuf_iterator<char>());
    EXPECT_THAT(err, HasSubstr("worker target does not answer"));
    EXPECT_EQ(Lines(err), 1) << err;
    if (!json_wanted) {
      EXPECT_THAT(out, HasSubstr(" answers: least "));
    } else if (!out.empty()) {
      EXPECT_THAT(json::parse(out)["error"].get<std::string>(), HasSubstr("does not answer"));
    }
  }
}

}  // namespace
}  // namespace gf
