// The introduction between two workers, without links: who is let in, and everything that is refused.
#include "impl/rpc/handshake.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace gradferry {
namespace {

using ::testing::HasSubstr;

Identity Named(const std::string& name, WorkerId id, const std::string& secret = "") {
  Identity identity;
  identity.group = "g";
  identity.name = name;
  identity.id = id;
  identity.incarnation = 100 + static_cast<uint64_t>(id);
  identity.secret = secret;
  if (!secret.empty()) identity.protocol_min = 2;
  return identity;
}

const std::string kSecret = "a secret of the group";

class HandshakeTest : public ::testing::Test {
 protected:
  // Both ends of one connection.
  struct Ends {
    Ends(const Identity& a, const Identity& b) : dialler(&a, b.id, b.name), acceptor(&b) {}
    DialHandshake dialler;
    AcceptHandshake acceptor;
  };

  // How the introduction ended, on the side that ended it.
  Status Meet(const PeerInfo& acceptor_sees = {}, const PeerInfo& dialler_sees = {}) {
    Ends ends(a_, b_);
    const HelloReply reply = ends.acceptor.OnHello(ends.dialler.hello(), acceptor_sees);
    if (Status status = ends.dialler.OnReply(reply, dialler_sees); !status.ok()) return status;
    version_ = ends.dialler.version();
    EXPECT_EQ(ends.acceptor.version(), version_);
    EXPECT_EQ(ends.acceptor.wants_proof(), ends.dialler.proof().has_value());
    return ends.acceptor.wants_proof() ? ends.acceptor.OnProof(*ends.dialler.proof()) : OkStatus();
  }
  void ExpectRefusal(Code code, const std::string& text, const Status& status) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_THAT(status.message(), HasSubstr(text));
    EXPECT_THAT(status.ToString(), ::testing::Not(HasSubstr(kSecret)));
  }

  Identity a_ = Named("a", 1);
  Identity b_ = Named("b", 2);
  int version_ = 0;
};

TEST_F(HandshakeTest, WorkersOfOneGroupMeetInTheNewestVersion) {
  EXPECT_TRUE(Meet().ok());
  EXPECT_EQ(version_, kProtocolVersion);
}

TEST_F(HandshakeTest, WorkersWithOneSecretMeet) {
  a_.secret = b_.secret = kSecret;
  EXPECT_TRUE(Meet().ok());
}

TEST_F(HandshakeTest, ASecretOnOneSideOnlyIsRefusedByName) {
  b_.secret = kSecret;
  ExpectRefusal(Code::kUnauthenticated, "worker b has a group secret (security.secret), worker a has none", Meet());
  a_.secret.swap(b_.secret);
  ExpectRefusal(Code::kUnauthenticated, "worker a has a group secret (security.secret), worker b has none", Meet());
}

TEST_F(HandshakeTest, DifferentSecretsAreRefusedByName) {
  a_.secret = kSecret;
  b_.secret = "another secret of it";
  ExpectRefusal(Code::kUnauthenticated, "the group secrets (security.secret) of workers a and b differ", Meet());
}

TEST_F(HandshakeTest, AnAcceptorThatLeavesItsProofOutIsRefused) {
  a_.secret = b_.secret = kSecret;
  Ends ends(a_, b_);
  HelloReply reply = ends.acceptor.OnHello(ends.dialler.hello(), {});
  reply.proof.reset();
  ExpectRefusal(Code::kUnauthenticated, "worker a has a group secret (security.secret), worker b proves none",
                ends.dialler.OnReply(reply, {}));
}

TEST_F(HandshakeTest, EveryFieldIsBoundByTheProof) {
  a_.secret = b_.secret = kSecret;
  const std::vector<std::function<void(Hello&)>> changes = {
      [](Hello& h) { h.protocol_max = 9; }, [](Hello& h) { h.incarnation ^= 1; },
      [](Hello& h) { h.id = 7; },           [](Hello& h) { h.name = "c"; },
      [](Hello& h) { h.nonce[31] ^= 1; },   [](Hello& h) { h.capabilities |= uint64_t{1} << 63; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    Ends ends(a_, b_);
    Hello hello = ends.dialler.hello();
    changes[i](hello);
    const HelloReply reply = ends.acceptor.OnHello(hello, {});
    ASSERT_TRUE(reply.status.ok()) << i << reply.status.ToString();
    EXPECT_EQ(ends.dialler.OnReply(reply, {}).code(), Code::kUnauthenticated) << i;
  }
  const std::vector<std::function<void(HelloReply&)>> lies = {
      [](HelloReply& r) { r.incarnation ^= 1; },  [](HelloReply& r) { r.id = 7; },
      [](HelloReply& r) { r.name = "c"; },        [](HelloReply& r) { r.nonce[0] ^= 1; },
      [](HelloReply& r) { r.capabilities ^= 2; }, [](HelloReply& r) { (*r.proof)[0] ^= 1; }};
  for (size_t i = 0; i < lies.size(); ++i) {
    Ends ends(a_, b_);
    HelloReply reply = ends.acceptor.OnHello(ends.dialler.hello(), {});
    lies[i](reply);
    EXPECT_EQ(ends.dialler.OnReply(reply, {}).code(), Code::kUnauthenticated) << i;
  }
}

TEST_F(HandshakeTest, AWrongOrMissingOrMirroredProofIsRefused) {
  a_.secret = b_.secret = kSecret;
  for (const int kind : {0, 1, 2}) {
    Ends ends(a_, b_);
    const HelloReply reply = ends.acceptor.OnHello(ends.dialler.hello(), {});
    ASSERT_TRUE(ends.dialler.OnReply(reply, {}).ok());
    HelloProof proof = *ends.dialler.proof();
    if (kind == 0) (*proof.proof)[5] ^= 1;
    if (kind == 1) proof.proof.reset();
    if (kind == 2) proof.proof = reply.proof;
    ExpectRefusal(Code::kUnauthenticated,
                  "worker a gave a wrong proof of the group secret (security.secret) to worker b",
                  ends.acceptor.OnProof(proof));
    // There is no second try.
    EXPECT_FALSE(ends.acceptor.OnProof(*ends.dialler.proof()).ok());
  }
}

TEST_F(HandshakeTest, AReplayedIntroductionIsRefused) {
  a_.secret = b_.secret = kSecret;
  Ends overheard(a_, b_);
  const HelloReply first = overheard.acceptor.OnHello(overheard.dialler.hello(), {});
  ASSERT_TRUE(overheard.dialler.OnReply(first, {}).ok());
  ASSERT_TRUE(overheard.acceptor.OnProof(*overheard.dialler.proof()).ok());
  // The dialler's side again, to the same acceptor.
  AcceptHandshake again(&b_);
  const HelloReply second = again.OnHello(overheard.dialler.hello(), {});
  EXPECT_TRUE(second.status.ok());
  EXPECT_NE(second.nonce, first.nonce);
  EXPECT_EQ(again.OnProof(*overheard.dialler.proof()).code(), Code::kUnauthenticated);
  // The acceptor's side again, to the same dialler.
  DialHandshake fresh(&a_, b_.id, b_.name);
  EXPECT_NE(fresh.hello().nonce, overheard.dialler.hello().nonce);
  EXPECT_EQ(fresh.OnReply(first, {}).code(), Code::kUnauthenticated);
}

TEST_F(HandshakeTest, OtherGroupsAndOtherTargetsAreRefused) {
  b_.group = "h";
  ExpectRefusal(Code::kPermissionDenied, "worker a is of group \"g\", worker b of \"h\"", Meet());
  b_.group = "g";
  DialHandshake dialler(&a_, 3, "c");
  AcceptHandshake acceptor(&b_);
  ExpectRefusal(Code::kFailedPrecondition, "worker a looks for c (3), this is b (2)",
                acceptor.OnHello(dialler.hello(), {}).status);
}

// ---- Versions ----

TEST_F(HandshakeTest, TheNewestVersionOfBothIsSpoken) {
  const auto meet = [this](uint16_t a_min, uint16_t a_max, uint16_t b_min, uint16_t b_max) {
    a_.protocol_min = a_min;
    a_.protocol_max = a_max;
    b_.protocol_min = b_min;
    b_.protocol_max = b_max;
    return Meet();
  };
  EXPECT_TRUE(meet(1, 2, 2, 2).ok());
  EXPECT_EQ(version_, 2);
  EXPECT_TRUE(meet(1, 1, 1, 2).ok());
  EXPECT_EQ(version_, 1);
  EXPECT_TRUE(meet(1, 2, 1, 1).ok());
  EXPECT_EQ(version_, 1);
  EXPECT_TRUE(meet(1, 1, 1, 1).ok());
  EXPECT_EQ(version_, 1);
  ExpectRefusal(Code::kUnsupported, "worker a speaks version 1 of the protocol, worker b speaks version 2",
                meet(1, 1, 2, 2));
  ExpectRefusal(Code::kUnsupported, "worker a speaks version 2 of the protocol, worker b speaks version 1",
                meet(2, 2, 1, 1));
}

TEST_F(HandshakeTest, ALaterVersionAgreesOnOursOrIsRefusedByBothRanges) {
  Hello later;
  later.layout = 3;
  later.protocol_min = 2;
  later.protocol_max = 3;
  later.group = "g";
  later.name = "new";
  later.id = 5;
  later.to = b_.id;
  later.to_name = b_.name;
  AcceptHandshake acceptor(&b_);
  const HelloReply reply = acceptor.OnHello(later, {});
  EXPECT_TRUE(reply.status.ok()) << reply.status.ToString();
  EXPECT_EQ(reply.protocol, 2);
  EXPECT_EQ(reply.layout, 2);
  later.protocol_min = 3;
  AcceptHandshake other(&b_);
  ExpectRefusal(Code::kUnsupported, "worker new speaks version 3 of the protocol, worker b speaks versions 1 to 2",
                other.OnHello(later, {}).status);
}

TEST_F(HandshakeTest, AnAnswerInAVersionThatWasNotOfferedIsRefused) {
  Ends ends(a_, b_);
  HelloReply reply = ends.acceptor.OnHello(ends.dialler.hello(), {});
  reply.protocol = 3;
  ExpectRefusal(Code::kUnsupported, "worker b answers in version 3 of the protocol, worker a speaks versions 1 to 2",
                ends.dialler.OnReply(reply, {}));
}

TEST_F(HandshakeTest, WhoSpeaksVersion2DoesNotFallBackTo1) {
  Hello hello = DialHandshake(&a_, b_.id, b_.name).hello();
  hello.layout = 1;
  AcceptHandshake acceptor(&b_);
  ExpectRefusal(Code::kUnavailable, "worker a said hello in version 1, though both speak 2",
                acceptor.OnHello(hello, {}).status);
}

// ---- Identities ----

TEST_F(HandshakeTest, WhoCallsItselfAsItsCertificateDoesNotIsRefused) {
  PeerInfo proven;
  proven.address = "10.0.0.7:4000";
  proven.identities = {"x", "a"};
  EXPECT_TRUE(Meet(proven).ok());
  proven.identities = {"x", "y"};
  ExpectRefusal(Code::kPermissionDenied, "the peer at 10.0.0.7:4000 calls itself a, the transport has proof of x, y",
                Meet(proven));
  proven.identities = std::vector<std::string>();
  ExpectRefusal(Code::kPermissionDenied, "calls itself a, the transport has proof of no name", Meet(proven));
  proven.identities = {"x", "y"};
  ExpectRefusal(Code::kPermissionDenied, "calls itself b, the transport has proof of x, y", Meet({}, proven));
  proven.identities = {"b"};
  EXPECT_TRUE(Meet({}, proven).ok());
}

TEST_F(HandshakeTest, ConnectionsAreDescribedByWhatIsKnown) {
  PeerInfo info;
  EXPECT_EQ(DescribeConnection(info), "a connection");
  info.address = "10.0.0.7:4000";
  EXPECT_EQ(DescribeConnection(info), "a connection from 10.0.0.7:4000");
  info.identities = {"a", "b"};
  EXPECT_EQ(DescribeConnection(info), "a connection from 10.0.0.7:4000 (a, b)");
}

}  // namespace
}  // namespace gradferry
