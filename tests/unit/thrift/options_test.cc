// The configuration section of the thrift transport.
#include "plugins/thrift/options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace gradferry::thrift {
namespace {

TEST(Options, HaveTheDefaultsOfTheSchema) {
  const auto schema = nlohmann::json::parse(kOptionsSchema);
  for (const char* json : {"", "{}"}) {
    Options options;
    ASSERT_TRUE(ParseOptions(json, &options).ok());
    EXPECT_EQ(options.address, schema["address"]["default"]);
    EXPECT_EQ(options.advertise, schema["advertise"]["default"]);
    EXPECT_EQ(options.insecure, schema["insecure"]["default"]);
    EXPECT_EQ(options.ca, schema["ca"]["default"]);
    EXPECT_EQ(options.certificate, schema["certificate"]["default"]);
    EXPECT_EQ(options.key, schema["key"]["default"]);
    EXPECT_EQ(options.crl, schema["crl"]["default"]);
    EXPECT_EQ(nlohmann::json(options.allow), schema["allow"]["default"]);
    EXPECT_EQ(options.threads, schema["threads"]["default"]);
    EXPECT_EQ(options.connect_timeout_ms, schema["connect_timeout_ms"]["default"]);
    EXPECT_EQ(options.handshake_timeout_ms, schema["handshake_timeout_ms"]["default"]);
    EXPECT_EQ(options.keepalive_s, schema["keepalive_s"]["default"]);
  }
}

// Each key of the schema is read: a value of a wrong type is refused and named.
TEST(Options, OfAWrongTypeAreNamed) {
  const auto schema = nlohmann::json::parse(kOptionsSchema);
  for (const auto& [key, description] : schema.items()) {
    const bool text = description["type"] == "string";
    const nlohmann::json json = {{key, text ? nlohmann::json(1) : nlohmann::json("no")}};
    Options options;
    const Status status = ParseOptions(json.dump(), &options);
    EXPECT_EQ(status.code, GF_INVALID_ARGUMENT) << key;
    EXPECT_NE(status.text.find("transport.thrift." + key + " "), std::string::npos) << status.text;
  }
}

TEST(Options, NameWhatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"port": 1})", "port is not an option"},
      {R"({"threads": 0})", "threads is less than 1"},
      {R"({"threads": 65})", "threads is greater than 64"},
      {R"({"threads": 18446744073709551615})", "threads is greater"},
      {R"({"threads": 1.5})", "threads must be an integer"},
      {R"({"handshake_timeout_ms": -1})", "handshake_timeout_ms"},
      {R"({"allow": [""]})", "allow must not hold an empty string"},
      {R"({"allow": [1]})", "allow must hold strings only"},
      {R"({"ca": "a\u0000b"})", "ca must not hold a NUL"},
      {R"([])", "object"},
      {R"({"address")", "JSON"},
  };
  for (const auto& [json, named] : cases) {
    Options options;
    const Status status = ParseOptions(json, &options);
    EXPECT_EQ(status.code, GF_INVALID_ARGUMENT) << json;
    EXPECT_NE(status.text.find(named), std::string::npos) << json << ": " << status.text;
  }
}

}  // namespace
}  // namespace gradferry::thrift
