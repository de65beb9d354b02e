// The arguments of a stock client's call: from Thrift's structs to Gradferry's values.
//
// All that a worker would refuse, and end the connection for, is found here first, so that the client gets an error
// that names it and may go on: a worker's limits are taken to be the usual ones.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "plugins/thrift/gateway_thrift.h"
#include "plugins/thrift/gateway_wire.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

// The tensors of a message on their way to a worker: small ones together, larger ones as views into what was received.
class OutTensors {
 public:
  void Add(std::string_view bytes);
  // The segments of the frame, in order.
  std::vector<std::string_view> Segments() const;

 private:
  std::string inline_;
  std::vector<std::string_view> large_;
};

// Reads a list of Value and writes a list of value. An error names the argument: GF_INVALID_ARGUMENT for what no value
// can be, GF_RESOURCE_EXHAUSTED for more than a worker takes, GF_DATA_LOSS for bytes that are not the Thrift of a
// Value. Then nobody knows where the reader stands.
Status ReadArguments(ThriftReader* from, WireWriter* to, OutTensors* tensors);

// Whether it can be the name of something (`what`).
Status CheckName(const std::string& what, std::string_view name);

}  // namespace gradferry::thrift
