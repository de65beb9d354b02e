// `gradferry`: the command for people who run workers.
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/library.h"
#include "tools/plugin_check/plugin_check.h"

namespace gradferry::command {

namespace {

std::string Version() {
  std::string text = "gradferry " GRADFERRY_RELEASE ", ABI epoch " + std::to_string(GF_ABI_EPOCH);
  try {
    const Library& library = Library::Load();
    const auto info = nlohmann::json::parse(library.Text(library.gf_build_info));
    text += "\nlibgradferry " + info["release"].get<std::string>() + " (" + library.path + "), libtorch " +
            info["torch"]["loaded"].get<std::string>();
  } catch (const std::exception& e) {
    text += std::string("\n") + e.what() + " (gradferry doctor says more)";
  }
  return text;
}

int Main(int argc, char** argv) {
  // It has a parser of its own.
  if (argc >= 2 && strcmp(argv[1], "plugin-check") == 0) return check::PluginCheckMain(argc - 1, argv + 1);
  CLI::App app{"Distributed autograd: looks after workers, their settings, plugins and traces."};
  app.name("gradferry");
  app.set_version_flag("--version", Version, "What is installed");
  app.require_subcommand(1);
  app.get_formatter()->column_width(34);
  Body body;
  AddDoctor(app, &body);
  AddConfig(app, &body);
  AddPing(app, &body);
  AddTop(app, &body);
  AddTrace(app, &body);
  app.add_subcommand("plugin-check", "Check a transport plugin against the rules of transport.h");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app.exit(e);  // --help, --version
    fprintf(stderr, "gradferry: %s (gradferry --help tells what there is)\n", e.what());
    return 2;
  }
  try {
    return body();
  } catch (const std::exception& e) {
    fprintf(stderr, "gradferry: %s\n", e.what());
    return 1;
  }
}

}  // namespace

}  // namespace gradferry::command

int main(int argc, char** argv) { return gradferry::command::Main(argc, argv); }
