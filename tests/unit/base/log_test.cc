// The log's files: what is written there, and beside whom.
#include "impl/base/log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

namespace gradferry {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

std::string ReadAll(const std::string& path) {
  std::ifstream file(path);
  return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

TEST(LogFileTest, LinesHaveTimeAndLevelAndBothReceiversTheirOwnLevel) {
  const std::string path = ::testing::TempDir() + "/log_test.log";
  std::remove(path.c_str());
  std::string heard;
  SetLog([](uintptr_t token, uint32_t, const char* text,
            size_t length) { reinterpret_cast<std::string*>(token)->append(text, length); },
         reinterpret_cast<uintptr_t>(&heard), LogLevel::kError);
  ASSERT_TRUE(AddLogFile(path, LogLevel::kInfo).ok());
  Log(LogLevel::kDebug, "too much");
  Log(LogLevel::kInfo, "one\ntwo");
  Log(LogLevel::kError, "bad");
  ASSERT_TRUE(AddLogFile(path, LogLevel::kDebug).ok());
  Log(LogLevel::kDebug, "now");
  SetLog(nullptr, 0, LogLevel::kOff);
  EXPECT_EQ(heard, "bad");
  const std::string text = ReadAll(path);
  EXPECT_THAT(text, ContainsRegex("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{6}Z info    one two\n"));
  EXPECT_THAT(text, HasSubstr(" error   bad\n"));
  EXPECT_THAT(text, HasSubstr(" debug   now\n"));
  EXPECT_THAT(text, Not(HasSubstr("too much")));
}

TEST(LogFileTest, AFileThatCannotBeOpenedIsNamed) {
  const Status status = AddLogFile("/nowhere/at/all.log", LogLevel::kInfo);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("logging.file: /nowhere/at/all.log"));
}

}  // namespace
}  // namespace gradferry
