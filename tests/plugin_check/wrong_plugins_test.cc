// Each plugin that is wrong on purpose fails with the number of the rule that it breaks.
#include <gtest/gtest.h>

#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "tools/plugin_check/plugin_check.h"

namespace gradferry::check {
namespace {

struct Wrong {
  std::string name;
  int rule = 0;
};

void PrintTo(const Wrong& wrong, std::ostream* out) { *out << wrong.name; }

// "NAME=rule NAME=rule ...".
std::vector<Wrong> WrongPlugins() {
  const char* text = std::getenv("GF_WRONG_PLUGINS");
  std::istringstream words(text == nullptr ? "" : text);
  std::vector<Wrong> plugins;
  for (std::string word; words >> word;) {
    const size_t equals = word.find('=');
    plugins.push_back({word.substr(0, equals), std::stoi(word.substr(equals + 1))});
  }
  return plugins;
}

class WrongPluginTest : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongPluginTest, FailsWithItsRule) {
  Settings settings;
  settings.file = "tests/plugin_check/wrong/" + GetParam().name + ".so";
  settings.call_limit = 1;
  settings.patience = 3;
  settings.stop_at_first = true;
  const Report report = CheckPlugin(settings);
  EXPECT_TRUE(report.Broke(GetParam().rule)) << report.Text();
  EXPECT_FALSE(report.passed());
}

INSTANTIATE_TEST_SUITE_P(All, WrongPluginTest, ::testing::ValuesIn(WrongPlugins()),
                         [](const auto& test) { return test.param.name; });

// So that a list that was not found is no success.
TEST(WrongPlugins, ThereAreSomeForEachRule) {
  const std::vector<Wrong> plugins = WrongPlugins();
  for (int rule = 1; rule <= kRules; ++rule) {
    bool there = false;
    for (const Wrong& wrong : plugins) there |= wrong.rule == rule;
    EXPECT_TRUE(there) << RuleName(rule);
  }
}

}  // namespace
}  // namespace gradferry::check
