// `gradferry config`: the settings in effect, those of the transports included, and where each comes from.
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

struct Options {
  std::string file;
  std::vector<std::string> settings;
  bool json = false;
  bool all = false;
};

void Print(const nlohmann::json& described, bool all) {
  for (const auto& [key, entry] : described.items()) {
    const std::string from = entry["from"];
    if (!all && from == "default" && entry["value"] == "") continue;
    const std::string where = entry.value("where", std::string());
    printf("%s = %s  # %s\n", key.c_str(), entry["value"].dump().c_str(), where.empty() ? from.c_str() : where.c_str());
  }
}

int Run(const Options& options) {
  const Library& library = Library::Load();
  Config config(library, options.file, options.settings);
  // What the plugins do not take is shown as well: it is what is in effect.
  std::string wrong;
  try {
    config.Check();
  } catch (const Failure& failure) {
    wrong = failure.what();
  }
  const auto described = nlohmann::json::parse(config.Describe());
  if (options.json) {
    printf("%s\n", described.dump(2).c_str());
  } else {
    Print(described, options.all);
  }
  fflush(stdout);
  if (!wrong.empty()) throw Failure(wrong);
  return 0;
}

}  // namespace

void AddConfig(CLI::App& app, Chosen chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* config = app.add_subcommand("config", "Show the settings in effect, and where each comes from");
  config->add_option("FILE", options->file, "A configuration in TOML; without one: environment and defaults");
  config->add_option("--set", options->settings, "KEY=VALUE, as a program would set it; goes before all else");
  config->add_flag("--json", options->json, "As JSON");
  config->add_flag("--all", options->all, "Also what is empty");
  config->footer(
      "The plugins are asked for the options of their transports. Secrets are not shown. What is wrong is named with\n"
      "file, line and key, and the exit status is 1.\n\n"
      "Examples:\n  gradferry config worker.toml\n  gradferry config worker.toml --set worker.threads=2 --json\n"
      "  GRADFERRY_TRANSPORT_NAME=thrift gradferry config");
  config->callback([chosen, options] { *chosen = [options] { return Run(*options); }; });
}

}  // namespace gradferry::command
