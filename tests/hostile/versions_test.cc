// Workers of the protocol's version before this one, of this one and of the one after it, in both directions: they
// agree on a version, or the refusal names both ranges. The one after it is a stranger with a Hello of that version.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/hostile/pair.h"
#include "tests/hostile/stranger.h"
#include "tests/support/c_abi/log.h"

namespace gf {
namespace {

using gradferry::Ack;
using gradferry::CleanupAutogradContext;
using gradferry::Code;
using gradferry::Heartbeat;
using gradferry::Hello;
using gradferry::HelloProof;
using gradferry::HelloReply;
using gradferry::Stranger;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Options(const std::string& transport, const std::string& network) {
  return transport == "sim" ? "{\"network\": \"" + network + "\"}" : "{}";
}

// What a worker of the next version says first; it has added something at the end.
Hello NextVersion(uint16_t min) {
  Hello hello;
  hello.layout = gradferry::kProtocolVersion + 1;
  hello.protocol_min = min;
  hello.protocol_max = gradferry::kProtocolVersion + 1;
  hello.group = "default";
  hello.name = "later";
  hello.id = 5;
  hello.incarnation = 77;
  hello.to = 0;
  hello.to_name = "a";
  return hello;
}

std::string HeaderOf(const Hello& hello) { return gradferry::EncodeFrame(hello, {}, {})->header + "and more"; }

class VersionsTest : public TransportTest {};

TEST_P(VersionsTest, APinnedWorkerAndOnesThatAreNotTalkInTheOldVersion) {
  const Settings pinned = {{"protocol.max", "1"}};
  for (const auto& [first, second] : {std::pair<Settings, Settings>{pinned, {}}, {{}, pinned}, {pinned, pinned}}) {
    const Pair pair(transport(), first, second);
    EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
    EXPECT_EQ(Pair::AddAt(pair.b(), "a"), 3);
  }
}

TEST_P(VersionsTest, ThoseWithoutACommonVersionNameBothRanges) {
  const Pair pair(transport(), {{"protocol.max", "1"}}, {{"protocol.min", "2"}});
  for (const auto& [from, to] : {std::pair<gf_worker*, std::string>{pair.a(), "b"}, {pair.b(), "a"}}) {
    const Error error = ErrorOf([&, from = from, to = to] { Pair::AddAt(from, to); });
    EXPECT_EQ(error.code, GF_UNSUPPORTED) << error.description;
    EXPECT_THAT(error.message, AllOf(HasSubstr("worker a speaks version 1"), HasSubstr("worker b speaks version 2")))
        << error.description;
  }
}

TEST_P(VersionsTest, AWorkerWithASecretDoesNotSpeakTheOldOne) {
  const Settings secret = {{"security.secret", "walk softly and carry it"}};
  const Pair pair(transport(), {{"protocol.max", "1"}}, secret);
  EXPECT_EQ(ErrorOf([&] { Pair::AddAt(pair.a(), "b"); }).code, GF_UNAUTHENTICATED);
  Settings both = secret;
  both["protocol.max"] = "1";
  const Error error = ErrorOf([&] { OpenWorker(WorkerConfig(transport(), UniqueName(), "c", 2, both)); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("protocol.max"), HasSubstr("security.secret")));
}

TEST_P(VersionsTest, ARangeThatIsNoneIsRefused) {
  const Error error = ErrorOf([&] {
    OpenWorker(WorkerConfig(transport(), UniqueName(), "c", 2, {{"protocol.min", "2"}, {"protocol.max", "1"}}));
  });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, AllOf(HasSubstr("protocol.min"), HasSubstr("protocol.max")));
}

TEST_P(VersionsTest, TheNextVersionConnectsAndAgreesOnThisOne) {
  Group group(transport(), {"a"});
  Stranger later(transport(), Options(transport(), group.network()));
  const auto connection = later.Dial(Address(group[0]));
  connection->SendHeader(HeaderOf(NextVersion(2)));
  const auto reply = connection->Next();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->version, 2);
  const auto& hello = std::get<HelloReply>(reply->message);
  EXPECT_TRUE(hello.status.ok()) << hello.status.ToString();
  EXPECT_EQ(hello.protocol, 2);
  connection->Say(CleanupAutogradContext{9, 1}, 2);
  const auto ack = connection->Next();
  ASSERT_TRUE(ack.has_value());
  EXPECT_EQ(ack->version, 2);
  EXPECT_EQ(std::get<Ack>(ack->message).call_id, 9u);
  connection->Close();
  EXPECT_TRUE(connection->Ended());
}

TEST_P(VersionsTest, TheNextVersionAloneIsRefusedByBothRanges) {
  const LogLines log;
  Group group(transport(), {"a"});
  Stranger later(transport(), Options(transport(), group.network()));
  const auto connection = later.Dial(Address(group[0]));
  connection->SendHeader(HeaderOf(NextVersion(3)));
  const auto reply = connection->NextIs<HelloReply>();
  ASSERT_TRUE(reply.has_value());
  EXPECT_EQ(reply->status.code(), Code::kUnsupported);
  EXPECT_EQ(reply->status.message(), "worker later speaks version 3 of the protocol, worker a speaks versions 1 to 2");
  EXPECT_TRUE(log.Has({"of worker later was refused: UNSUPPORTED", "version 3", "versions 1 to 2"})) << log.All();
  connection->Close();
  EXPECT_TRUE(connection->Ended());
}

TEST_P(VersionsTest, AWorkerCallsOneOfTheNextVersion) {
  Group group(transport(), {"a"});
  Stranger later(transport(), Options(transport(), group.network()));
  AddPeer(group[0], 5, "later", later.Listen());
  const Future call = StartCall(group[0], "later", "x", NewList());
  const auto connection = later.Accept();
  ASSERT_NE(connection, nullptr);
  const auto hello = connection->NextIs<Hello>();
  ASSERT_TRUE(hello.has_value());
  EXPECT_EQ(hello->protocol_min, 1);
  EXPECT_EQ(hello->protocol_max, 2);
  HelloReply reply;
  reply.layout = 3;
  reply.protocol = 2;
  reply.name = "later";
  reply.id = 5;
  reply.incarnation = 1;
  connection->SendHeader(gradferry::EncodeFrame(reply, {}, {})->header + "and more");
  const auto request = connection->Next();
  ASSERT_TRUE(request.has_value());
  EXPECT_EQ(request->version, 2);
  connection->Say(gradferry::Reply{std::get<gradferry::Call>(request->message).call_id, {}, {}}, 2);
  EXPECT_EQ(Size(Await(call)), 0u);
}

TEST_P(VersionsTest, AWorkerIsRefusedByOneOfTheNextVersion) {
  Group group(transport(), {"a"});
  Stranger later(transport(), Options(transport(), group.network()));
  AddPeer(group[0], 5, "later", later.Listen());
  const Future call = StartCall(group[0], "later", "x", NewList());
  const auto connection = later.Accept();
  ASSERT_NE(connection, nullptr);
  ASSERT_TRUE(connection->NextIs<Hello>().has_value());
  HelloReply reply;
  reply.protocol = 3;
  reply.name = "later";
  reply.id = 5;
  reply.status = gradferry::Status(Code::kUnsupported,
                                   "worker a speaks versions 1 to 2 of the protocol, worker later speaks version 3");
  connection->Say(reply);
  const Error error = ErrorOf([&] { Await(call); });
  EXPECT_EQ(error.code, GF_UNSUPPORTED);
  EXPECT_THAT(error.message, AllOf(HasSubstr("versions 1 to 2"), HasSubstr("version 3")));
}

TEST_P(VersionsTest, AFrameOfAnotherVersionThanWasAgreedUponEndsTheConnection) {
  Group group(transport(), {"a"});
  Stranger later(transport(), Options(transport(), group.network()));
  const auto connection = later.Dial(Address(group[0]));
  connection->SendHeader(HeaderOf(NextVersion(2)));
  ASSERT_TRUE(connection->NextIs<HelloReply>().has_value());
  const LogLines log;
  connection->Say(Heartbeat{true}, 1);
  EXPECT_TRUE(connection->Ended());
  EXPECT_TRUE(log.Has({"worker later", "UNSUPPORTED", "version 1", "version 2"})) << log.All();
}

INSTANTIATE_TEST_SUITE_P(Over, VersionsTest,
                         ::testing::Values(std::string("sim"), std::string("tensorpipe"), std::string("thrift")),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace gf
