// Every message's kind and fields, in the order in which they are written: the list that encoder.cc and decoder.cc
// share and that docs/protocol.md shows as tables. Codec is Encoder (with a const message) or Decoder; both offer the
// same methods, one for each type of field. Used within impl/wire only.
#pragma once

#include <cstdint>
#include <variant>

#include "impl/wire/messages.h"

namespace gradferry {

// Numbers on the wire; never reused.
enum class MessageKind : uint8_t {
  kHello = 1,
  kHelloReply = 2,
  kGoodbye = 3,
  kCall = 4,
  kReply = 5,
  kCancel = 6,
  kRpcWithAutograd = 7,
  kMarkSendFunctions = 8,
  kMarkFinished = 9,
  kPropagateGradients = 10,
  kAbortPass = 11,
  kCleanupAutogradContext = 12,
  kAck = 13,
  kMarkNeeded = 14,
  kRequestTurn = 15,
  kEndTurn = 16,
  kRpcWithProfiling = 17,
  kHeartbeat = 18,
  kContextsAlive = 19,
  kContextsGone = 20,
  kHelloProof = 21,
  kTensorChunk = 22,
  kTransferGivenUp = 23,
};

// The last kind of version 1.
inline constexpr MessageKind kLastKindOf1 = MessageKind::kContextsGone;

// kKind and kName for messages; Visit for them and for the structs within them.
template <class M>
struct Fields;

template <>
struct Fields<Hello> {
  static constexpr MessageKind kKind = MessageKind::kHello;
  static constexpr const char* kName = "Hello";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("protocol_min", m.protocol_min);
    codec.Number("protocol_max", m.protocol_max);
    codec.Name("group", m.group);
    codec.Name("name", m.name);
    codec.Worker("id", m.id);
    codec.Number("incarnation", m.incarnation);
    codec.Worker("to", m.to);
    codec.Name("to_name", m.to_name);
    if (m.layout < 2) return;
    codec.Number("capabilities", m.capabilities);
    codec.Fixed("nonce", m.nonce);
  }
};

template <>
struct Fields<HelloReply> {
  static constexpr MessageKind kKind = MessageKind::kHelloReply;
  static constexpr const char* kName = "HelloReply";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Outcome("status", m.status);
    codec.Number("protocol", m.protocol);
    codec.Name("name", m.name);
    codec.Worker("id", m.id);
    codec.Number("incarnation", m.incarnation);
    if (m.layout < 2) return;
    codec.Number("capabilities", m.capabilities);
    codec.Fixed("nonce", m.nonce);
    codec.Optional("proof", m.proof);
    codec.Number("window_calls", m.window_calls);
    codec.Number("window_bytes", m.window_bytes);
  }
};

template <>
struct Fields<HelloProof> {
  static constexpr MessageKind kKind = MessageKind::kHelloProof;
  static constexpr const char* kName = "HelloProof";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Outcome("status", m.status);
    codec.Optional("proof", m.proof);
  }
};

template <>
struct Fields<Goodbye> {
  static constexpr MessageKind kKind = MessageKind::kGoodbye;
  static constexpr const char* kName = "Goodbye";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Text("reason", m.reason);
  }
};

template <>
struct Fields<Call> {
  static constexpr MessageKind kKind = MessageKind::kCall;
  static constexpr const char* kName = "Call";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("time_left", m.time_left);
    codec.Enum("target", m.target, CallTarget::kOperator);
    codec.Bool("record", m.record);
    codec.Name("name", m.name);
    codec.Name("overload", m.overload);
    codec.Values("arguments", m.arguments);
  }
};

template <>
struct Fields<Reply> {
  static constexpr MessageKind kKind = MessageKind::kReply;
  static constexpr const char* kName = "Reply";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Outcome("status", m.status);
    // An error has no results, not even an empty list of them.
    if (m.status.ok()) codec.Values("results", m.results);
  }
};

template <>
struct Fields<Cancel> {
  static constexpr MessageKind kKind = MessageKind::kCancel;
  static constexpr const char* kName = "Cancel";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
  }
};

template <>
struct Fields<AutogradMetadata> {
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("context_id", m.context_id);
    codec.Number("message_id", m.message_id);
  }
};

template <>
struct Fields<RpcWithAutograd> {
  static constexpr MessageKind kKind = MessageKind::kRpcWithAutograd;
  static constexpr const char* kName = "RpcWithAutograd";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Struct("metadata", m.metadata);
    codec.OneOf("wrapped", m.wrapped);
  }
};

template <>
struct Fields<ProfileEvent> {
  // What an event takes at least.
  static constexpr size_t kLeastBytes = 4 + 1 + 2 + 4 + 4 + 8 + 8;
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Name("name", m.name);
    codec.Enum("kind", m.kind, ProfileEventKind::kOperator);
    codec.Worker("worker", m.worker);
    codec.Number("thread", m.thread);
    codec.Number("parent", m.parent);
    codec.Number("start", m.start);
    codec.Number("end", m.end);
  }
};

template <>
struct Fields<Profile> {
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("dropped", m.dropped);
    codec.Events("events", m.events);
  }
};

template <>
struct Fields<RpcWithProfiling> {
  static constexpr MessageKind kKind = MessageKind::kRpcWithProfiling;
  static constexpr const char* kName = "RpcWithProfiling";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("most_events", m.most_events);
    codec.Struct("profile", m.profile);
    codec.OneOf("wrapped", m.wrapped);
  }
};

template <>
struct Fields<PassId> {
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Worker("initiator", m.initiator);
    codec.Number("number", m.number);
  }
};

template <>
struct Fields<MarkSendFunctions> {
  static constexpr MessageKind kKind = MessageKind::kMarkSendFunctions;
  static constexpr const char* kName = "MarkSendFunctions";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
    codec.Struct("turn", m.turn);
    codec.Bool("retain_graph", m.retain_graph);
    codec.Bool("chosen_inputs", m.chosen_inputs);
    codec.Numbers("message_ids", m.message_ids);
    codec.Numbers("outputs", m.outputs);
  }
};

template <>
struct Fields<MarkNeeded> {
  static constexpr MessageKind kKind = MessageKind::kMarkNeeded;
  static constexpr const char* kName = "MarkNeeded";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
    codec.Numbers("message_ids", m.message_ids);
    codec.Numbers("outputs", m.outputs);
  }
};

template <>
struct Fields<MarkFinished> {
  static constexpr MessageKind kKind = MessageKind::kMarkFinished;
  static constexpr const char* kName = "MarkFinished";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
  }
};

template <>
struct Fields<PropagateGradients> {
  static constexpr MessageKind kKind = MessageKind::kPropagateGradients;
  static constexpr const char* kName = "PropagateGradients";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
    codec.Number("message_id", m.message_id);
    codec.Bool("retain_graph", m.retain_graph);
    codec.Tensors("gradients", m.gradients);
  }
};

template <>
struct Fields<AbortPass> {
  static constexpr MessageKind kKind = MessageKind::kAbortPass;
  static constexpr const char* kName = "AbortPass";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
    codec.Outcome("status", m.status);
  }
};

template <>
struct Fields<RequestTurn> {
  static constexpr MessageKind kKind = MessageKind::kRequestTurn;
  static constexpr const char* kName = "RequestTurn";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
  }
};

template <>
struct Fields<EndTurn> {
  static constexpr MessageKind kKind = MessageKind::kEndTurn;
  static constexpr const char* kName = "EndTurn";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("context_id", m.context_id);
    codec.Struct("pass", m.pass);
  }
};

template <>
struct Fields<CleanupAutogradContext> {
  static constexpr MessageKind kKind = MessageKind::kCleanupAutogradContext;
  static constexpr const char* kName = "CleanupAutogradContext";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Number("context_id", m.context_id);
  }
};

template <>
struct Fields<Ack> {
  static constexpr MessageKind kKind = MessageKind::kAck;
  static constexpr const char* kName = "Ack";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Outcome("status", m.status);
    codec.Workers("waiting", m.waiting);
  }
};

template <>
struct Fields<Heartbeat> {
  static constexpr MessageKind kKind = MessageKind::kHeartbeat;
  static constexpr const char* kName = "Heartbeat";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Bool("answer", m.answer);
  }
};

template <>
struct Fields<ContextsAlive> {
  static constexpr MessageKind kKind = MessageKind::kContextsAlive;
  static constexpr const char* kName = "ContextsAlive";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Numbers("context_ids", m.context_ids);
  }
};

template <>
struct Fields<ContextsGone> {
  static constexpr MessageKind kKind = MessageKind::kContextsGone;
  static constexpr const char* kName = "ContextsGone";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("call_id", m.call_id);
    codec.Numbers("context_ids", m.context_ids);
  }
};

template <>
struct Fields<TensorChunk> {
  static constexpr MessageKind kKind = MessageKind::kTensorChunk;
  static constexpr const char* kName = "TensorChunk";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("transfer", m.transfer);
  }
};

template <>
struct Fields<TransferGivenUp> {
  static constexpr MessageKind kKind = MessageKind::kTransferGivenUp;
  static constexpr const char* kName = "TransferGivenUp";
  template <class Codec, class M>
  static void Visit(Codec& codec, M& m) {
    codec.Number("transfer", m.transfer);
  }
};

}  // namespace gradferry
