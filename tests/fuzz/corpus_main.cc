// Writes the corpora of the fuzz targets from real messages and configurations: corpus_main FOLDER makes
// FOLDER/<target>/<nn>. Run it again when messages have changed, and keep what fuzzers have found.
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "impl/rpc/handshake.h"
#include "impl/wire/frame.h"
#include "impl/wire/seal.h"
#include "tests/unit/wire/wire_testing.h"

namespace gradferry {
namespace {

class Corpus {
 public:
  Corpus(const std::filesystem::path& root, const std::string& target) : folder_(root / target) {
    std::filesystem::create_directories(folder_);
  }
  void Add(const std::string& input) {
    char name[16];
    std::snprintf(name, sizeof name, "seed-%03d", count_++);
    std::ofstream(folder_ / name, std::ios::binary) << input;
  }

 private:
  const std::filesystem::path folder_;
  int count_ = 0;
};

std::string U16(size_t value) { return {static_cast<char>(value), static_cast<char>(value >> 8)}; }

std::string FrameInput(const Frame& frame) {
  std::string input(1, static_cast<char>(frame.segments.size()));
  for (const std::string& segment : frame.segments) input += U16(segment.size());
  std::string header = frame.header;
  AppendSeal(header, {});
  input += U16(header.size()) + header;
  for (const std::string& segment : frame.segments) input += segment;
  return input;
}

// Introductions that get as far as the proof.
void AddIntroductions(Corpus& hellos) {
  Identity self;
  self.group = "g";
  self.name = "trainer";
  self.id = 1;
  for (const char secret : {'\0', '\1'}) {
    if (secret != 0) self.secret = "another secret of it";
    Hello hello = DialHandshake(&self, 3, "ps").hello();
    hello.nonce.fill(7);
    hellos.Add(secret + MustEncode(hello).header);
  }
}

void WriteMessages(const std::filesystem::path& root) {
  Corpus frames(root, "frame"), messages(root, "message"), hellos(root, "hello");
  std::vector<Message> all = SampleMessages();
  for (const Message& message : all) {
    const Frame frame = MustEncode(message);
    frames.Add(FrameInput(frame));
    messages.Add(std::string(1, frame.header[4]) + frame.header[2] + frame.header.substr(5));
    const bool hello = std::holds_alternative<Hello>(message) || std::holds_alternative<HelloReply>(message) ||
                       std::holds_alternative<HelloProof>(message);
    if (!hello) continue;
    for (const char secret : {'\0', '\1'}) hellos.Add(secret + frame.header);
  }
  AddIntroductions(hellos);
}

void WriteTensors(const std::filesystem::path& root) {
  Corpus corpus(root, "tensor");
  const size_t prefix = MustEncode(PropagateGradients{}).header.size() - 4;
  for (const at::Tensor& tensor : SampleTensors()) {
    PropagateGradients message;
    message.gradients = {tensor};
    corpus.Add(MustEncode(message).header.substr(prefix));
  }
}

void WriteConfigurations(const std::filesystem::path& root) {
  Corpus corpus(root, "config");
  const std::string nul(1, '\0');
  corpus.Add("[worker]\nname = \"stage1\"\nid = 3\n\n[group]\npeers = [{ id = 0, name = \"a\", address = \"x\" }]\n");
  corpus.Add("worker.name = 'a'\ntransport.sim = { seed = 1, token = 'hush', list = [1, 2.5, \"x\"] }\n");
  corpus.Add("[limits]\nmessage_bytes = 1_000_000\nnesting = 3\n[liveness]\ninterval = \"250ms\"\nlost = \"none\"\n");
  corpus.Add("[security]\nsecret = \"walk softly and carry it\"\noperators = [\"aten::add\"]\n[protocol]\nmin = 2\n");
  corpus.Add("worker.name = 'a'" + nul + "call.timeout" + nul + "1.5s");
  corpus.Add(nul + "group.peers" + nul + "[{ id = 1, name = 'b' }]");
  corpus.Add(nul + "transport.sim.faults" + nul + "[{ fault = 'loss', bytes = [[4, 10]] }]");
}

// Thrift's binary protocol, big endian.
std::string Big(uint64_t value, int bytes) {
  std::string text;
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) text += static_cast<char>(value >> shift);
  return text;
}
std::string Field(char type, int id) { return type + Big(static_cast<uint64_t>(id), 2); }
std::string TextField(int id, const std::string& text) { return Field(11, id) + Big(text.size(), 4) + text; }
std::string I32Field(int id, uint32_t value) { return Field(8, id) + Big(value, 4); }
std::string I64Field(int id, uint64_t value) { return Field(10, id) + Big(value, 8); }
std::string StructField(int id, const std::string& body) { return Field(12, id) + body + '\0'; }

std::string ThriftMessage(uint32_t type, const std::string& name, const std::string& arguments) {
  const std::string body =
      Big(0x80010000u | type, 4) + Big(name.size(), 4) + name + Big(type == 4 ? 0 : 1, 4) + arguments + '\0';
  return Big(body.size(), 4) + body;
}

std::string ThriftFrame(const std::string& header, const std::vector<std::string>& segments) {
  std::string arguments = TextField(1, header) + Field(15, 2) + '\x0A' + Big(segments.size(), 4);
  for (const std::string& segment : segments) arguments += Big(segment.size(), 8);
  arguments += Field(15, 3) + '\x0B' + Big(segments.size(), 4);
  for (const std::string& segment : segments) arguments += Big(segment.size(), 4) + segment;
  return ThriftMessage(4, "frame", arguments);
}

void WriteThrift(const std::filesystem::path& root) {
  Corpus corpus(root, "thrift");
  const std::string hello = ThriftMessage(
      1, "hello",
      StructField(1, TextField(1, "default") + TextField(2, "client") + I32Field(3, 9) + TextField(4, "server") +
                         I32Field(5, 1) + I64Field(6, 1) + TextField(7, std::string(32, 'n'))));
  for (const char piece : {'\0', '\1', '\x3f'}) {
    corpus.Add(piece + ThriftFrame(MustEncode(Goodbye{}).header, {}));
    corpus.Add(piece + ThriftFrame("h", {"abc", "", std::string(300, 'x')}) + ThriftFrame("second", {}));
    corpus.Add(piece + hello + ThriftMessage(1, "prove", TextField(1, std::string(32, 'p'))));
    corpus.Add(piece + hello + ThriftMessage(1, "call", StructField(1, TextField(1, "add_one") + I64Field(3, 1000))));
  }
  // Of a client that has said hello.
  const std::string none(1, '\0');
  const auto sizes = [](std::initializer_list<uint64_t> all) {
    std::string text = Field(15, 2) + '\x0A' + Big(all.size(), 4);
    for (const uint64_t size : all) text += Big(size, 8);
    return text;
  };
  const auto tensor = [&](uint32_t dtype, std::initializer_list<uint64_t> size, const std::string& data) {
    return StructField(6, I32Field(1, dtype) + sizes(size) + TextField(3, data)) + none;
  };
  const auto list = [](int id, const std::vector<std::string>& values) {
    std::string text = Field(15, id) + '\x0C' + Big(values.size(), 4);
    for (const std::string& value : values) text += value;
    return text;
  };
  std::string deep = I64Field(2, 1) + none;
  for (int i = 0; i < 17; ++i) deep = list(7, {deep}) + none;
  const std::vector<std::vector<std::string>> calls = {
      {none, Field(2, 1) + '\1' + none, I64Field(2, 7) + none, Field(4, 3) + Big(0x3ff0000000000000u, 8) + none},
      {TextField(4, "text") + none, TextField(5, "\xff") + none, TextField(4, "\xff") + none},
      {tensor(6, {2}, "12345678"), tensor(1, {}, "1"), list(7, {tensor(7, {0, 3}, "")}) + none},
      {tensor(6, {uint64_t{1} << 62, 16, 0}, "")},
      {tensor(1, {20000}, std::string(20000, 't'))},
      {deep},
  };
  for (const auto& arguments : calls) {
    corpus.Add("@" + ThriftMessage(1, "call", StructField(1, TextField(1, "echo") + list(2, arguments))));
  }
}

}  // namespace
}  // namespace gradferry

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: corpus_main FOLDER\n");
    return 2;
  }
  gradferry::WriteMessages(argv[1]);
  gradferry::WriteTensors(argv[1]);
  gradferry::WriteConfigurations(argv[1]);
  gradferry::WriteThrift(argv[1]);
  return 0;
}
