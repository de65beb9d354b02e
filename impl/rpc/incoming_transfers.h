// The messages of one connection that come in chunks: what has been announced and is not complete. Belongs to a Link,
// whose events alone touch it. Holds the tensors' memory; chunks are received straight into it.
#pragma once

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "impl/base/status.h"
#include "impl/transport/transport.h"
#include "impl/wire/frame.h"

namespace gradferry {

class IncomingTransfers {
 public:
  void Begin(uint64_t transfer, std::unique_ptr<FrameDecoder> decoder);
  // Where the segments of a chunk go: they follow what is there. kDataLoss when they do not fit.
  Status Place(uint64_t transfer, std::vector<Segment>& segments);
  // The chunk that was placed last has come. The message, when it is complete, else null.
  std::unique_ptr<FrameDecoder> Placed(uint64_t transfer);
  Status GiveUp(uint64_t transfer);
  void Clear() { transfers_.clear(); }

 private:
  struct Position {
    size_t segment = 0;
    uint64_t offset = 0;
  };
  struct Transfer {
    std::unique_ptr<FrameDecoder> decoder;
    Position there;   // what is before it has come
    Position placed;  // what is before it was asked for
  };

  std::unordered_map<uint64_t, Transfer> transfers_;
};

}  // namespace gradferry
