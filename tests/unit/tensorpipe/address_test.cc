// Address texts.
#include "plugins/tensorpipe/address.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

namespace gradferry::tp {
namespace {

Address Parsed(const std::string& text, AddressUse use = AddressUse::kListen) {
  Address address;
  const Status status = ParseAddress(text, use, &address);
  EXPECT_TRUE(status.ok()) << status.text;
  return address;
}

int32_t CodeOf(const std::string& text, AddressUse use) {
  Address address;
  return ParseAddress(text, use, &address).code;
}

TEST(Addresses, BecomeWhatTensorPipeTakes) {
  const std::vector<std::pair<const char*, const char*>> cases = {
      {"uv://127.0.0.1:0", "uv://127.0.0.1:0"},
      {"uv://127.0.0.1", "uv://127.0.0.1:0"},
      {"uv://[::1]:77", "uv://[::1]:77"},
      {"uv://[fe80::1%lo]:77", "uv://[fe80::1%lo]:77"},
      {"uv://[::1]", "uv://[::1]:0"},
      {"ibv://10.0.0.1:9", "ibv://10.0.0.1:9"},
      {"shm://", "shm://"},
      {"shm://some name", "shm://some name"},
      {"uv://127.0.0.1:5#cma,basic", "uv://127.0.0.1:5"},
  };
  for (const auto& [text, url] : cases) {
    EXPECT_EQ(Parsed(text).Url(), url);
    EXPECT_EQ(Parsed(text).text, text);
  }
}

TEST(Addresses, CarryTheChannels) {
  EXPECT_FALSE(Parsed("uv://127.0.0.1:5").has_channels);
  const Address address = Parsed("uv://127.0.0.1:5#cma,basic");
  EXPECT_TRUE(address.has_channels);
  EXPECT_EQ(address.channels, (std::vector<std::string>{"basic", "cma"}));
  EXPECT_EQ(AddressText("uv://127.0.0.1:5", {"basic", "cma"}), "uv://127.0.0.1:5#basic,cma");
  const std::string longest = "shm://" + std::string(107, 'x');
  EXPECT_LE(AddressText(longest, {"basic", "cma", "mpt", "xth"}).size(), kMaxAddressText);
}

TEST(Addresses, KnowLoopback) {
  for (const char* text :
       {"uv://127.0.0.1:0", "uv://127.9.9.9:0", "uv://[::1]:0", "uv://[::ffff:127.0.0.1]:0", "shm://"}) {
    EXPECT_TRUE(Parsed(text).IsLoopback()) << text;
  }
  for (const char* text :
       {"uv://192.0.2.1:0", "uv://[2001:db8::1]:0", "uv://[::ffff:192.0.2.1]:0", "ibv://10.0.0.1:0"}) {
    EXPECT_FALSE(Parsed(text).IsLoopback()) << text;
  }
}

TEST(Addresses, AreRefusedWhenTheyAreNone) {
  for (const char* text : {"",
                           "#",
                           "uv",
                           "uv:/127.0.0.1:0",
                           "tcp://127.0.0.1:0",
                           "uv://",
                           "uv://host:0",
                           "uv://1.2.3:0",
                           "uv://1.2.3.4.5:0",
                           "uv://127.0.0.1:",
                           "uv://127.0.0.1:-1",
                           "uv://127.0.0.1:65536",
                           "uv://127.0.0.1:1x",
                           "uv://127.0.0.1:1:2",
                           "uv://[::1",
                           "uv://[::1]x",
                           "uv://[::1]:",
                           "uv://[]:0",
                           "uv://::1:0",
                           "uv://0.0.0.0:1",
                           "uv://[::]:1",
                           "uv://[::ffff:0.0.0.0]:1",
                           "uv://224.1.2.3:1",
                           "uv://255.255.255.255:1",
                           "uv://[ff02::1]:1"}) {
    EXPECT_EQ(CodeOf(text, AddressUse::kListen), GF_INVALID_ARGUMENT) << text;
    EXPECT_EQ(CodeOf(text, AddressUse::kConnect), GF_INVALID_ARGUMENT) << text;
  }
  EXPECT_EQ(CodeOf("shm://" + std::string(108, 'x'), AddressUse::kListen), GF_INVALID_ARGUMENT);
  EXPECT_EQ(CodeOf(std::string("shm://a\0b", 9), AddressUse::kListen), GF_INVALID_ARGUMENT);
  // Fine to listen at, nothing to connect to.
  for (const char* text : {"uv://127.0.0.1:0", "uv://127.0.0.1", "shm://"}) {
    EXPECT_EQ(CodeOf(text, AddressUse::kConnect), GF_INVALID_ARGUMENT) << text;
  }
}

}  // namespace
}  // namespace gradferry::tp
