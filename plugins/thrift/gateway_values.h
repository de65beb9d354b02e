// The results of a stock client's call: from Gradferry's values to Thrift's structs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "plugins/thrift/gateway_thrift.h"
#include "plugins/thrift/gateway_wire.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

// The tensors of a message that comes from a worker, taken one after the other from the frame's segments.
class InTensors {
 public:
  explicit InTensors(std::vector<std::string_view> segments) : segments_(std::move(segments)) {}
  // Whether the first segment is that of the small tensors.
  void Place(bool has_inline);
  // The next one, of so many bytes; false when the segments do not have it.
  bool Take(uint64_t bytes, std::string_view* out);

 private:
  const std::vector<std::string_view> segments_;
  bool has_inline_ = false;
  uint64_t inline_at_ = 0;
  size_t next_ = 0;  // large one
};

// Reads a list of value and writes a list of Value. What a stock client cannot be given is GF_UNSUPPORTED.
Status WriteResults(WireReader* from, InTensors* tensors, ThriftWriter* to);

}  // namespace gradferry::thrift
