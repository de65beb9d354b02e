// Messages to frames and back, and what seals them.
#include <ATen/ops/ones.h>
#include <benchmark/benchmark.h>

#include <cstring>
#include <vector>

#include "impl/base/crc32c.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"

namespace gradferry {
namespace {

Message AddCall(int64_t floats) {
  Call call;
  call.call_id = 1;
  call.target = CallTarget::kOperator;
  call.name = "aten::add";
  call.overload = "Tensor";
  for (int i = 0; i < 2; ++i) call.arguments.push_back(at::ones({floats}));
  return call;
}

Message ManyTensors(int64_t count) {
  Call call;
  call.call_id = 1;
  call.name = "many";
  for (int64_t i = 0; i < count; ++i) call.arguments.push_back(at::ones({256}));
  return call;
}

Message Marks() {
  MarkSendFunctions mark;
  mark.call_id = 1;
  mark.context_id = 2;
  mark.message_ids = {1, 2, 3, 4};
  mark.outputs = {0, 0, 0, 0};
  return mark;
}

void Encode(benchmark::State& state, const Message& message) {
  const WireLimits limits;
  for (auto _ : state) {
    auto frame = EncodeFrame(message, {}, limits);
    if (!frame.ok()) return state.SkipWithError(frame.status().ToString().c_str());
    benchmark::DoNotOptimize(frame);
  }
}

void Decode(benchmark::State& state, const Message& message) {
  const WireLimits limits;
  const auto frame = EncodeFrame(message, {}, limits);
  if (!frame.ok()) return state.SkipWithError(frame.status().ToString().c_str());
  std::vector<uint64_t> lengths;
  for (const FrameSegment& segment : frame->segments) lengths.push_back(segment.length);
  for (auto _ : state) {
    auto decoder = FrameDecoder::New(frame->header, lengths, limits);
    if (!decoder.ok()) return state.SkipWithError(decoder.status().ToString().c_str());
    const auto& targets = (*decoder)->segments();
    for (size_t i = 0; i < targets.size(); ++i) {
      if (lengths[i] != 0) std::memcpy(targets[i].data, frame->segments[i].data, lengths[i]);
    }
    auto decoded = (*decoder)->Finish();
    benchmark::DoNotOptimize(decoded);
  }
}

void EncodeAdd(benchmark::State& state) { Encode(state, AddCall(state.range(0))); }
void DecodeAdd(benchmark::State& state) { Decode(state, AddCall(state.range(0))); }
BENCHMARK(EncodeAdd)->Arg(64)->Arg(1 << 20);
BENCHMARK(DecodeAdd)->Arg(64)->Arg(1 << 20);

void EncodeMarks(benchmark::State& state) { Encode(state, Marks()); }
void DecodeMarks(benchmark::State& state) { Decode(state, Marks()); }
BENCHMARK(EncodeMarks);
BENCHMARK(DecodeMarks);

// Packing: tensors that go together into one segment.
void EncodeTensors(benchmark::State& state) { Encode(state, ManyTensors(state.range(0))); }
void DecodeTensors(benchmark::State& state) { Decode(state, ManyTensors(state.range(0))); }
BENCHMARK(EncodeTensors)->Arg(1)->Arg(100)->Arg(10000);
BENCHMARK(DecodeTensors)->Arg(1)->Arg(100)->Arg(10000);

void SealAndRead(benchmark::State& state) {
  const std::string body(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) {
    std::string header = body;
    AppendSeal(header, {});
    benchmark::DoNotOptimize(ReadSeal(header));
  }
}
BENCHMARK(SealAndRead)->Arg(100)->Arg(1000)->Arg(100000);

void Checksum(benchmark::State& state) {
  const std::string bytes(static_cast<size_t>(state.range(0)), 'x');
  for (auto _ : state) benchmark::DoNotOptimize(Crc32c(bytes));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}
BENCHMARK(Checksum)->Arg(100)->Arg(1 << 20);

}  // namespace
}  // namespace gradferry
