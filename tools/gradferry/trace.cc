// `gradferry trace merge`: the traces of several workers as one file for Perfetto.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/library.h"
#include "tools/gradferry/merge.h"

namespace gradferry::command {
namespace {

struct Options {
  std::vector<std::string> files;
  std::string output = "-";
};

Trace Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (!file || text.empty()) throw Failure(path + " cannot be read: " + strerror(errno != 0 ? errno : ENODATA));
  Trace trace{path, nlohmann::json::parse(text, nullptr, /*allow_exceptions=*/false)};
  if (trace.document.is_discarded()) throw Failure(path + " is no JSON");
  return trace;
}

int Run(const Options& options) {
  std::vector<Trace> traces;
  for (const std::string& file : options.files) traces.push_back(Read(file));
  const auto merged = MergeTraces(std::move(traces));
  const std::string text = merged.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
  if (options.output == "-") {
    fwrite(text.data(), 1, text.size(), stdout);
    return 0;
  }
  std::ofstream file(options.output, std::ios::binary | std::ios::trunc);
  file << text;
  file.close();
  if (!file) throw Failure(options.output + " cannot be written: " + strerror(errno));
  for (const auto& [worker, place] : merged["otherData"]["workers"].items()) {
    if (place["error_us"].is_null()) {
      fprintf(stderr, "gradferry: nothing tells how the clock of worker %s goes; its times are as they were\n",
              worker.c_str());
    }
  }
  return 0;
}

}  // namespace

void AddTrace(CLI::App& app, Chosen chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* trace = app.add_subcommand("trace", "Work with the traces of workers");
  trace->require_subcommand(1);
  CLI::App* merge = trace->add_subcommand("merge", "Put the traces of several workers into one");
  merge->add_option("FILE", options->files, "What gf_worker_trace_json gave, one file for each worker")->required();
  merge->add_option("--output,-o", options->output, "Where to write; - is the standard output")->capture_default_str();
  merge->footer(
      "Times become those of the first file's worker; otherData.workers says how wrong that may be. Open the result "
      "at\n"
      "https://ui.perfetto.dev or chrome://tracing.\n\n"
      "Example:\n  gradferry trace merge trainer.json server.json -o merged.json");
  merge->callback([chosen, options] { *chosen = [options] { return Run(*options); }; });
}

}  // namespace gradferry::command
