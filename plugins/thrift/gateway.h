// Serves a stock Thrift client: turns its typed calls (gradferry.thrift) into the frames that a worker would send, and
// what the host sends back into answers. So the host sees a peer that makes calls like any other, and knows nothing of
// Thrift; and a client needs nothing but what `thrift --gen` makes.
//
// The host's limits and checks hold for what a client sends as for a worker. Heartbeats are answered here: while the
// connection stands the client is taken to be there.
//
// Take runs on the loop, Give on any thread; both take the gateway's lock, and call nobody under it.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "gradferry/transport.h"
#include "plugins/thrift/gateway_arguments.h"
#include "plugins/thrift/gateway_thrift.h"
#include "plugins/thrift/gateway_values.h"
#include "plugins/thrift/gateway_wire.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

class Gateway {
 public:
  // What becomes of a message: a frame for the host, as if it had been received, and bytes for the client.
  struct Outcome {
    std::string header;      // of a frame; empty: none
    OutTensors tensors;      // of it, with views into the client's message
    std::string answer;      // empty: none yet
    bool heartbeat = false;  // the host wants one
  };

  // The most bytes that the client's next message may have: few before it has said hello.
  static constexpr uint64_t kMaxGreeting = 64 * 1024;
  uint64_t MaxMessage() const;

  // A message of the client's, without its length. An error means that it is none, and ends the connection; a call that
  // is wrong in itself is answered with an error.
  Status Take(std::string_view message, Outcome* out);

  // The answer to the message that was taken last, when the host has refused its frame and ends the connection.
  std::string Refused(const Status& status) const;

  // The header of a sign of life for the host. On the loop, since frames are numbered as they are delivered.
  std::string Heartbeat();

  // A frame of the host's. Its memory is not needed afterwards.
  Status Give(const gf_transport_frame& frame, Outcome* out);

 private:
  // Under the lock.
  Status Hello(ThriftReader* request, int32_t sequence, Outcome* out);
  Status Prove(ThriftReader* request, int32_t sequence, Outcome* out);
  Status Call(ThriftReader* request, int32_t sequence, Outcome* out);
  Status OnHelloReply(WireReader* reply, Outcome* out);
  Status OnReply(WireReader* reply, const gf_transport_frame& frame, Outcome* out);
  std::string Seal(WireWriter header) { return std::move(header).Sealed(next_frame_++); }

  mutable std::mutex mutex_;  // guards what follows; after the connection's
  std::string method_;        // of the message that was taken last
  int32_t sequence_ = 0;
  bool greeted_ = false;
  bool introduced_ = false;
  int32_t hello_sequence_ = 0;
  uint64_t next_frame_ = 0;
  uint64_t next_call_ = 1;
  std::unordered_map<uint64_t, int32_t> calls_;  // id to the client's sequence number
};

}  // namespace gradferry::thrift
