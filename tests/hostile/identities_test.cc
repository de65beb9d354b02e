// A transport that knows who is there has the last word: a worker that calls itself otherwise than its certificate does
// is refused, whichever side it is on, and both sides say so.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/hostile/pair.h"
#include "tests/support/c_abi/log.h"
#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

using ::testing::HasSubstr;

class IdentitiesTest : public LiveTest {
 protected:
  static void SetUpTestSuite() {
    folder_ = new TemporaryFolder;
    const std::string command = "tools/make_test_ca.sh " + folder_->path() + " a b mallory >/dev/null 2>&1";
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
  }
  static void TearDownTestSuite() { delete folder_; }

  static Settings With(const std::string& certificate) {
    return {{"worker.listen", "tls://127.0.0.1:0"},
            {"transport.thrift.ca", folder_->File("ca.pem")},
            {"transport.thrift.certificate", folder_->File(certificate + ".pem")},
            {"transport.thrift.key", folder_->File(certificate + ".key")}};
  }
  static nlohmann::json PeerIn(gf_worker* worker, const std::string& name) {
    const auto info = Info(worker);
    for (const auto& peer : info["peers"]) {
      if (peer["name"] == name) return peer;
    }
    return nullptr;
  }

  static TemporaryFolder* folder_;
};

TemporaryFolder* IdentitiesTest::folder_ = nullptr;

TEST_F(IdentitiesTest, WhoCallsItselfAsItsCertificateDoesIsLetInAndShown) {
  const Pair pair("thrift", With("a"), With("b"));
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  for (const auto& [worker, name] : {std::pair<gf_worker*, std::string>{pair.a(), "b"}, {pair.b(), "a"}}) {
    const auto connection = PeerIn(worker, name)["connection"];
    EXPECT_EQ(connection["identities"], nlohmann::json({name}));
    EXPECT_EQ(connection["encrypted"], true);
    EXPECT_THAT(connection["address"].get<std::string>(), HasSubstr("127.0.0.1"));
  }
}

TEST_F(IdentitiesTest, ADiallerWithTheCertificateOfAnotherIsRefused) {
  const LogLines log;
  const Pair pair("thrift", With("mallory"), With("b"));
  const Error error = ErrorOf([&] { Pair::AddAt(pair.a(), "b"); });
  EXPECT_EQ(error.code, GF_PERMISSION_DENIED) << error.description;
  EXPECT_THAT(error.message, HasSubstr("calls itself a, the transport has proof of mallory"));
  EXPECT_TRUE(log.Has({"a connection from 127.0.0.1:", "(mallory) of worker a was refused: PERMISSION_DENIED"}))
      << log.All();
  EXPECT_TRUE(PeerIn(pair.b(), "a")["connection"].is_null());
}

TEST_F(IdentitiesTest, AnAcceptorWithTheCertificateOfAnotherIsRefused) {
  const LogLines log;
  const Pair pair("thrift", With("a"), With("mallory"));
  const Error error = ErrorOf([&] { Pair::AddAt(pair.a(), "b"); });
  EXPECT_EQ(error.code, GF_PERMISSION_DENIED) << error.description;
  EXPECT_EQ(error.peer, "b");
  EXPECT_THAT(error.message, HasSubstr("calls itself b, the transport has proof of mallory"));
  // The one who was refused has been told.
  EXPECT_TRUE(log.Has({"of worker a was refused: PERMISSION_DENIED", "calls itself b"})) << log.All();
}

}  // namespace
}  // namespace gf
