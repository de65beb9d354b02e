// The configuration section of the TensorPipe transport.
#include "plugins/tensorpipe/options.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace gradferry::tp {
namespace {

using Words = std::vector<std::string>;

TEST(Options, HaveTheDefaultsOfTheSchema) {
  for (const char* json : {"", "{}"}) {
    Options options;
    ASSERT_TRUE(ParseOptions(json, &options).ok());
    const auto schema = nlohmann::json::parse(kOptionsSchema);
    EXPECT_EQ(options.address, schema["address"]["default"]);
    EXPECT_EQ(nlohmann::json(options.transports), schema["transports"]["default"]);
    EXPECT_EQ(options.channels, (Words{"basic", "cma"}));
    EXPECT_EQ(options.trusted_network, schema["trusted_network"]["default"]);
  }
}

TEST(Options, AreRead) {
  Options options;
  const Status status = ParseOptions(
      R"({"address": "uv://[::1]:5", "transports": ["shm", "uv"], "channels": ["mpt"], "trusted_network": true})",
      &options);
  ASSERT_TRUE(status.ok()) << status.text;
  EXPECT_EQ(options.address, "uv://[::1]:5");
  EXPECT_EQ(options.transports, (Words{"shm", "uv"}));
  EXPECT_EQ(options.channels, (Words{"basic", "mpt"})) << "basic is always there";
  EXPECT_TRUE(options.trusted_network);
}

TEST(Options, NameTheKeyThatIsWrong) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {R"({"port": 1})", "port"},
      {R"({"address": 1})", "address"},
      {R"({"transports": "uv"})", "transports"},
      {R"({"transports": []})", "transports"},
      {R"({"transports": ["uv", "uv"]})", "transports"},
      {R"({"transports": ["tcp"]})", "tcp"},
      {R"({"channels": ["cuda_ipc"]})", "cuda_ipc"},
      {R"({"channels": [1]})", "channels"},
      {R"({"channels": {"cma": true}})", "channels"},
      {R"({"trusted_network": "yes"})", "trusted_network"},
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
}  // namespace gradferry::tp
