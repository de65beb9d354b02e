// Every message that workers exchange, in one place. Plain structs: what they mean is the business of autograd, engine
// and rpc; how they are written is codec.h's. Requests carry a call_id, unique for the connection that they travel on;
// the answer (Reply or Ack) goes back on the same connection with the same call_id.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "impl/base/status.h"
#include "impl/tensor/value.h"
#include "impl/trace/profile.h"

namespace gradferry {

using WorkerId = int32_t;  // 0..32767
inline constexpr WorkerId kMaxWorkerId = 32767;
// What this library speaks: the newest version, and the one before it.
inline constexpr uint16_t kProtocolVersion = 2;
inline constexpr uint16_t kOldestProtocol = 1;

using Bytes32 = std::array<uint8_t, 32>;

// Bits of Hello.capabilities; a receiver ignores those that it does not know.
inline constexpr uint64_t kCapabilityProof = 1;   // has the group's secret, and asks for the proof of it
inline constexpr uint64_t kCapabilityChunks = 2;  // takes large messages in chunks (TensorChunk)

// First on every connection, from the side that connected. Hello and HelloReply say in which version they are written
// themselves; what a later version adds at their ends is skipped, so that workers of any versions can tell each other
// apart.
struct Hello {
  uint16_t layout = kProtocolVersion;  // the version of the frame that it comes in
  uint16_t protocol_min = kOldestProtocol;
  uint16_t protocol_max = kProtocolVersion;
  std::string group;
  std::string name;
  WorkerId id = 0;
  uint64_t incarnation = 0;
  WorkerId to = 0;  // whom the sender believes to have reached
  std::string to_name;
  // From version 2 on:
  uint64_t capabilities = 0;
  Bytes32 nonce{};  // random, new for each connection
};

// The answer: OK with the identity of the accepting side, or why not.
struct HelloReply {
  uint16_t layout = kProtocolVersion;
  Status status;
  uint16_t protocol = kProtocolVersion;
  std::string name;
  WorkerId id = 0;
  uint64_t incarnation = 0;
  // From version 2 on:
  uint64_t capabilities = 0;
  Bytes32 nonce{};
  std::optional<Bytes32> proof;  // that the accepting side knows the group's secret
  // What the accepting side takes: calls and bytes of their tensors that are not answered.
  uint64_t window_calls = UINT64_MAX;
  uint64_t window_bytes = UINT64_MAX;
};

// From the side that connected: what it makes of a HelloReply of version 2. OK with the proof that it knows the group's
// secret as well, or why it refuses the accepting side. Where there is no secret only a refusal is sent.
struct HelloProof {
  Status status;
  std::optional<Bytes32> proof;
};

// An orderly end: the sender closes its side; nothing else follows from it.
struct Goodbye {
  std::string reason;
};

enum class CallTarget : uint8_t { kHandler = 0, kOperator = 1 };

// A call of a handler or of an operator.
struct Call {
  uint64_t call_id = 0;
  int64_t time_left = 0;  // ns; INT64_MAX: no deadline
  CallTarget target = CallTarget::kHandler;
  bool record = true;  // grad mode of the caller
  std::string name;
  std::string overload;
  ValueList arguments;
};

struct Reply {
  uint64_t call_id = 0;
  Status status;
  ValueList results;  // empty unless OK
};

// Nobody waits for the reply to this call any more.
struct Cancel {
  uint64_t call_id = 0;
};

// Which context a call or reply belongs to, and the pair of send and recv function that it makes.
struct AutogradMetadata {
  int64_t context_id = 0;
  int64_t message_id = 0;  // 0: no tensor of the message requires grad, there is no such pair
};

// A call or reply within a context. Tensors of `wrapped` that require grad are outputs of the receiver's recv function,
// in table order (CollectTensors).
struct RpcWithAutograd {
  AutogradMetadata metadata;
  std::variant<Call, Reply> wrapped;
};

// A call whose profile is wanted, or its reply with the profile. Goes around RpcWithAutograd.
struct RpcWithProfiling {
  uint32_t most_events = 0;  // of a call: how many events its caller takes; 0 in a reply
  Profile profile;           // of a reply; empty in a call
  std::variant<Call, Reply, RpcWithAutograd> wrapped;
};

// A pass, unique in the group: who started it, and its number there, which grows.
struct PassId {
  WorkerId initiator = 0;
  uint64_t number = 0;
  bool operator==(const PassId& other) const { return initiator == other.initiator && number == other.number; }
  bool operator!=(const PassId& other) const { return !(*this == other); }
};

// The receiver's send functions with these ids will each get exactly one PropagateGradients from the sender in this
// pass, with gradients for the named tensors of their messages only. More tensors of the same send function may be
// named by a later mark, before its gradients. Acknowledged when everything that it started is (Dijkstra-Scholten).
struct MarkSendFunctions {
  uint64_t call_id = 0;
  int64_t context_id = 0;
  PassId pass;
  PassId turn;  // the outermost pass: this one, unless it is re-entrant
  bool retain_graph = false;
  bool chosen_inputs = false;  // nothing runs before marking has ended, and only what MarkNeeded has named
  std::vector<int64_t> message_ids;
  std::vector<int64_t> outputs;  // as many: which of that message's tensors that require grad, in table order
};

// In a pass for chosen inputs: of the tensors that the receiver marked here, these lead to a chosen input. The way back
// of a mark; acknowledged like one.
struct MarkNeeded {
  uint64_t call_id = 0;
  int64_t context_id = 0;
  PassId pass;
  std::vector<int64_t> message_ids;
  std::vector<int64_t> outputs;  // as in MarkSendFunctions
};

// Marking has ended everywhere: send functions of this pass that are not marked get no gradient.
struct MarkFinished {
  int64_t context_id = 0;
  PassId pass;
};

// The gradients for one send function: one per tensor that required grad, in table order; undefined ones stay
// undefined.
struct PropagateGradients {
  uint64_t call_id = 0;
  int64_t context_id = 0;
  PassId pass;
  int64_t message_id = 0;
  bool retain_graph = false;
  std::vector<at::Tensor> gradients;
};

// The pass has failed somewhere: the receiver drops its part, takes back the gradients that the pass has added, and
// tells those whom it sent something in it. Acknowledged when they all have.
struct AbortPass {
  uint64_t call_id = 0;
  int64_t context_id = 0;
  PassId pass;  // the outermost one
  Status status;
};

// To the worker that made the context: a pass wants to begin there. Acknowledged when it may, or with why it never
// will.
struct RequestTurn {
  uint64_t call_id = 0;
  int64_t context_id = 0;
  PassId pass;
};

// That pass has ended everywhere, in whatever way; the next one may begin.
struct EndTurn {
  int64_t context_id = 0;
  PassId pass;
};

// The context was released; the receiver releases it and passes that on.
struct CleanupAutogradContext {
  uint64_t call_id = 0;
  int64_t context_id = 0;
};

// The answer to every request that is not a call.
struct Ack {
  uint64_t call_id = 0;
  Status status;
  std::vector<WorkerId> waiting;  // Mark only: workers that need a MarkFinished
};

// A sign of life, either way on any connection. Not a request: it has no call_id.
struct Heartbeat {
  bool answer = false;  // whether the receiver sends one back
};

// To the worker that made these contexts: which of them are gone?
struct ContextsAlive {
  uint64_t call_id = 0;
  std::vector<int64_t> context_ids;
};

// The answer: those that it does not have, because they were released or are of an earlier life.
struct ContextsGone {
  uint64_t call_id = 0;
  std::vector<int64_t> context_ids;
};

// A piece of the segments of a message whose frame was announced (Seal::in_chunks): its frame's own segments, which
// follow those of the piece before.
struct TensorChunk {
  uint64_t transfer = 0;  // the number of the announcing frame
};

// The rest of that message will not come: nobody needs it any more.
struct TransferGivenUp {
  uint64_t transfer = 0;
};

using Message =
    std::variant<Hello, HelloReply, Goodbye, Call, Reply, Cancel, RpcWithAutograd, RpcWithProfiling, MarkSendFunctions,
                 MarkFinished, PropagateGradients, AbortPass, CleanupAutogradContext, Ack, MarkNeeded, RequestTurn,
                 EndTurn, Heartbeat, ContextsAlive, ContextsGone, HelloProof, TensorChunk, TransferGivenUp>;

// "Call", "MarkSendFunctions", ...
const char* MessageName(const Message& message);

// The tensors of a message in the order of its tensor table.
std::vector<at::Tensor*> MessageTensors(Message& message);

}  // namespace gradferry
