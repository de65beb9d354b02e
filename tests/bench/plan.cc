// See plan.h.
#include "tests/bench/plan.h"

#include <filesystem>
#include <stdexcept>

#include "tests/bench/subject.h"

namespace gradferry::bench {

Effort EffortOf(const std::string& name) {
  Effort effort;
  effort.name = name;
  effort.rounds = 4;
  effort.seconds = 0.1;
  effort.most_samples = 100000;
  effort.tail_rounds = 1;
  effort.tail_seconds = 2;
  effort.idle_seconds = 2;
  if (name == "quick") return effort;
  if (name == "full") {
    effort.rounds = 16;
    effort.seconds = 0.25;
    effort.tail_rounds = 4;
    effort.tail_seconds = 4;
    effort.idle_seconds = 5;
    return effort;
  }
  if (name == "tiny") {
    effort.rounds = 1;
    effort.seconds = 0.01;
    effort.most_samples = 2;
    effort.tail_seconds = 0.01;
    effort.idle_seconds = 0.1;
    effort.large = false;
    return effort;
  }
  throw std::invalid_argument("'" + name + "' is none of quick, full, tiny");
}

namespace {

// A script lies among the runfiles, of which a test has its own.
std::string ScriptPath(const std::string& programs, const std::string& file) {
  if (std::filesystem::exists(file)) return std::filesystem::absolute(file);
  return programs + "/bench_main.runfiles/gradferry/" + file;
}

}  // namespace

std::vector<Subject> AllSubjects(const std::string& programs) {
  std::vector<Subject> all;
  const auto add = [&](const std::string& name, Kind kind, const std::string& text,
                       const std::vector<std::string>& program, const std::vector<std::string>& arguments) {
    Subject subject{name, kind, text, {program, arguments}};
    if (subject.command.program[0][0] != '/') subject.command.program[0] = programs + "/" + program[0];
    all.push_back(std::move(subject));
  };
  const auto raw = [&](const std::string& kind, const std::string& text) {
    add("raw_" + kind, Kind::kRaw, text, {"raw_main"}, {kind});
  };
  raw("memcpy", "memcpy within a process");
  raw("unix", "a Unix socket");
  raw("tcp", "a TCP connection over loopback");
  raw("vm", "process_vm_readv, told by a Unix socket");
  raw("tls_unix", "TLS 1.3 over a Unix socket");
  raw("tls_tcp", "TLS 1.3 over TCP");
  add("pipe_uv", Kind::kRaw, "a TensorPipe pipe, uv and cma", {"pipe_main"}, {"uv"});
  add("pipe_shm", Kind::kRaw, "a TensorPipe pipe, shm and cma", {"pipe_main"}, {"shm"});

  add("stock", Kind::kStock, "PyTorch RPC from C++, its own choice of transport (shm and cma)", {"stock_main"},
      {"default", "default"});
  add("stock_uv", Kind::kStock, "PyTorch RPC from C++ over uv and cma", {"stock_main"}, {"uv", "cma,basic"});
  add("stock_python", Kind::kStock, "PyTorch RPC from Python, its own choice of transport",
      {"/usr/bin/python3", ScriptPath(programs, "tests/bench/stock.py")}, {"default", "default"});

  const auto ours = [&](const std::string& name, const std::string& text, const std::vector<std::string>& settings) {
    add(name, Kind::kOurs, text, {"gradferry_main"}, settings);
  };
  ours("tensorpipe", "Gradferry over TensorPipe, uv and cma", {"transport.name=tensorpipe"});
  ours("tensorpipe_shm", "Gradferry over TensorPipe, shm and cma",
       {"transport.name=tensorpipe", "worker.listen=shm://", "transport.tensorpipe.transports=[\"shm\", \"uv\"]"});
  ours("thrift_unix", "Gradferry over Thrift, a Unix socket", {"transport.name=thrift"});
  ours("thrift_tcp", "Gradferry over Thrift, TCP", {"transport.name=thrift", "worker.listen=tcp://127.0.0.1:0"});
  ours("thrift_tls", "Gradferry over Thrift, TLS",
       {"transport.name=thrift", "worker.listen=tls://127.0.0.1:0", "transport.thrift.ca={folder}/ca.pem",
        "transport.thrift.certificate={folder}/{role}.pem", "transport.thrift.key={folder}/{role}.key"});
  all.back().preparation = ScriptPath(programs, "tools/make_test_ca.sh");
  all.back().preparation_arguments = "driver peer";
  return all;
}

const std::vector<Measurement>& AllMeasurements() {
  static const std::vector<Measurement> all = {
      {"echo", "64 bytes there and back", 100000, 1, 0},
      {"empty", "call of an empty direct handler", 100000, 1, 0},
      {"add", "aten::add of 64 floats", 100000, 1, 0},
      {"add_context", "the same in an autograd context", 100000, 1, 0},
      {"step", "context, call, backward, release", 100000, 1, 0},
      {"chain", "backward through a chain of 50 calls", 1000, 2, 0},
      {"in_flight", "a call, with 128 in flight", 1000, 2, 0},
      {"send_64mib", "64 MiB to the peer", 1000, 2, 64 * kMiB},
      {"send_64mib_fresh", "64 MiB to the peer, into new memory", 1000, 2, 64 * kMiB},
      {"send_256mib", "256 MiB to the peer", 1000, 3, 256 * kMiB},
      {"many_tensors", "10,000 tensors of 1 KiB in one call", 1000, 2, 0},
  };
  return all;
}

}  // namespace gradferry::bench
