// See handshake.h.
#include "impl/rpc/handshake.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "impl/wire/frame.h"

namespace gradferry {
namespace {

// Labels with their NUL, so that none begins another one.
constexpr std::string_view kAcceptor("gradferry acceptor\0", 19);
constexpr std::string_view kDialler("gradferry dialler\0", 18);

// The kernel's: it costs nothing to begin with, and a group without a secret needs no OpenSSL.
Bytes32 RandomNonce() {
  Bytes32 nonce;
  ssize_t got;
  do {
    got = getrandom(nonce.data(), nonce.size(), 0);
  } while (got < 0 && errno == EINTR);
  if (got != static_cast<ssize_t>(nonce.size())) throw std::runtime_error("the kernel has no random numbers");
  return nonce;
}

void Append(std::string& text, const Message& message) {
  // Its own limits: both sides must agree on the bytes.
  const auto frame = EncodeFrame(message, {}, WireLimits());
  if (!frame.ok()) throw StatusException(frame.status());
  const auto length = static_cast<uint32_t>(frame->header.size());
  text.append(reinterpret_cast<const char*>(&length), sizeof length);
  text += frame->header;
}

// The two messages in the layout of the version agreed upon: what a later version has added is not known to both.
std::string Transcript(Hello hello, HelloReply reply) {
  hello.layout = reply.layout = reply.protocol;
  reply.proof.reset();
  std::string text;
  Append(text, hello);
  Append(text, reply);
  return text;
}

Bytes32 Prove(const std::string& secret, std::string_view label, const std::string& transcript) {
  const std::string text = std::string(label) + transcript;
  Bytes32 proof;
  unsigned int length = 0;
  HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
       reinterpret_cast<const unsigned char*>(text.data()), text.size(), proof.data(), &length);
  if (length != proof.size()) throw std::runtime_error("OpenSSL has no HMAC-SHA256");
  return proof;
}

// In a time that says nothing about where they differ.
bool Same(const Bytes32& a, const Bytes32& b) { return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0; }

std::string Versions(uint16_t min, uint16_t max) {
  return min == max ? StrCat("version ", min) : StrCat("versions ", min, " to ", max);
}

// A transport that knows who is there is believed, and nobody else.
Status CheckIdentity(const std::string& name, const PeerInfo& info) {
  if (!info.identities) return OkStatus();
  const auto& names = *info.identities;
  if (std::find(names.begin(), names.end(), name) != names.end()) return OkStatus();
  std::string known;
  for (const std::string& identity : names) known += StrCat(known.empty() ? "" : ", ", identity);
  return Status(Code::kPermissionDenied,
                StrCat("the peer", info.address.empty() ? "" : " at ", info.address, " calls itself ", name,
                       ", the transport has proof of ", known.empty() ? "no name" : known));
}

uint64_t CapabilitiesOf(const Identity& self) {
  return kCapabilityChunks | (self.secret.empty() ? 0 : kCapabilityProof);
}

Status Unauthenticated(std::string text) { return Status(Code::kUnauthenticated, std::move(text)); }

}  // namespace

std::string DescribeConnection(const PeerInfo& info) {
  std::string text = "a connection";
  if (!info.address.empty()) text += " from " + info.address;
  if (info.identities && !info.identities->empty()) {
    text += " (";
    for (size_t i = 0; i < info.identities->size(); ++i) text += (i == 0 ? "" : ", ") + (*info.identities)[i];
    text += ")";
  }
  return text;
}

// ---- The side that connected ---------------------------------------------------------------------------------------

DialHandshake::DialHandshake(const Identity* self, WorkerId to, std::string to_name) : self_(self) {
  hello_.layout = std::min(self->protocol_max, kProtocolVersion);
  hello_.protocol_min = self->protocol_min;
  hello_.protocol_max = self->protocol_max;
  hello_.group = self->group;
  hello_.name = self->name;
  hello_.id = self->id;
  hello_.incarnation = self->incarnation;
  hello_.to = to;
  hello_.to_name = std::move(to_name);
  if (hello_.layout < 2) return;
  hello_.capabilities = CapabilitiesOf(*self);
  hello_.nonce = RandomNonce();
}

Status DialHandshake::OnReply(const HelloReply& reply, const PeerInfo& info) {
  GF_RETURN_IF_ERROR(reply.status);
  // Who it is comes first: a name that is not proven means nothing.
  GF_RETURN_IF_ERROR(CheckIdentity(reply.name, info));
  if (reply.protocol < self_->protocol_min || reply.protocol > self_->protocol_max) {
    return Status(Code::kUnsupported,
                  StrCat("worker ", reply.name, " answers in version ", reply.protocol, " of the protocol, worker ",
                         self_->name, " speaks ", Versions(self_->protocol_min, self_->protocol_max)));
  }
  if (reply.protocol >= 2 && reply.layout < 2) {
    return Status(Code::kDataLoss, "a HelloReply of version 1 agrees on version 2");
  }
  version_ = reply.protocol;
  peer_takes_chunks_ = version_ >= 2 && (reply.capabilities & kCapabilityChunks) != 0;
  return CheckProof(reply);
}

Status DialHandshake::CheckProof(const HelloReply& reply) {
  if (self_->secret.empty()) return OkStatus();
  if (!reply.proof) {
    return Unauthenticated(
        StrCat("worker ", self_->name, " has a group secret (security.secret), worker ", reply.name, " proves none"));
  }
  const std::string transcript = Transcript(hello_, reply);
  if (!Same(*reply.proof, Prove(self_->secret, kAcceptor, transcript))) {
    return Unauthenticated(
        StrCat("the group secrets (security.secret) of workers ", self_->name, " and ", reply.name, " differ"));
  }
  proof_ = HelloProof{OkStatus(), Prove(self_->secret, kDialler, transcript)};
  return OkStatus();
}

// ---- The side that accepted ----------------------------------------------------------------------------------------

Status AcceptHandshake::Check(const Hello& hello, const PeerInfo& info) {
  const Identity& self = *self_;
  GF_RETURN_IF_ERROR(CheckIdentity(hello.name, info));
  if (hello.group != self.group) {
    return Status(Code::kPermissionDenied, StrCat("worker ", hello.name, " is of group \"", hello.group, "\", worker ",
                                                  self.name, " of \"", self.group, "\""));
  }
  const bool proves = (hello.capabilities & kCapabilityProof) != 0;
  if (proves != !self.secret.empty()) {
    return Unauthenticated(StrCat("worker ", proves ? hello.name : self.name,
                                  " has a group secret (security.secret), worker ", proves ? self.name : hello.name,
                                  " has none"));
  }
  const uint16_t version = std::min(hello.protocol_max, self.protocol_max);
  if (version < std::max(hello.protocol_min, self.protocol_min)) {
    return Status(
        Code::kUnsupported,
        StrCat("worker ", hello.name, " speaks ", Versions(hello.protocol_min, hello.protocol_max),
               " of the protocol, worker ", self.name, " speaks ", Versions(self.protocol_min, self.protocol_max)));
  }
  if (version >= 2 && hello.layout < 2) {
    // It took us for an older one, after a connection that broke.
    return Status(Code::kUnavailable,
                  StrCat("worker ", hello.name, " said hello in version 1, though both speak ", version))
        .WithRetry(Retry::kSamePeer);
  }
  if (hello.to != self.id || hello.to_name != self.name) {
    return FailedPrecondition(StrCat("worker ", hello.name, " looks for ", hello.to_name, " (", hello.to, "), this is ",
                                     self.name, " (", self.id, ")"));
  }
  version_ = version;
  peer_takes_chunks_ = version_ >= 2 && (hello.capabilities & kCapabilityChunks) != 0;
  return OkStatus();
}

HelloReply AcceptHandshake::OnHello(const Hello& hello, const PeerInfo& info) {
  HelloReply reply;
  reply.layout = std::min({hello.layout, self_->protocol_max, kProtocolVersion});
  reply.name = self_->name;
  reply.id = self_->id;
  reply.incarnation = self_->incarnation;
  reply.protocol = std::min(hello.protocol_max, self_->protocol_max);
  reply.status = Check(hello, info).WithWorker(self_->name);
  if (!reply.status.ok() || reply.layout < 2) return reply;
  reply.capabilities = CapabilitiesOf(*self_);
  reply.nonce = RandomNonce();
  reply.window_calls = self_->window.calls;
  reply.window_bytes = self_->window.bytes;
  if (self_->secret.empty()) return reply;
  peer_ = hello.name;
  const std::string transcript = Transcript(hello, reply);
  reply.proof = Prove(self_->secret, kAcceptor, transcript);
  expected_ = Prove(self_->secret, kDialler, transcript);
  return reply;
}

Status AcceptHandshake::OnProof(const HelloProof& proof) {
  GF_RETURN_IF_ERROR(proof.status);
  const auto expected = std::exchange(expected_, std::nullopt);
  if (expected && proof.proof && Same(*proof.proof, *expected)) return OkStatus();
  return Unauthenticated(
      StrCat("worker ", peer_, " gave a wrong proof of the group secret (security.secret) to worker ", self_->name));
}

}  // namespace gradferry
