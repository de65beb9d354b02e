// Frames are Thrift: what the plugin writes by hand is, byte for byte, what Thrift's own code writes, and each reads
// the other's.
#include <thrift/protocol/TBinaryProtocol.h>
#include <thrift/transport/TBufferTransports.h>

#include <memory>
#include <string>
#include <vector>

#include "Gradferry.h"
#include "tests/unit/thrift/frame_testing.h"

namespace gradferry::thrift::testing {
namespace {

using apache::thrift::protocol::TBinaryProtocol;
using apache::thrift::protocol::TMessageType;
using apache::thrift::transport::TFramedTransport;
using apache::thrift::transport::TMemoryBuffer;

std::vector<Frame> Frames() {
  return {{"h", {}},
          {Bytes(100, 1), {Bytes(256, 2)}},
          {Bytes(5, 3), {"", Bytes(100 * 1000, 4), "", "x"}},
          {Bytes(70000, 5), std::vector<std::string>(20, Bytes(10, 6))}};
}

std::string Generated(const Frame& frame) {
  const auto memory = std::make_shared<TMemoryBuffer>();
  idl::GradferryClient client(std::make_shared<TBinaryProtocol>(std::make_shared<TFramedTransport>(memory)));
  std::vector<int64_t> lengths;
  for (const std::string& segment : frame.segments) lengths.push_back(static_cast<int64_t>(segment.size()));
  client.frame(frame.header, lengths, frame.segments);
  return memory->getBufferAsString();
}

TEST(Generated, CodeWritesTheSameBytes) {
  for (const Frame& frame : Frames()) EXPECT_TRUE(Generated(frame) == Encoded(frame)) << frame.segments.size();
}

TEST(Generated, CodeReadsWhatThePluginWrites) {
  for (const Frame& frame : Frames()) {
    const auto memory = std::make_shared<TMemoryBuffer>();
    const std::string bytes = Encoded(frame);
    memory->write(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<uint32_t>(bytes.size()));
    TBinaryProtocol protocol(std::make_shared<TFramedTransport>(memory));
    protocol.setStrict(true, true);
    std::string name;
    TMessageType type;
    int32_t sequence;
    protocol.readMessageBegin(name, type, sequence);
    EXPECT_EQ(name, "frame");
    EXPECT_EQ(type, apache::thrift::protocol::T_ONEWAY);
    idl::Gradferry_frame_args arguments;
    arguments.read(&protocol);
    EXPECT_TRUE(arguments.header == frame.header);
    EXPECT_TRUE(arguments.segments == frame.segments);
    ASSERT_EQ(arguments.lengths.size(), frame.segments.size());
    for (size_t i = 0; i < frame.segments.size(); ++i) {
      EXPECT_EQ(static_cast<size_t>(arguments.lengths[i]), frame.segments[i].size());
    }
  }
}

TEST(Generated, BytesAreReadByThePlugin) {
  Reading reading;
  for (const Frame& frame : Frames()) ASSERT_TRUE(reading.Feed(Generated(frame), [] { return size_t{1000}; }).ok());
  EXPECT_TRUE(reading.frames() == Frames());
}

}  // namespace
}  // namespace gradferry::thrift::testing
