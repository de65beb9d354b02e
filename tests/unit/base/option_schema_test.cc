// What a plugin says of its options, and what is refused by it.
#include "impl/base/option_schema.h"

#include <gtest/gtest.h>

#include "impl/base/config.h"

namespace gradferry {
namespace {

using nlohmann::json;

constexpr char kSchema[] = R"({
  "name": {"type": "string", "default": "x", "help": "."},
  "count": {"type": "integer", "default": 1, "help": "."},
  "share": {"type": "number", "help": "."},
  "on": {"type": "boolean", "default": true, "help": "."},
  "words": {"type": "array", "default": [], "help": "."},
  "link": {"type": "object", "default": {}, "help": "."},
  "pin": {"type": "integer", "default": 7, "secret": true, "help": "."}
})";

std::string Judge(const std::string& rest, const json& value, std::string_view schema = kSchema) {
  return OptionSchema::Parse(schema).Check("transport.t", rest, value).message();
}

TEST(OptionSchemaTest, EveryTypeTakesItsOwnValuesOnly) {
  struct Case {
    const char* option;
    json good, bad;
    const char* wanted;
  };
  const Case cases[] = {{"name", "a", 3, "a string"},          {"count", -3, 1.5, "an integer"},
                        {"share", 1.5, "1.5", "a number"},     {"share", 2, true, "a number"},
                        {"on", false, "no", "true or false"},  {"words", json::array({1}), "one", "an array"},
                        {"link", json::object(), 3, "a table"}};
  for (const Case& c : cases) {
    EXPECT_EQ(Judge(c.option, c.good), "") << c.option;
    const std::string message = Judge(c.option, c.bad);
    EXPECT_EQ(message.rfind(StrCat("transport.t.", c.option, " wants ", c.wanted, "; got "), 0), 0u) << message;
  }
  EXPECT_EQ(Judge("count", "two"), "transport.t.count wants an integer; got the string \"two\"");
}

TEST(OptionSchemaTest, WithinATableThePluginJudges) {
  EXPECT_EQ(Judge("link.delay", 3), "");
  EXPECT_EQ(Judge("link.delay.most", "x"), "");
  EXPECT_EQ(Judge("count.most", 3), "transport.t.count wants an integer; got a table");
}

TEST(OptionSchemaTest, AnUnknownOptionIsNamedWithTheNearestOrWithAll) {
  EXPECT_EQ(Judge("cuont", 3), "unknown key transport.t.cuont (did you mean transport.t.count?)");
  EXPECT_EQ(Judge("lnik.delay", 3), "unknown key transport.t.lnik (did you mean transport.t.link?)");
  EXPECT_EQ(Judge("wavelength", 3),
            "unknown key transport.t.wavelength; there are count, link, name, on, pin, share, words");
  EXPECT_EQ(Judge("colour", 3, "{}"), "unknown key transport.t.colour; the transport has no options");
}

TEST(OptionSchemaTest, ASecretIsNotRepeated) {
  EXPECT_EQ(Judge("pin", "hush"), "transport.t.pin wants an integer; got something else");
}

TEST(OptionSchemaTest, WhatIsNoSchemaJudgesNothing) {
  for (const char* text : {"", "3", "{", R"({"count": 3})", R"({"count": {"type": "text"}})", R"({"count": {}})"}) {
    EXPECT_EQ(Judge("count", "two", text), "") << text;
    EXPECT_TRUE(OptionSchema::Parse(text).options().empty()) << text;
  }
}

// ---- The same in a configuration: with the places ----

json Described(const Config& config) { return json::parse(config.DescribeJson()); }

TEST(DeclaredTransportTest, EveryPlaceIsNamed) {
  Config file;
  ASSERT_TRUE(file.LoadText("[transport.t]\nname = \"n\"\ncount = \"two\"\n").ok());
  EXPECT_EQ(file.DeclareTransport("t", kSchema).message(),
            "line 3: transport.t.count wants an integer; got the string \"two\"");
  Config environment;
  ASSERT_TRUE(environment.ApplyEnvironment({"GRADFERRY_TRANSPORT_T_CUONT=3"}).ok());
  EXPECT_EQ(environment.DeclareTransport("t", kSchema).message(),
            "GRADFERRY_TRANSPORT_T_CUONT: unknown key transport.t.cuont (did you mean transport.t.count?)");
  Config call;
  ASSERT_TRUE(call.Set("transport.t.on", "3").ok());
  EXPECT_EQ(call.DeclareTransport("t", kSchema).message(), "transport.t.on wants true or false; got the integer 3");
  EXPECT_EQ(call.DeclareTransport("t", kSchema).code(), Code::kInvalidArgument);
}

TEST(DeclaredTransportTest, AValueThatIsOverriddenDoesNotMatter) {
  Config config;
  ASSERT_TRUE(config.LoadText("transport.t.count = 'two'\ntransport.u.colour = 1").ok());
  ASSERT_TRUE(config.Set("transport.t.count", "2").ok());
  EXPECT_TRUE(config.DeclareTransport("t", kSchema).ok());
}

TEST(DeclaredTransportTest, OptionsAreDescribedWithTheirDefaults) {
  Config config;
  ASSERT_TRUE(config.LoadText("transport.t = { count = 3, pin = 1, link = { delay = 2 } }").ok());
  EXPECT_TRUE(Described(config).contains("transport.t.pin"));  // nobody knows yet
  EXPECT_FALSE(Described(config).contains("transport.t.name"));
  ASSERT_TRUE(config.DeclareTransport("t", kSchema).ok());
  const json all = Described(config);
  EXPECT_EQ(all["transport.t.count"], json::parse(R"({"value": 3, "from": "file", "where": "line 1"})"));
  EXPECT_EQ(all["transport.t.name"], json::parse(R"({"value": "x", "from": "default"})"));
  EXPECT_EQ(all["transport.t.words"], json::parse(R"({"value": [], "from": "default"})"));
  EXPECT_EQ(all["transport.t.link.delay"]["value"], 2);
  EXPECT_FALSE(all.contains("transport.t.link"));   // something in it is set
  EXPECT_FALSE(all.contains("transport.t.share"));  // has no default
  EXPECT_FALSE(all.contains("transport.t.pin"));    // a secret
  EXPECT_EQ(config.TransportSections(), std::vector<std::string>{"t"});
  Config other;
  other.TakeDeclarations(config);
  EXPECT_EQ(Described(other)["transport.t.count"], json::parse(R"({"value": 1, "from": "default"})"));
}

TEST(DeclaredTransportTest, AnErrorOfThePluginGetsThePlaceOfItsKey) {
  Config config;
  ASSERT_TRUE(config.LoadText("[transport.t]\ncount = -3\nlink = { delay = 2 }\n").ok());
  const auto placed = [&](const char* text) {
    return config.WithPlace(InvalidArgument(text).WithDomain("transport.t")).message();
  };
  EXPECT_EQ(placed("transport.t.count must be positive"), "line 2: transport.t.count must be positive");
  EXPECT_EQ(placed("transport.t.link: too slow"), "line 3: transport.t.link: too slow");
  EXPECT_EQ(placed("transport.t has no plugin"), "line 2: transport.t has no plugin");
  EXPECT_EQ(placed("transport.t.name is empty"), "transport.t.name is empty");
  EXPECT_EQ(placed("line 2: transport.t.count"), "line 2: transport.t.count");
  EXPECT_EQ(placed(""), "");
  EXPECT_EQ(config.WithPlace(InvalidArgument("transport.t.count").WithDomain("d")).error()->domain, "d");
  EXPECT_TRUE(config.WithPlace(OkStatus()).ok());
}

}  // namespace
}  // namespace gradferry
