// Peers that speak the transport's language and mean no good, by frames: what they send ends their own connection with
// an error that is logged, and changes nothing for the others.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "impl/rpc/handshake.h"
#include "tests/hostile/pair.h"
#include "tests/hostile/stranger.h"
#include "tests/support/c_abi/live.h"
#include "tests/support/c_abi/log.h"

namespace gf {
namespace {

using gradferry::Code;
using gradferry::DialHandshake;
using gradferry::Hello;
using gradferry::HelloProof;
using gradferry::HelloReply;
using gradferry::Identity;
using gradferry::Stranger;
using gradferry::StrangerConnection;

constexpr char kSecret[] = "walk softly and carry it";

std::string Options(const std::string& transport, const std::string& network) {
  return transport == "sim" ? "{\"network\": \"" + network + "\"}" : "{}";
}

Identity Intruder(const std::string& secret = "") {
  Identity identity;
  identity.group = "default";
  identity.name = "intruder";
  identity.id = 66;
  identity.incarnation = 1;
  identity.secret = secret;
  return identity;
}

// Bytes of a header, one field after the other.
class Bytes {
 public:
  explicit Bytes(uint8_t kind) : bytes_("GF\x02\0", 4) { U8(kind); }
  Bytes& U8(uint8_t value) { return Raw(value); }
  Bytes& U32(uint32_t value) { return Raw(value); }
  Bytes& U64(uint64_t value) { return Raw(value); }
  Bytes& Text(const std::string& text) {
    U32(static_cast<uint32_t>(text.size()));
    bytes_ += text;
    return *this;
  }
  Bytes& Times(size_t count, const std::string& bytes) {
    for (size_t i = 0; i < count; ++i) bytes_ += bytes;
    return *this;
  }
  std::string Done() const { return bytes_; }

 private:
  template <class T>
  Bytes& Raw(T value) {
    bytes_.append(reinterpret_cast<const char*>(&value), sizeof value);
    return *this;
  }
  std::string bytes_;
};

// A Call up to the count of its arguments.
Bytes CallHeader() { return Bytes(4).U64(1).U64(INT64_MAX).U8(0).U8(0).Text("x").Text(""); }

struct Bomb {
  const char* name;
  std::string header;
  const char* code;
};

std::vector<Bomb> Bombs() {
  const std::string dense("\x06\x01\0\x06\x01", 5);  // a tensor of floats with one dimension
  const auto sized = [&dense](uint64_t size) {
    std::string tensor = dense;
    tensor.append(reinterpret_cast<const char*>(&size), 8);
    return tensor;
  };
  return {
      {"no Gradferry frame", "GET / HTTP/1.1\r\n\r\n", "DATA_LOSS"},
      {"a kind that is none", Bytes(200).Done(), "DATA_LOSS"},
      {"2^31 arguments", CallHeader().U32(1u << 31).Done(), "DATA_LOSS"},
      {"2^32 - 1 arguments", CallHeader().U32(UINT32_MAX).Done(), "DATA_LOSS"},
      {"a string of 2^31 bytes", CallHeader().U32(1).U8(4).U32(1u << 31).Done(), "DATA_LOSS"},
      {"a name of 2^32 - 1 bytes", Bytes(4).U64(1).U64(1).U8(0).U8(0).U32(UINT32_MAX).Done(), "RESOURCE_EXHAUSTED"},
      {"a tensor of 2^62 elements", CallHeader().U32(1).Times(1, sized(uint64_t{1} << 62)).Done(), "DATA_LOSS"},
      {"a tensor of 2^31 elements", CallHeader().U32(1).Times(1, sized(uint64_t{1} << 31)).Done(), "DATA_LOSS"},
      {"a tensor of minus one elements", CallHeader().U32(1).Times(1, sized(UINT64_MAX)).Done(), "DATA_LOSS"},
      {"300,000 tensors", CallHeader().U32(300000).Times(300000, std::string("\x06\0", 2)).Done(),
       "RESOURCE_EXHAUSTED"},
      {"10^4 levels", CallHeader().Times(10000, std::string("\x01\0\0\0\x07", 5)).U32(0).Done(), "RESOURCE_EXHAUSTED"},
      {"200 links of errors", Bytes(5).U64(1).U8(200).Done(), "RESOURCE_EXHAUSTED"},
  };
}

class StrangersTest : public TransportTest {
 protected:
  // A worker that others call, and a stranger with a way to it.
  struct Scene {
    Scene(const std::string& transport, const Settings& settings)
        : pair(transport, settings, settings), stranger(transport, Options(transport, pair.network())) {}
    std::shared_ptr<StrangerConnection> Dial() { return stranger.Dial(Address(pair.b())); }
    // A connection whose introduction was good.
    std::shared_ptr<StrangerConnection> DialAsMember(const std::string& secret = "") {
      const Identity self = Intruder(secret);
      DialHandshake handshake(&self, 1, "b");
      auto connection = Dial();
      connection->Say(handshake.hello());
      const auto reply = connection->NextIs<HelloReply>();
      EXPECT_TRUE(reply && handshake.OnReply(*reply, {}).ok());
      if (handshake.proof()) connection->Say(*handshake.proof());
      return connection;
    }
    // A listener of TensorPipe's that a stranger's end has closed is open again within 100 ms; who connects meanwhile
    // is refused.
    void ExpectServed() {
      const auto serves = [](gf_worker* from, const std::string& to) {
        double sum = 0;
        const Error error = ErrorOf([&] { sum = Pair::AddAt(from, to); });
        if (error.code == GF_UNAVAILABLE) return false;
        EXPECT_EQ(error.code, GF_OK) << error.description;
        EXPECT_EQ(sum, 3);
        return true;
      };
      EXPECT_TRUE(Eventually([&] { return serves(pair.a(), "b"); }));
      EXPECT_TRUE(Eventually([&] { return serves(pair.b(), "a"); }));
    }
    Pair pair;
    Stranger stranger;
  };
};

TEST_P(StrangersTest, WhatAMemberMayNotSendEndsItsConnectionOnly) {
  Scene scene(transport(), {});
  for (const Bomb& bomb : Bombs()) {
    SCOPED_TRACE(bomb.name);
    const LogLines log;
    const auto connection = scene.DialAsMember();
    if (bomb.header.size() < 1000000) connection->SendHeader(bomb.header);
    if (bomb.header.size() >= 1000000) connection->SendHeader(bomb.header.substr(0, 1000000));
    EXPECT_TRUE(connection->Ended());
    EXPECT_TRUE(log.Has({"worker intruder", bomb.code})) << log.All();
    scene.ExpectServed();
  }
}

TEST_P(StrangersTest, TheSameIsRefusedBeforeTheIntroduction) {
  Scene scene(transport(), {});
  for (const Bomb& bomb : Bombs()) {
    SCOPED_TRACE(bomb.name);
    const LogLines log;
    const auto connection = scene.Dial();
    connection->SendHeader(bomb.header.substr(0, 900000));
    EXPECT_TRUE(connection->Ended());
    EXPECT_TRUE(log.Has({"a connection", "was refused: ", bomb.header.size() > 4000 ? "UNAUTHENTICATED" : bomb.code}))
        << log.All();
  }
  scene.ExpectServed();
}

TEST_P(StrangersTest, AFrameWithoutASealOrWithAWrongOneIsRefused) {
  Scene scene(transport(), {});
  const LogLines log;
  for (const std::string& bytes : {std::string("x"), CallHeader().U32(0).Done(), std::string(4000, '\xff')}) {
    const auto connection = scene.Dial();
    connection->SendBytes(bytes);
    EXPECT_TRUE(connection->Ended());
  }
  EXPECT_TRUE(log.Has({"was refused: DATA_LOSS", "damaged"})) << log.All();
  scene.ExpectServed();
}

TEST_P(StrangersTest, NothingIsServedBeforeTheProof) {
  Scene scene(transport(), {{"security.secret", kSecret}});
  std::atomic<int> served{0};
  HandleDirect(scene.pair.b(), "x", [&served](const Request& request) {
    ++served;
    Reply(request, NewList());
  });
  const LogLines log;
  const Identity self = Intruder(kSecret);
  DialHandshake handshake(&self, 1, "b");
  const auto connection = scene.Dial();
  connection->Say(handshake.hello());
  ASSERT_TRUE(connection->NextIs<HelloReply>().has_value());
  gradferry::Call call;
  call.call_id = 1;
  call.time_left = INT64_MAX;
  call.name = "x";
  connection->Say(call);
  EXPECT_TRUE(connection->Ended());
  EXPECT_TRUE(log.Has({"of worker intruder was refused: UNAUTHENTICATED", "a Call came before HelloProof"}))
      << log.All();
  EXPECT_EQ(served, 0);
  const auto info = Info(scene.pair.b());
  for (const auto& peer : info["peers"]) EXPECT_NE(peer["name"], "intruder");
  // With the proof the same is served.
  const auto member = scene.DialAsMember(kSecret);
  member->Say(call);
  const auto reply = member->NextIs<gradferry::Reply>();
  ASSERT_TRUE(reply.has_value());
  EXPECT_TRUE(reply->status.ok()) << reply->status.ToString();
  EXPECT_EQ(served, 1);
}

TEST_P(StrangersTest, AnIntroductionThatWasOverheardIsWorthNothing) {
  Scene scene(transport(), {{"security.secret", kSecret}});
  const Identity self = Intruder(kSecret);
  DialHandshake handshake(&self, 1, "b");
  const auto honest = scene.Dial();
  honest->Say(handshake.hello());
  auto reply = honest->NextIs<HelloReply>();
  ASSERT_TRUE(reply && handshake.OnReply(*reply, {}).ok());
  honest->Say(*handshake.proof());
  const LogLines log;
  const auto replayed = scene.Dial();
  replayed->Say(handshake.hello());
  reply = replayed->NextIs<HelloReply>();
  ASSERT_TRUE(reply && reply->status.ok());
  replayed->Say(*handshake.proof());
  EXPECT_TRUE(replayed->Ended());
  EXPECT_TRUE(log.Has({"of worker intruder was refused: UNAUTHENTICATED", "wrong proof"})) << log.All();
  scene.ExpectServed();
}

TEST_P(StrangersTest, AnUnprovenHelloDoesNotPassForANewLifeOfAPeer) {
  Scene scene(transport(), {{"security.secret", kSecret}});
  scene.ExpectServed();
  const Context context = NewContext(scene.pair.a());
  const Tensor x = WithGrad(Floats({1}, {2}));
  const Tensor y = RemoteOp(scene.pair.a(), "b", In(context), "aten::mul.Tensor", x, x);
  // "a" in another incarnation: believed, it would cost the real one its contexts.
  Identity self = Intruder("a secret of somebody else");
  self.name = "a";
  self.id = 0;
  DialHandshake handshake(&self, 1, "b");
  const auto connection = scene.Dial();
  connection->Say(handshake.hello());
  ASSERT_TRUE(connection->NextIs<HelloReply>().has_value());
  connection->Say(HelloProof{});
  EXPECT_TRUE(connection->Ended());
  Backward(context, {y});
  EXPECT_EQ(ReadFloats(Gradient(context, x))[0], 4);
  Release(context);
}

TEST_P(StrangersTest, ASecondHelloOrProofIsRefused) {
  Scene scene(transport(), {});
  const auto connection = scene.DialAsMember();
  const Identity self = Intruder();
  connection->Say(DialHandshake(&self, 1, "b").hello());
  EXPECT_TRUE(connection->Ended());
  const auto another = scene.DialAsMember();
  another->Say(HelloProof{});
  EXPECT_TRUE(another->Ended());
  scene.ExpectServed();
}

TEST_P(StrangersTest, WhoeverStandsThereInSilenceMakesRoomForThoseWhoSpeak) {
  Scene scene(transport(), {{"limits.pending_connections", "8"}, {"liveness.introduction", "none"}});
  const LogLines log;
  std::vector<std::shared_ptr<StrangerConnection>> silent;
  for (int i = 0; i < 40; ++i) silent.push_back(scene.Dial());
  // The first ones go, in the order in which they came.
  for (int i = 0; i < 30; ++i) EXPECT_TRUE(silent[static_cast<size_t>(i)]->Ended());
  EXPECT_TRUE(log.Has({"a connection", "was refused: RESOURCE_EXHAUSTED", "limits.pending_connections"})) << log.All();
  scene.ExpectServed();
}

TEST_P(StrangersTest, WhoeverStandsThereInSilenceGoesInTheEnd) {
  Scene scene(transport(), {{"liveness.introduction", "50ms"}});
  const LogLines log;
  EXPECT_TRUE(scene.Dial()->Ended());
  EXPECT_TRUE(log.Has({"a connection", "was refused: UNAVAILABLE", "liveness.introduction"})) << log.All();
  // One that has said hello and proves nothing, too.
  scene.ExpectServed();
}

INSTANTIATE_TEST_SUITE_P(Over, StrangersTest,
                         ::testing::Values(std::string("sim"), std::string("thrift"), std::string("tensorpipe")),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gf
