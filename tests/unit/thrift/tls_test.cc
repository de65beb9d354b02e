// TLS: who is taken and who is refused, with which reason.
#include <openssl/ssl.h>
#include <sys/stat.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/unit/thrift/test_host.h"

namespace gradferry::thrift::testing {
namespace {

using Json = nlohmann::json;

// Authorities and certificates, made once by the script that users have, too.
class Authorities {
 public:
  static const Authorities& Get() {
    static const Authorities all;
    return all;
  }

  // The options of a worker with a certificate.
  static std::string Options(const std::string& authority, const std::string& name, Json more = Json::object()) {
    const Folder& folder = Get().folder_;
    more["address"] = "tls://127.0.0.1:0";
    if (!more.contains("ca")) more["ca"] = folder.File("ours/ca.pem");
    more["certificate"] = folder.File(authority + "/" + name + ".pem");
    more["key"] = folder.File(authority + "/" + name + ".key");
    return more.dump();
  }
  static std::string File(const std::string& name) { return Get().folder_.File(name); }

 private:
  Authorities() {
    Run("ours trainer server stranger revoked");
    Run("ours --expired expired");
    Run("ours --revoke revoked");
    Run("theirs trainer");
    const std::string self = folder_.File("ours/self");
    RunCommand(
        "openssl req -new -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=trainer "
        "-addext subjectAltName=DNS:trainer -keyout " +
        self + ".key -out " + self + ".pem");
  }

  void Run(const std::string& arguments) { RunCommand("tools/make_test_ca.sh " + folder_.path() + "/" + arguments); }
  static void RunCommand(const std::string& command) {
    EXPECT_EQ(std::system((command + " >/dev/null 2>&1").c_str()), 0) << command;
  }

  Folder folder_;
};

std::string ServerOptions(const Json& more = Json::object()) { return Authorities::Options("ours", "server", more); }

Json PeerOf(Host& host, Peer* peer) {
  size_t length = 0;
  EXPECT_EQ(host.vtable()->peer(peer->conn, nullptr, 0, &length), GF_OK);
  std::string text(length + 1, '\0');
  EXPECT_EQ(host.vtable()->peer(peer->conn, text.data(), text.size(), &length), GF_OK);
  text.resize(length);
  return Json::parse(text);
}

TEST(Tls, WorkersOfOneAuthorityTalkAndKnowEachOthersNames) {
  Host server(ServerOptions()), client(Authorities::Options("ours", "trainer"));
  ASSERT_EQ(server.created().code, GF_OK) << server.created();
  ASSERT_EQ(client.created().code, GF_OK) << client.created();
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  const Frame frame{"header", {Bytes(100, 1), Bytes(3 * 1000 * 1000, 2), "", Bytes(20000, 3)}};
  for (int i = 0; i < 3; ++i) EXPECT_EQ(client.Send(out, frame).code, GF_OK);
  Peer* in = server.Accepted();
  ASSERT_TRUE(server.WaitFrames(in, 3));
  EXPECT_TRUE(in->frames[2] == frame);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(server.Send(in, frame).code, GF_OK);
  ASSERT_TRUE(client.WaitFrames(out, 3));
  EXPECT_TRUE(out->frames[2] == frame);
  EXPECT_EQ(PeerOf(server, in)["identities"], Json({"trainer"}));
  EXPECT_EQ(PeerOf(client, out)["identities"], Json({"server"}));
  EXPECT_EQ(PeerOf(client, out)["encrypted"], true);
}

// The first frame comes with the end of the handshake, so that the socket is silent after it.
TEST(Tls, AFrameThatIsSentBeforeTheHandshakeArrives) {
  Host server(ServerOptions()), client(Authorities::Options("ours", "trainer"));
  ASSERT_EQ(server.Listen().code, GF_OK);
  for (size_t i = 0; i < 50; ++i) {
    Peer* out = client.Connect(server.address());
    EXPECT_EQ(client.Send(out, {"hello", {}}).code, GF_OK);
    Peer* in = server.Accepted(i);
    ASSERT_TRUE(server.WaitFrames(in, 1));
    EXPECT_EQ(server.Send(in, {"back", {}}).code, GF_OK);
    ASSERT_TRUE(client.WaitFrames(out, 1));
  }
}

TEST(Tls, BothEndsMaySendMuchAtOnce) {
  Host server(ServerOptions()), client(Authorities::Options("ours", "trainer"));
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  Peer* in = server.Accepted();
  constexpr size_t kFrames = 40;
  for (size_t i = 0; i < kFrames; ++i) {
    EXPECT_EQ(client.Send(out, {"a", {Bytes(300 * 1000 + i, i)}}).code, GF_OK);
    EXPECT_EQ(server.Send(in, {"b", {Bytes(300 * 1000 + i, i), Bytes(i, i)}}).code, GF_OK);
  }
  ASSERT_TRUE(server.WaitFrames(in, kFrames));
  ASSERT_TRUE(client.WaitFrames(out, kFrames));
  for (size_t i = 0; i < kFrames; ++i) {
    EXPECT_TRUE(in->frames[i].segments[0] == Bytes(300 * 1000 + i, i));
    EXPECT_TRUE(out->frames[i].segments[1] == Bytes(i, i));
  }
}

// A client that the server refuses, and how.
struct Refused {
  std::string label;
  std::string authority;
  std::string name;
  std::string server;  // more options of it
  std::string reason;  // in the server's log
};

class TlsRefused : public ::testing::TestWithParam<Refused> {};

TEST_P(TlsRefused, ByTheServerWithAReason) {
  const Refused& wrong = GetParam();
  std::string more = wrong.server;
  if (const size_t at = more.find("CRL"); at != std::string::npos)
    more.replace(at, 3, Authorities::File("ours/crl.pem"));
  Host server(ServerOptions(Json::parse(more)));
  Host client(Authorities::Options(wrong.authority, wrong.name));
  ASSERT_EQ(server.created().code, GF_OK) << server.created();
  ASSERT_EQ(client.created().code, GF_OK) << client.created();
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  EXPECT_TRUE(server.WaitLog(wrong.reason, 1)) << ::testing::PrintToString(server.logs());
  ASSERT_TRUE(client.WaitClosed(out));
  EXPECT_NE(out->closed_code, GF_OK);
  EXPECT_FALSE(server.WaitAccepted(1, std::chrono::milliseconds(0))) << "the host has heard of it";
}

INSTANTIATE_TEST_SUITE_P(
    All, TlsRefused,
    ::testing::Values(Refused{"WrongAuthority", "theirs", "trainer", "{}", "unable to get local issuer certificate"},
                      Refused{"Expired", "ours", "expired", "{}", "certificate has expired"},
                      Refused{"SelfSigned", "ours", "self", "{}", "self-signed certificate"},
                      Refused{"NotListed", "ours", "stranger", R"({"allow": ["trainer", "ps"]})",
                              "stranger, which is not in transport.thrift.allow"},
                      Refused{"Revoked", "ours", "revoked", R"({"crl": "CRL"})", "certificate revoked"}),
    [](const auto& info) { return info.param.label; });

TEST(Tls, TheDiallerRefusesAServerOfAnotherAuthorityAndSaysWhy) {
  Host server(Authorities::Options("theirs", "trainer", {{"ca", Authorities::File("theirs/ca.pem")}}));
  Host client(Authorities::Options("ours", "trainer"));
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  ASSERT_TRUE(client.WaitClosed(out));
  EXPECT_EQ(out->closed_code, GF_UNAVAILABLE) << out->closed_text;
  EXPECT_NE(out->closed_text.find("its certificate was refused"), std::string::npos) << out->closed_text;
  EXPECT_NE(out->closed_text.find(server.address()), std::string::npos) << out->closed_text;
  EXPECT_TRUE(server.WaitLog("unknown ca", 1)) << ::testing::PrintToString(server.logs());
}

TEST(Tls, TheDiallerRefusesAServerThatIsNotListed) {
  Host server(ServerOptions()), client(Authorities::Options("ours", "trainer", {{"allow", {"ps"}}}));
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  ASSERT_TRUE(client.WaitClosed(out));
  EXPECT_EQ(out->closed_code, GF_UNAVAILABLE) << out->closed_text;
  EXPECT_NE(out->closed_text.find("its certificate is for server"), std::string::npos) << out->closed_text;
}

TEST(Tls, TheDiallerHearsWhyTheServerRefusesIt) {
  Host server(ServerOptions()), client(Authorities::Options("ours", "expired"));
  ASSERT_EQ(server.Listen().code, GF_OK);
  Peer* out = client.Connect(server.address());
  ASSERT_TRUE(client.WaitClosed(out));
  EXPECT_NE(out->closed_text.find("certificate expired"), std::string::npos) << out->closed_text;
}

// A client made of OpenSSL alone. Whether the server ends its handshake, or the connection after it.
bool IsRefused(const std::string& address, int newest, bool certificate) {
  const std::unique_ptr<SSL_CTX, decltype(&SSL_CTX_free)> context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_max_proto_version(context.get(), newest);
  if (certificate) {
    SSL_CTX_use_certificate_file(context.get(), Authorities::File("ours/trainer.pem").c_str(), SSL_FILETYPE_PEM);
    SSL_CTX_use_PrivateKey_file(context.get(), Authorities::File("ours/trainer.key").c_str(), SSL_FILETYPE_PEM);
  }
  Stranger stranger(address);
  const timeval limit{60, 0};
  setsockopt(stranger.fd(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  const std::unique_ptr<SSL, decltype(&SSL_free)> ssl(SSL_new(context.get()), SSL_free);
  SSL_set_fd(ssl.get(), stranger.fd());
  char byte;
  errno = 0;
  return SSL_connect(ssl.get()) != 1 || (SSL_read(ssl.get(), &byte, 1) <= 0 && errno != EAGAIN);
}

TEST(Tls, OnlyVersion13WithACertificateIsSpoken) {
  Host server(ServerOptions());
  ASSERT_EQ(server.Listen().code, GF_OK);
  EXPECT_TRUE(IsRefused(server.address(), TLS1_1_VERSION, true));
  EXPECT_TRUE(server.WaitLog("unsupported protocol", 1)) << ::testing::PrintToString(server.logs());
  EXPECT_TRUE(IsRefused(server.address(), TLS1_2_VERSION, true));
  EXPECT_TRUE(server.WaitLog("unsupported protocol", 2)) << ::testing::PrintToString(server.logs());
  EXPECT_TRUE(IsRefused(server.address(), TLS1_3_VERSION, false));
  EXPECT_TRUE(server.WaitLog("peer did not return a certificate", 1)) << ::testing::PrintToString(server.logs());
}

TEST(Tls, APlainClientIsRefused) {
  Host server(ServerOptions());
  ASSERT_EQ(server.Listen().code, GF_OK);
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\n\r\n"), Bytes(500, 1)}) {
    Stranger stranger(server.address());
    EXPECT_TRUE(stranger.Send(bytes));
    EXPECT_TRUE(stranger.WaitUntilClosed());
  }
  EXPECT_TRUE(server.WaitLog("http request", 1)) << ::testing::PrintToString(server.logs());
  EXPECT_TRUE(server.WaitLog("refused a connection", 2)) << ::testing::PrintToString(server.logs());
}

TEST(Tls, WhoSaysNothingIsSentAway) {
  Host server(ServerOptions({{"handshake_timeout_ms", 50}}));
  ASSERT_EQ(server.Listen().code, GF_OK);
  Stranger stranger(server.address());
  EXPECT_TRUE(stranger.WaitUntilClosed());
}

TEST(Tls, ManyWhoSayNothingHaveALimit) {
  Host server(ServerOptions({{"handshake_timeout_ms", 60000}})), client(Authorities::Options("ours", "trainer"));
  ASSERT_EQ(server.Listen().code, GF_OK);
  std::vector<std::unique_ptr<Stranger>> silent;
  for (int i = 0; i < 300; ++i) silent.push_back(std::make_unique<Stranger>(server.address()));
  EXPECT_TRUE(silent.back()->WaitUntilClosed());
  silent.clear();
  // Their places are free again when their end has been seen.
  for (bool served = false; !served;) {
    Peer* out = client.Connect(server.address());
    client.Send(out, {"hello", {}});  // fails where it has been sent away already
    served = client.Wait([&] { return out->sent_ok > 0 || out->closed > 0; }) && out->sent_ok > 0;
  }
  EXPECT_TRUE(server.WaitFrames(server.Accepted(), 1));
}

TEST(Tls, AMissingOrWrongFileIsNamed) {
  const auto create = [](Json options) { return Host(options.dump()).created(); };
  const Json good = Json::parse(ServerOptions());
  for (const char* key : {"ca", "certificate", "key"}) {
    Json options = good;
    options.erase(key);
    Result result = create(options);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << key;
    EXPECT_NE(result.text.find(std::string("transport.thrift.") + key), std::string::npos) << result;
    options[key] = "/nowhere/file.pem";
    result = create(options);
    EXPECT_EQ(result.code, GF_INVALID_ARGUMENT) << key;
    EXPECT_NE(result.text.find("/nowhere/file.pem"), std::string::npos) << result;
  }
  Json options = good;
  options["key"] = Authorities::File("ours/trainer.key");
  EXPECT_NE(create(options).text.find("is not the key of"), std::string::npos) << create(options);
  options = good;
  options["crl"] = Authorities::File("ours/ca.pem");
  EXPECT_NE(create(options).text.find("transport.thrift.crl"), std::string::npos) << create(options);
}

TEST(Tls, WithoutCertificatesItIsRefusedAtOnce) {
  Host host(kTcp);
  for (const Result& result : {host.Listen("tls://127.0.0.1:0"), [&] {
                                 Peer* peer = nullptr;
                                 return host.TryConnect("tls://127.0.0.1:1", &peer);
                               }()}) {
    EXPECT_EQ(result.code, GF_FAILED_PRECONDITION) << result;
    EXPECT_NE(result.text.find("transport.thrift.ca"), std::string::npos) << result;
  }
}

TEST(Tls, AKeyThatOthersMayReadIsWarnedOf) {
  Host quiet(ServerOptions());
  EXPECT_EQ(quiet.Locked([&] { return quiet.CountLog("transport.thrift.key"); }), 0u);
  ASSERT_EQ(::chmod(Authorities::File("ours/server.key").c_str(), 0644), 0);
  Host host(ServerOptions());
  EXPECT_TRUE(host.WaitLog("transport.thrift.key", 1));
  ASSERT_EQ(::chmod(Authorities::File("ours/server.key").c_str(), 0600), 0);
}

}  // namespace
}  // namespace gradferry::thrift::testing
