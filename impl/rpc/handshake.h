// How two workers decide whether they talk to each other: the introduction on each connection, for both of its sides,
// apart from how its messages travel. Links (link.h) own one each and call it with what has come; it calls nobody.
//
//   dialler                        acceptor
//   Hello (nonce)          --->
//                          <---    HelloReply (nonce, proof)
//   HelloProof (proof)     --->
//   requests               --->
//
// The proofs are there when the group has a secret, and both sides check the other one's: HMAC-SHA256 with the secret
// of a label for the side and of Hello and HelloReply as both sides have them, which have two random nonces, so that no
// proof is good for another connection, side, worker or range of versions. docs/protocol.md has the bytes and the
// reasons.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "impl/base/status.h"
#include "impl/rpc/windows.h"
#include "impl/transport/transport.h"
#include "impl/wire/messages.h"

namespace gradferry {

// What a worker says of itself, and what it asks of others.
struct Identity {
  std::string group;
  std::string name;
  WorkerId id = 0;
  uint64_t incarnation = 0;
  uint16_t protocol_min = kOldestProtocol;
  uint16_t protocol_max = kProtocolVersion;
  std::string secret;   // empty: none
  WindowSize window{};  // what it takes of each peer
};

// "a connection from ADDRESS" or, of what a transport says nothing about, "a connection".
std::string DescribeConnection(const PeerInfo& info);

// The side that connected. One thread at a time.
class DialHandshake {
 public:
  DialHandshake(const Identity* self, WorkerId to, std::string to_name);

  const Hello& hello() const { return hello_; }
  // Whether the other side may be trusted. OK: version() is what both speak.
  Status OnReply(const HelloReply& reply, const PeerInfo& info);
  // What to send before anything else; none where there is no secret.
  const std::optional<HelloProof>& proof() const { return proof_; }
  uint16_t version() const { return version_; }
  bool peer_takes_chunks() const { return peer_takes_chunks_; }

 private:
  Status CheckProof(const HelloReply& reply);

  const Identity* const self_;  // the worker's
  Hello hello_;
  uint16_t version_ = 0;
  bool peer_takes_chunks_ = false;
  std::optional<HelloProof> proof_;
};

// The side that accepted. One thread at a time.
class AcceptHandshake {
 public:
  explicit AcceptHandshake(const Identity* self) : self_(self) {}

  // The answer, with why the other side is refused as its status.
  HelloReply OnHello(const Hello& hello, const PeerInfo& info);
  // Between a Hello that is not refused and its proof.
  bool wants_proof() const { return expected_.has_value(); }
  Status OnProof(const HelloProof& proof);
  uint16_t version() const { return version_; }
  bool peer_takes_chunks() const { return peer_takes_chunks_; }

 private:
  Status Check(const Hello& hello, const PeerInfo& info);

  const Identity* const self_;  // the worker's
  uint16_t version_ = 0;
  bool peer_takes_chunks_ = false;
  std::string peer_;  // as it calls itself
  std::optional<Bytes32> expected_;
};

}  // namespace gradferry
