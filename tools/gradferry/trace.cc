// `gradferry trace merge`: the traces of several workers as one file for Perfetto.
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
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
  const auto failure = [&](int error) { return Failure(path + " cannot be read: " + strerror(error)); };
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) throw failure(EISDIR);
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw failure(errno != 0 ? errno : EIO);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  try {
    return {path, nlohmann::json::parse(text)};
  } catch (const nlohmann::json::parse_error& wrong) {
    // A file that was cut short is wrong at its end.
    throw Failure(path + " is no JSON: wrong at byte " + std::to_string(wrong.byte) + " of " +
                  std::to_string(text.size()));
  } catch (const nlohmann::json::exception&) {
    throw Failure(path + " is no JSON: it has a number that is none of a trace");
  }
}

void Write(const std::string& output, const std::string& text) {
  const bool to_stdout = output == "-";
  FILE* const file = to_stdout ? stdout : fopen(output.c_str(), "wbe");
  const bool written = file != nullptr && fwrite(text.data(), 1, text.size(), file) == text.size() && fflush(file) == 0;
  const int error = errno;
  if (file != nullptr && !to_stdout) fclose(file);
  if (!written) throw Failure((to_stdout ? "the trace" : output) + " cannot be written: " + strerror(error));
}

int Run(const Options& options) {
  std::vector<Trace> traces;
  for (const std::string& file : options.files) traces.push_back(Read(file));
  const auto merged = MergeTraces(std::move(traces));
  Write(options.output, merged.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n");
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
