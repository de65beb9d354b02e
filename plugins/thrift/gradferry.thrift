// What is spoken on a connection of the thrift transport: framed transport, binary protocol with strict versions.
//
// Workers send each other `frame`, both ways on the connection that one of them made. The plugin writes and reads it by
// hand (frame_writer.h, frame_reader.h), byte for byte as generated code does, so that tensors go from and to their own
// memory.

namespace cpp gradferry.thrift.idl
namespace py gradferry_thrift

service Gradferry {
  // One frame of transport.h. The lengths of all segments stand before the first byte of any, so that its receiver can
  // make room for them.
  oneway void frame(1: binary header, 2: list<i64> lengths, 3: list<binary> segments)
}
