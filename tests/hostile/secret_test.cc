// The group's secret between workers, over each transport: the same one lets them in, anything else is refused with one
// error that both sides name and that says nothing of the secret.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "tests/hostile/pair.h"
#include "tests/support/c_abi/log.h"
#include "tests/support/c_abi/process.h"

namespace gf {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kSecret[] = "walk softly and carry it";
constexpr char kOther[] = "something else entirely";

class SecretTest : public TransportTest {
 protected:
  // Both calls are refused, both errors and both workers' lines say it.
  void ExpectRefused(const Settings& first, const Settings& second) {
    const LogLines log;
    {
      const Pair pair(transport(), first, second);
      for (const bool forth : {true, false}) {
        gf_worker* const from = forth ? pair.a() : pair.b();
        const Error error = ErrorOf([&] { Pair::AddAt(from, forth ? "b" : "a"); });
        EXPECT_EQ(error.code, GF_UNAUTHENTICATED) << error.description;
        EXPECT_EQ(error.peer, forth ? "b" : "a");
        EXPECT_THAT(error.message, HasSubstr("security.secret"));
        EXPECT_THAT(error.description, AllOf(Not(HasSubstr(kSecret)), Not(HasSubstr(kOther))));
      }
      EXPECT_TRUE(log.Has({"of worker a was refused: UNAUTHENTICATED", "security.secret"})) << log.All();
      EXPECT_TRUE(log.Has({"of worker b was refused: UNAUTHENTICATED", "security.secret"})) << log.All();
    }
    EXPECT_THAT(log.All(), AllOf(Not(HasSubstr(kSecret)), Not(HasSubstr(kOther))));
  }
};

TEST_P(SecretTest, WorkersWithTheSameTalk) {
  const Pair pair(transport(), {{"security.secret", kSecret}}, {{"security.secret", kSecret}});
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  EXPECT_EQ(Pair::AddAt(pair.b(), "a"), 3);
  EXPECT_EQ(Pair::AddAt(pair.a(), "a"), 3);  // to itself as well
}

TEST_P(SecretTest, OneOnOneSideOnlyIsRefused) { ExpectRefused({{"security.secret", kSecret}}, {}); }

TEST_P(SecretTest, DifferentOnesAreRefused) {
  ExpectRefused({{"security.secret", kSecret}}, {{"security.secret", kOther}});
}

TEST_P(SecretTest, AWorkerThatIsRefusedTriesAgainAndOthersAreServed) {
  const Pair pair(transport(), {{"security.secret", kSecret}}, {{"security.secret", kSecret}});
  const Worker stranger =
      OpenWorker(WorkerConfig(transport(), pair.network(), "stranger", 7, {{"security.secret", kOther}}));
  AddPeer(stranger, 1, "b", Address(pair.b()));
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(ErrorOf([&] { Pair::AddAt(stranger, "b"); }).code, GF_UNAUTHENTICATED);
    EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  }
  // It has not become a member.
  const auto info = Info(pair.b());
  for (const auto& peer : info["peers"]) EXPECT_NE(peer["name"], "stranger");
  Call(gf_worker_close, stranger, kPatience);
}

INSTANTIATE_TEST_SUITE_P(Over, SecretTest,
                         ::testing::Values(std::string("sim"), std::string("tensorpipe"), std::string("thrift")),
                         [](const auto& info) { return info.param; });

class SecretFileTest : public LiveTest {
 protected:
  Worker Open(const Settings& settings) { return OpenWorker(WorkerConfig("sim", UniqueName(), "a", 0, settings)); }
  void ExpectError(int32_t code, const std::vector<std::string>& parts, const Settings& settings) {
    const Error error = ErrorOf([&] { Open(settings); });
    EXPECT_EQ(error.code, code) << error.description;
    for (const std::string& part : parts) EXPECT_THAT(error.message, HasSubstr(part));
    EXPECT_THAT(error.description, Not(HasSubstr(kSecret)));
  }
  std::string File(mode_t mode, const std::string& text = std::string(kSecret) + "\n") {
    const std::string path = folder_.Write("secret" + std::to_string(++files_), text);
    EXPECT_EQ(chmod(path.c_str(), mode), 0);
    return path;
  }
  const TemporaryFolder folder_;
  int files_ = 0;
};

TEST_F(SecretFileTest, OneOfTheOwnersAloneIsRead) {
  const Pair pair("sim", {{"security.secret_file", File(0600)}}, {{"security.secret", kSecret}});
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  const Pair strict("sim", {{"security.secret_file", File(0400)}}, {{"security.secret", kSecret}});
  EXPECT_EQ(Pair::AddAt(strict.a(), "b"), 3);
}

TEST_F(SecretFileTest, OneThatOthersMayReadIsRefused) {
  for (const auto& [mode, text] : std::map<mode_t, std::string>{{0644, "0644"}, {0640, "0640"}, {0604, "0604"}}) {
    const std::string path = File(mode);
    ExpectError(GF_FAILED_PRECONDITION, {"security.secret_file", path, "mode " + text, "chmod 600"},
                {{"security.secret_file", path}});
  }
}

TEST_F(SecretFileTest, OneThatIsNoneIsNamed) {
  const std::string missing = folder_.File("missing");
  ExpectError(GF_NOT_FOUND, {"security.secret_file", missing}, {{"security.secret_file", missing}});
  ExpectError(GF_INVALID_ARGUMENT, {"security.secret_file", folder_.path(), "no ordinary file"},
              {{"security.secret_file", folder_.path()}});
  ExpectError(GF_INVALID_ARGUMENT, {"security.secret_file", "4096"},
              {{"security.secret_file", File(0600, std::string(5000, 'x'))}});
  ExpectError(GF_INVALID_ARGUMENT, {"security.secret_file", "shorter than 16"},
              {{"security.secret_file", File(0600, "\n\n")}});
}

TEST_F(SecretFileTest, ASecretThatCouldBeGuessedIsRefused) {
  ExpectError(GF_INVALID_ARGUMENT, {"security.secret", "shorter than 16"}, {{"security.secret", "walk softly"}});
}

TEST_F(SecretFileTest, BothAreOneTooMany) {
  ExpectError(GF_INVALID_ARGUMENT, {"security.secret", "security.secret_file"},
              {{"security.secret", kSecret}, {"security.secret_file", File(0600)}});
}

TEST_F(SecretFileTest, TheConfigurationDoesNotShowIt) {
  const Config config = WorkerConfig("sim", UniqueName(), "a", 0, {{"security.secret", kSecret}});
  EXPECT_THAT(Text(gf_config_describe, config.get()), Not(HasSubstr(kSecret)));
}

}  // namespace
}  // namespace gf
