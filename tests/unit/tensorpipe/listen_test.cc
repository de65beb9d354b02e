// What the plugin says of itself, creating transports, listening.
#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <atomic>
#include <cstring>
#include <list>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/unit/tensorpipe/test_host.h"

namespace gradferry::tp::testing {
namespace {

TEST(Entry, DescribesTheTransport) {
  const gf_transport_descriptor* descriptor = Descriptor();
  ASSERT_NE(descriptor, nullptr);
  EXPECT_STREQ(descriptor->name, "tensorpipe");
  EXPECT_EQ(descriptor->capabilities, GF_TRANSPORT_CAP_TRUSTED_NETWORK_ONLY);
  EXPECT_EQ(descriptor->max_header, 1024u * 1024);
  const auto schema = nlohmann::json::parse(descriptor->options_schema);
  EXPECT_EQ(schema.size(), 4u);
  for (const auto& [key, option] : schema.items()) {
    EXPECT_TRUE(option.contains("type") && option.contains("default") && option.contains("help")) << key;
  }
}

TEST(Entry, RefusesAHostOfAnotherEpoch) {
  gf_transport_entry_args args{sizeof(args), GF_TRANSPORT_EPOCH + 1, 0, 0};
  gf_transport_error error{sizeof(error), 0, 0, {}};
  EXPECT_EQ(gf_transport_entry_v0(&args, &error), nullptr);
  EXPECT_EQ(error.code, GF_FAILED_PRECONDITION);
  EXPECT_GT(error.length, 0u);
}

TEST(Create, RefusesAnUnknownOptionByName) {
  Host host(R"({"adress": "uv://127.0.0.1:0"})");
  EXPECT_EQ(host.created().code, GF_INVALID_ARGUMENT);
  EXPECT_NE(host.created().text.find("adress"), std::string::npos) << host.created();
}

TEST(Create, LogsWhatItRegistered) {
  Host host(R"({"channels": ["basic"]})");
  ASSERT_EQ(host.created().code, GF_OK) << host.created();
  ASSERT_FALSE(host.logs().empty());
  EXPECT_EQ(host.logs().back(), "tensorpipe: transports uv; channels basic");
  EXPECT_EQ(host.Stats()["channels"], nlohmann::json({"basic"}));
}

TEST(Create, TransportsLiveSideBySide) {
  std::list<Host> hosts;
  for (int i = 0; i < 4; ++i) {
    hosts.emplace_back();
    ASSERT_EQ(hosts.back().Listen().code, GF_OK);
  }
  std::vector<std::pair<Host*, Peer*>> dialled;
  for (Host& from : hosts) {
    for (Host& to : hosts) dialled.emplace_back(&from, from.Connect(to.address()));
  }
  for (auto& [host, peer] : dialled) EXPECT_EQ(host->Send(peer, {"hello", {Bytes(100, 1)}}).code, GF_OK);
  for (Host& host : hosts) {
    for (size_t i = 0; i < hosts.size(); ++i) EXPECT_TRUE(host.WaitFrames(host.Accepted(i), 1));
  }
}

TEST(Listen, TellsItsRealAddressAndChannels) {
  Host host;
  ASSERT_EQ(host.Listen().code, GF_OK);
  EXPECT_EQ(host.address().rfind("uv://127.0.0.1:", 0), 0u) << host.address();
  EXPECT_NE(Port(host.address()), 0);
  EXPECT_EQ(host.address().substr(host.address().find('#')), "#basic,cma");
}

TEST(Listen, RefusesAPortInUse) {
  Host first, second;
  ASSERT_EQ(first.Listen().code, GF_OK);
  const Result result = second.Listen(first.address());
  EXPECT_EQ(result.code, GF_ALREADY_EXISTS) << result;
  EXPECT_NE(result.text.find("address in use"), std::string::npos) << result;
  EXPECT_NE(result.text.find("127.0.0.1:" + std::to_string(Port(first.address()))), std::string::npos) << result;
  // It may try elsewhere.
  EXPECT_EQ(second.Listen().code, GF_OK);
}

TEST(Listen, RefusesAPortThatAnotherProgramUses) {
  RawSocket other;
  ASSERT_TRUE(other.Bind(0) && other.Listen());
  Host host;
  const Result result = host.Listen("uv://127.0.0.1:" + std::to_string(other.port()));
  EXPECT_EQ(result.code, GF_ALREADY_EXISTS) << result;
}

TEST(Listen, OfManyAtOnceAtOnePortExactlyOneWins) {
  const std::string address = NobodysAddress();
  std::list<Host> hosts;
  for (int i = 0; i < 4; ++i) hosts.emplace_back();
  std::atomic<int> won{0}, lost{0};
  std::vector<std::thread> threads;
  for (Host& host : hosts) {
    threads.emplace_back([&] {
      const Result result = host.Listen(address);
      if (result.code == GF_OK) ++won;
      if (result.code == GF_ALREADY_EXISTS) ++lost;
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(won, 1);
  EXPECT_EQ(lost, 3);
}

TEST(Listen, WithinAnEventWorksOrSaysThatItDoesNot) {
  Pair pair;
  Result result;
  pair.client.Set(pair.out->on_sent, [&](Peer&) { result = pair.client.Listen(); });
  EXPECT_EQ(pair.client.Send(pair.out, {"x", {}}).code, GF_OK);
  ASSERT_TRUE(pair.server.WaitFrames(pair.in, 1));
  pair.client.Finish();
  if (result.code == GF_OK) {
    EXPECT_NE(Port(pair.client.address()), 0);
  } else {
    EXPECT_EQ(result.code, GF_FAILED_PRECONDITION) << result;
  }
}

TEST(Listen, RefusesASecondTime) {
  Host host;
  ASSERT_EQ(host.Listen().code, GF_OK);
  EXPECT_EQ(host.Listen().code, GF_FAILED_PRECONDITION);
}

TEST(Listen, RefusesAddressesThatAreNone) {
  Host host;
  for (const char* address :
       {"uv://localhost:0", "127.0.0.1:0", "tcp://127.0.0.1:0", "uv://127.0.0.1:65536", "uv://127.0.0.1:x", "uv://",
        "uv://[::1:0", "uv://0.0.0.0:0", "uv://[::]:0", "uv://224.0.0.1:0", "uv://::1:0"}) {
    const Result result = host.Listen(address);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << address << ": " << result;
    EXPECT_NE(result.text.find(address), std::string::npos) << result;
  }
  const Result foreign = host.Listen("shm://name");
  EXPECT_EQ(foreign.code, GF_INVALID_ARGUMENT) << foreign;
  EXPECT_NE(foreign.text.find("transports"), std::string::npos) << foreign;
}

TEST(Listen, RefusesToLeaveLoopbackOnAnUntrustedNetwork) {
  Host host;
  const Result result = host.Listen("uv://192.0.2.77:0");
  EXPECT_EQ(result.code, GF_FAILED_PRECONDITION) << result;
  EXPECT_NE(result.text.find("trusted_network"), std::string::npos) << result;
}

TEST(Listen, LeavesLoopbackOnATrustedNetwork) {
  std::string ip;
  ifaddrs* all = nullptr;
  ASSERT_EQ(getifaddrs(&all), 0);
  for (ifaddrs* one = all; one != nullptr; one = one->ifa_next) {
    if (one->ifa_addr == nullptr || one->ifa_addr->sa_family != AF_INET) continue;
    char text[INET_ADDRSTRLEN];
    inet_ntop(AF_INET, &reinterpret_cast<sockaddr_in*>(one->ifa_addr)->sin_addr, text, sizeof(text));
    if (std::strncmp(text, "127.", 4) != 0) ip = text;
  }
  freeifaddrs(all);
  if (ip.empty()) GTEST_SKIP() << "this machine has no other interface";
  Host server(R"({"trusted_network": true})"), client;
  ASSERT_EQ(server.Listen("uv://" + ip + ":0").code, GF_OK);
  Peer* peer = client.Connect(server.address());
  EXPECT_EQ(client.Send(peer, {"hello", {}}).code, GF_OK);
  EXPECT_TRUE(server.WaitFrames(server.Accepted(), 1));
}

TEST(Listen, RefusesAnIpOfNoInterface) {
  Host host(R"({"trusted_network": true})");
  const Result result = host.Listen("uv://198.51.100.7:0");
  EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << result;
  EXPECT_NE(result.text.find("198.51.100.7"), std::string::npos) << result;
}

TEST(Listen, RefusesABufferThatMayBeTooSmall) {
  Host host;
  Host other;
  char buffer[8];
  size_t length = 0;
  gf_transport_error error{sizeof(error), 0, 0, {}};
  gf_transport* transport = nullptr;
  // A transport of its own, so that nothing of Host's is in the way.
  gf_transport_host table{};
  table.struct_size = sizeof(table);
  table.log = [](void*, uint32_t, const char*, size_t) {};
  table.on_shutdown = [](void*) {};
  ASSERT_EQ(host.vtable()->create(&table, "{}", 2, &transport, &error), GF_OK);
  EXPECT_EQ(host.vtable()->listen(transport, "", 0, buffer, sizeof(buffer), &length, &error), GF_OUT_OF_RANGE);
  EXPECT_GT(length, sizeof(buffer));
  host.vtable()->destroy(transport);
}

}  // namespace
}  // namespace gradferry::tp::testing
