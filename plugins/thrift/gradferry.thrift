// What is spoken on a connection of the thrift transport: framed transport, binary protocol with strict versions.
//
// Workers send each other `frame`, both ways on the connection that one of them made. The plugin writes and reads it by
// hand (frame_writer.h, frame_reader.h), byte for byte as generated code does, so that tensors go from and to their own
// memory.
//
// The other methods are for programs that have a stock Thrift client and no Gradferry: they say hello and call the
// handlers and operators of a worker (gateway.h). Many calls may be under way; they are answered as they get ready, by
// sequence number.

namespace cpp gradferry.thrift.idl
namespace py gradferry_thrift

enum DType {
  UINT8 = 0, INT8 = 1, INT16 = 2, INT32 = 3, INT64 = 4, FLOAT16 = 5, FLOAT32 = 6, FLOAT64 = 7,
  COMPLEX64 = 9, COMPLEX128 = 10, BOOL = 11, BFLOAT16 = 15
}

// Elements in row-major order, little endian.
struct Tensor {
  1: required DType dtype
  2: required list<i64> sizes
  3: required binary data
}

// At most one field is set; none is None. A tensor that is undefined is None as well.
struct Value {
  1: optional bool boolean
  2: optional i64 integer
  3: optional double number
  4: optional string text
  5: optional binary bytes
  6: optional Tensor tensor
  7: optional list<Value> items
}

exception Error {
  1: i32 code         // as in gradferry.h
  2: string message
  3: string worker    // where it happened
  4: string operation // the handler or operator
}

struct HelloRequest {
  1: string group = "default"
  2: string name      // of the client; no other member of the group has it
  3: i32 id           // likewise
  4: string to_name   // of the worker that the client wants to reach
  5: i32 to
  6: i64 incarnation = 1
  7: binary nonce     // 32 random bytes when the group has a secret, else empty
}

struct HelloAnswer {
  1: string name
  2: i32 id
  3: i64 incarnation
  4: i32 protocol
  5: binary proof // that the worker knows the group's secret; empty without one
  6: binary reply // the HelloReply that both proofs are about, without its proof
}

struct CallRequest {
  1: string name                // of a handler, or with is_operator of an operator: "aten::add"
  2: list<Value> arguments
  3: i64 timeout_ms = 0         // 0: none
  4: bool is_operator = false
  5: string overload            // of an operator: "Tensor"
}

struct CallResult {
  1: list<Value> results
}

service Gradferry {
  // One frame of transport.h. The lengths of all segments stand before the first byte of any, so that its receiver can
  // make room for them.
  oneway void frame(1: binary header, 2: list<i64> lengths, 3: list<binary> segments)

  // Once, before anything else.
  HelloAnswer hello(1: HelloRequest request) throws (1: Error error)

  // With a secret S, after hello and before the first call. As in docs/protocol.md, "Introduction":
  //   proof = HMAC-SHA256(S, label 00 transcript), label "gradferry dialler"; the worker's has "gradferry acceptor"
  //   transcript = length(hello) hello length(reply) reply, lengths as u32, little endian
  // hello is not told by the worker, so that nobody can choose what is proved. It is, in little endian: 47 46, u16 2,
  // u8 1; u16 2, u16 2; group, name (u32 length, bytes); u16 id; u64 incarnation; u16 to; to_name; u64 1; nonce.
  void prove(1: binary proof) throws (1: Error error)

  CallResult call(1: CallRequest request) throws (1: Error error)
}
