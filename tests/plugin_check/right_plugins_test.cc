// Our plugins and the example keep all rules.
#include <gtest/gtest.h>

#include <string>

#include "tools/plugin_check/plugin_check.h"

namespace gradferry::check {
namespace {

struct Right {
  std::string label;
  std::string file;
  std::string options;
};

void PrintTo(const Right& right, std::ostream* out) { *out << right.label; }

std::string Ours(const std::string& name) { return "plugins/" + name + "/libgradferry_transport_" + name + ".so"; }

class RightPluginTest : public ::testing::TestWithParam<Right> {};

TEST_P(RightPluginTest, KeepsAllRules) {
  Settings settings;
  settings.file = GetParam().file;
  settings.options = GetParam().options;
  // A loaded machine is no broken rule.
  settings.call_limit = 20;
  settings.patience = 60;
  const Report report = CheckPlugin(settings);
  EXPECT_TRUE(report.passed()) << report.Text();
  for (int rule = 1; rule <= kRules; ++rule) {
    if (rule == 8 || rule == 13 || rule == 15) continue;  // not every transport has strangers, time, or drive
    EXPECT_STREQ(report.Result(rule), "pass") << RuleName(rule);
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, RightPluginTest,
    ::testing::Values(Right{"sim", Ours("sim"), "{}"}, Right{"sim_virtual_time", Ours("sim"), R"({"time": "virtual"})"},
                      Right{"tensorpipe", Ours("tensorpipe"), "{}"},
                      Right{"tensorpipe_without_cma", Ours("tensorpipe"), R"({"channels": ["basic"]})"},
                      Right{"thrift", Ours("thrift"), "{}"},
                      Right{"example", "examples/transport_plugin/libgradferry_transport_dgram.so", "{}"},
                      Right{"example_with_drive", "tests/plugin_check/wrong/DRIVES.so", "{}"}),
    [](const auto& test) { return test.param.label; });

TEST(PluginCheck, SimOwnsItsTimeAndOthersDoNot) {
  Settings settings;
  settings.file = Ours("sim");
  settings.options = R"({"time": "virtual"})";
  settings.only = "time";
  const Report report = CheckPlugin(settings);
  EXPECT_STREQ(report.Result(13), "pass") << report.Text();
  EXPECT_EQ(report.notes.at(13), "its time is its own");
}

TEST(PluginCheck, ThriftCanBeDrivenAndTheExampleCannot) {
  Settings settings;
  settings.file = Ours("thrift");
  settings.only = "drive";
  settings.patience = 60;
  const Report thrift = CheckPlugin(settings);
  EXPECT_STREQ(thrift.Result(15), "pass") << thrift.Text();
  settings.file = "examples/transport_plugin/libgradferry_transport_dgram.so";
  const Report example = CheckPlugin(settings);
  EXPECT_STREQ(example.Result(15), "skipped") << example.Text();
  EXPECT_EQ(example.notes.at(15), "it has no drive");
}

TEST(PluginCheck, AFileThatIsNoPluginIsAFinding) {
  Settings settings;
  settings.file = "/proc/self/exe";
  EXPECT_TRUE(CheckPlugin(settings).Broke(11));
  settings.file = "no/such/file.so";
  EXPECT_TRUE(CheckPlugin(settings).Broke(11));
}

}  // namespace
}  // namespace gradferry::check
