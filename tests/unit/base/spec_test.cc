// Unit tests of impl/base/spec.h.
#include "impl/base/spec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradferry {
namespace {

using ::testing::HasSubstr;

TEST(OptimizerSpecTest, GivesKindAndOptions) {
  Result<OptimizerText> text = ParseOptimizerSpec("sgd = { lr = 0.1, momentum = 1, nesterov = true }");
  ASSERT_TRUE(text.ok()) << text.status().ToString();
  EXPECT_EQ(text->kind, "sgd");
  ASSERT_EQ(text->options.size(), 3u);
  EXPECT_EQ(std::get<double>(text->options.at("lr")), 0.1);
  EXPECT_EQ(std::get<double>(text->options.at("momentum")), 1.0);
  EXPECT_EQ(std::get<bool>(text->options.at("nesterov")), true);
}

TEST(OptimizerSpecTest, TakesAnEmptyTableAndASection) {
  Result<OptimizerText> empty = ParseOptimizerSpec("adam = {}");
  ASSERT_TRUE(empty.ok()) << empty.status().ToString();
  EXPECT_EQ(empty->kind, "adam");
  EXPECT_TRUE(empty->options.empty());
  Result<OptimizerText> section = ParseOptimizerSpec("[adam]\nlr = 1e-3\n");
  ASSERT_TRUE(section.ok()) << section.status().ToString();
  EXPECT_EQ(std::get<double>(section->options.at("lr")), 1e-3);
}

std::string ErrorOf(std::string_view spec) {
  Result<OptimizerText> text = ParseOptimizerSpec(spec);
  EXPECT_FALSE(text.ok()) << spec;
  EXPECT_EQ(text.status().code(), Code::kInvalidArgument);
  return text.status().message();
}

TEST(OptimizerSpecTest, SaysWhatIsWrongWithATextOfAnotherForm) {
  EXPECT_THAT(ErrorOf(""), HasSubstr("got nothing"));
  EXPECT_THAT(ErrorOf("sgd"), HasSubstr("line 1"));
  EXPECT_THAT(ErrorOf("sgd = 0.1"), HasSubstr("sgd is the number 0.1"));
  EXPECT_THAT(ErrorOf("sgd = { lr = 0.1 }\nadam = {}"), HasSubstr("two kinds, sgd and adam"));
  EXPECT_THAT(ErrorOf("sgd = { lr = \"0.1\" }"),
              HasSubstr("option lr of sgd wants a number or a boolean, got the str"));
  EXPECT_THAT(ErrorOf("sgd = { lr = { a = 1 } }"),
              HasSubstr("option lr of sgd wants a number or a boolean, got a tab"));
  EXPECT_THAT(ErrorOf("sgd = { lr = inf }"), HasSubstr("lr wants a finite number, got inf"));
}

}  // namespace
}  // namespace gradferry
