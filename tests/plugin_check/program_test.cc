// The program: its exit status and what it prints.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

namespace {

struct Ran {
  int status = -1;
  std::string output;
};

Ran RunProgram(const std::string& arguments) {
  Ran ran;
  FILE* pipe = popen(("tools/plugin_check/plugin-check " + arguments + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return ran;
  char buffer[4096];
  for (size_t got; (got = fread(buffer, 1, sizeof(buffer), pipe)) > 0;) ran.output.append(buffer, got);
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return ran;
}

const char kExample[] = "examples/transport_plugin/libgradferry_transport_dgram.so";
const char kSlow[] = " --call-limit 20 --patience 60 ";

TEST(Program, ARightPluginIsReportedRuleByRule) {
  const Ran ran = RunProgram(kSlow + std::string(kExample));
  EXPECT_EQ(ran.status, 0) << ran.output;
  EXPECT_NE(ran.output.find("dgram 1.0"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("GF-TRN-01  pass"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("GF-TRN-13  skipped"), std::string::npos) << ran.output;
  EXPECT_NE(ran.output.find("all rules are kept"), std::string::npos) << ran.output;
}

TEST(Program, JsonNamesTheRuleTheScenarioAndTheFinding) {
  const Ran ran = RunProgram("--json --only descriptor tests/plugin_check/wrong/BAD_NAME.so");
  EXPECT_EQ(ran.status, 1) << ran.output;
  const auto report = nlohmann::json::parse(ran.output);
  EXPECT_EQ(report["passed"], false);
  const auto& rule = report["rules"][10];
  EXPECT_EQ(rule["rule"], "GF-TRN-11");
  EXPECT_EQ(rule["result"], "fail");
  EXPECT_EQ(rule["findings"][0]["scenario"], "descriptor");
  EXPECT_NE(rule["findings"][0]["what"].get<std::string>().find("Wrong!"), std::string::npos);
  EXPECT_EQ(report["rules"][0]["result"], "skipped");
}

TEST(Program, WrongArgumentsAreStatus2) {
  EXPECT_EQ(RunProgram("").status, 2);
  EXPECT_EQ(RunProgram("--no-such-option x").status, 2);
  EXPECT_EQ(RunProgram("--patience 0 x").status, 2);
  EXPECT_EQ(RunProgram("--help").status, 0);
}

}  // namespace
