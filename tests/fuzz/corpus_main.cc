// Writes the corpora of the fuzz targets from real messages and configurations: corpus_main FOLDER makes
// FOLDER/<target>/<nn>. Run it again when messages have changed (`./dev corpus`), and keep what fuzzers have found.
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
  return 0;
}
