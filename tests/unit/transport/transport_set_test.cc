// Lists of addresses, and what several transports as one have in common.
#include "impl/transport/transport_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/transport/transport_testing.h"

namespace gradferry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::vector<std::pair<std::string, std::string>> Parsed(const std::string& text) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const NamedAddress& a : ParseAddresses(text)) pairs.emplace_back(a.transport, a.address);
  return pairs;
}
using Pairs = std::vector<std::pair<std::string, std::string>>;

TEST(AddressesTest, AListIsTakenApart) {
  EXPECT_EQ(Parsed(""), Pairs());
  EXPECT_EQ(Parsed("uv://127.0.0.1:3"), Pairs({{"", "uv://127.0.0.1:3"}}));
  EXPECT_EQ(Parsed("a=x b=y"), Pairs({{"a", "x"}, {"b", "y"}}));
  EXPECT_EQ(Parsed("x b=y"), Pairs({{"", "x"}, {"b", "y"}}));
  EXPECT_EQ(Parsed("a="), Pairs({{"a", ""}}));
}

TEST(AddressesTest, WhatOnlyLooksLikeANameIsPartOfTheAddress) {
  EXPECT_EQ(Parsed("unix:///tmp/a=b"), Pairs({{"", "unix:///tmp/a=b"}}));
  EXPECT_EQ(Parsed("a=unix:///tmp/my folder/a=b c=d"), Pairs({{"a", "unix:///tmp/my folder/a=b"}, {"c", "d"}}));
  EXPECT_EQ(Parsed("a=b=c"), Pairs({{"a", "b=c"}}));
  EXPECT_EQ(Parsed("=x"), Pairs({{"", "=x"}}));
}

TEST(AddressesTest, WhatIsWrittenIsReadBack) {
  const std::string text = "sim=sim://n/1 tensorpipe=uv://127.0.0.1:3";
  EXPECT_EQ(FormatAddresses(ParseAddresses(text)), text);
  EXPECT_EQ(WithTransportName("sim", "sim://n/1"), "sim=sim://n/1");
  EXPECT_EQ(WithTransportName("sim", text), text);
}

TEST(TransportSetTest, OneThatOwnsTimeMustBeAlone) {
  testing::Host host;
  const auto open = [&](const std::string& sim_options) {
    return OpenTransports({{"tensorpipe", "{}"}, {"sim", sim_options}}, PluginSearch(), &host).status();
  };
  EXPECT_EQ(open(R"({"network": "set"})").code(), Code::kInvalidArgument);
  EXPECT_THAT(open(R"({"network": "set", "time": "virtual"})").message(),
              AllOf(HasSubstr("sim owns time"), HasSubstr("transport.sim.time")));
  EXPECT_TRUE(open(R"({"network": "set", "time": "real"})").ok());
}

TEST(TransportSetTest, HasTheSmallestHeaderAndNoClockOfItsOwn) {
  testing::Host host;
  auto set = OpenTransports({{"tensorpipe", "{}"}, {"sim", R"({"time": "real"})"}}, PluginSearch(), &host);
  ASSERT_TRUE(set.ok()) << set.status().ToString();
  EXPECT_EQ((*set)->name(), "tensorpipe sim");
  EXPECT_EQ((*set)->clock(), nullptr);
  uint64_t least = UINT64_MAX;
  for (const char* name : {"tensorpipe", "sim"}) {
    auto one = OpenTransport(name, PluginSearch(), "{}", &host);
    ASSERT_TRUE(one.ok());
    least = std::min(least, (*one)->max_header());
  }
  EXPECT_EQ((*set)->max_header(), least);
}

}  // namespace
}  // namespace gradferry
