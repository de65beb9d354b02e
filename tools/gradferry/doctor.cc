// `gradferry doctor`: looks at everything that has to be right before a worker runs, and says of what is not how to
// mend it. Works where libgradferry or libtorch are missing or broken, since that is what it is for.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "tools/gradferry/commands.h"
#include "tools/gradferry/findings.h"
#include "tools/gradferry/library.h"

namespace gradferry::command {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string file;
  std::vector<std::string> settings;
  bool json = false;
};

std::vector<std::string> Split(const char* text, char separator) {
  std::vector<std::string> parts;
  std::istringstream stream(text == nullptr ? "" : text);
  for (std::string part; std::getline(stream, part, separator);) {
    if (!part.empty()) parts.push_back(part);
  }
  return parts;
}

template <class Parts>
std::string Joined(const Parts& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : ", ") + part;
  return text;
}

// Where the system's loader looks, as far as folders tell.
std::vector<std::string> LoaderFolders() {
  std::vector<std::string> folders = Split(std::getenv("LD_LIBRARY_PATH"), ':');
  std::error_code error;
  const auto self = fs::read_symlink("/proc/self/exe", error);
  if (!error) folders.push_back((self.parent_path().parent_path() / "lib").string());
  for (const char* folder : {"/usr/local/lib", "/usr/lib", "/lib", "/usr/lib/" GRADFERRY_TRIPLET}) {
    folders.push_back(folder);
  }
  return folders;
}

// The different files of this name in folders.
std::set<std::string> Copies(const std::string& name, const std::vector<std::string>& folders) {
  std::set<std::string> files;
  for (const std::string& folder : folders) {
    std::error_code error;
    const auto file = fs::canonical(fs::path(folder) / name, error);
    if (!error) files.insert(file.string());
  }
  return files;
}

// Loads the library, or says why not, and what of libtorch that has to do with.
const Library* CheckLibraries(Findings& findings) {
  const Library* library = nullptr;
  const std::string so_name = "libgradferry.so." + std::to_string(GF_ABI_EPOCH);
  try {
    library = &Library::Load();
    findings.Ok("libgradferry", library->path);
  } catch (const std::exception& e) {
    findings.Problem("libgradferry", e.what(),
                     "install Gradferry (./dev install PREFIX), or let GRADFERRY_LIBRARY name its " + so_name);
  }
  if (library == nullptr && dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_LOCAL) == nullptr) {
    findings.Problem("libtorch", dlerror(),
                     "apt-get install libtorch-dev, or put the folder of its libraries into LD_LIBRARY_PATH");
  }
  const auto torch = MappedFiles("libtorch_cpu");
  if (library != nullptr) {
    const auto info = nlohmann::json::parse(library->Text(library->gf_build_info));
    const std::string compiled = info["torch"]["compiled"], loaded = info["torch"]["loaded"];
    const std::string text = "version " + loaded + ", " + Joined(torch);
    if (compiled == loaded) {
      findings.Ok("libtorch", text);
    } else {
      findings.Problem("libtorch", text + ", but Gradferry was compiled for " + compiled,
                       "compile Gradferry with the headers of libtorch " + loaded + " (GRADFERRY_TORCH)");
    }
  } else if (!torch.empty()) {
    findings.Ok("libtorch", Joined(torch));
  }
  return library;
}

void CheckDuplicates(Findings& findings) {
  std::string mapped, there;
  for (const char* name : {"libtorch_cpu", "libgradferry.so"}) {
    const auto files = MappedFiles(name);
    if (files.size() > 1) mapped += (mapped.empty() ? "" : "; ") + std::string(name) + ": " + Joined(files);
  }
  for (const std::string& name : {std::string("libtorch_cpu.so"), "libgradferry.so." + std::to_string(GF_ABI_EPOCH)}) {
    const auto files = Copies(name, LoaderFolders());
    if (files.size() > 1) there += (there.empty() ? "" : "; ") + name + ": " + Joined(files);
  }
  if (!mapped.empty()) {
    findings.Problem("duplicates", "this process has several of one library, " + mapped,
                     "let all parts of a program find the same file: one folder in LD_LIBRARY_PATH");
  } else if (!there.empty()) {
    findings.Warning("duplicates", "there are several of one library, " + there,
                     "remove all but one, or put the folder of the right one first in LD_LIBRARY_PATH");
  } else {
    findings.Ok("duplicates", "libtorch and libgradferry are there once at most");
  }
}

// The folders of GRADFERRY_PLUGIN_PATH are those that somebody meant to be there.
std::vector<std::string> FoldersOfVariable(Findings& findings) {
  const auto folders = Split(std::getenv("GRADFERRY_PLUGIN_PATH"), ':');
  std::set<std::string> missing;
  for (const std::string& folder : folders) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) missing.insert(folder);
  }
  if (!missing.empty()) {
    findings.Warning("plugin path", "GRADFERRY_PLUGIN_PATH names what is no folder: " + Joined(missing),
                     "correct or unset the variable");
  }
  return folders;
}

// What to do when a worker does not open, by what it says.
std::string MendWorker(const std::string& what, const std::string& otherwise) {
  if (what.find(": GRADFERRY_") != std::string::npos) return "correct or unset the variable";
  if (what.find("no usable plugin") != std::string::npos) {
    return "install that plugin, or let GRADFERRY_PLUGIN_PATH name its folder; `plugin` findings tell what there is";
  }
  return otherwise;
}

void CheckPlugin(const Library& library, const std::string& name, const std::string& file, Findings& findings) {
  try {
    Config config(library, "",
                  {"worker.name=doctor", "worker.id=0", "group.rendezvous=", "group.peers=[]",
                   "worker.listen=", "metrics.listen=", "transport.name=" + name, "transport.plugin=" + file});
    const Worker worker(library, config);
    findings.Ok("plugin " + name, file + ", listens at " + worker.Address());
  } catch (const std::exception& e) {
    const std::string what = e.what();
    const bool option = what.find("transport." + name + ".") != std::string::npos;
    const std::string otherwise =
        option ? "correct that option"
               : "remove the file, or install the plugin of this release again; gradferry plugin-check " + file;
    findings.Problem("plugin " + name, file + " cannot be used: " + what,
                     what.find(": GRADFERRY_") != std::string::npos ? "correct or unset the variable" : otherwise);
  }
}

// Every plugin file of the search path, opened as a worker would; whether there is one. folders: of
// transport.plugin_path.
bool CheckPlugins(const Library& library, std::vector<std::string> folders, Findings& findings) {
  for (const std::string& folder : FoldersOfVariable(findings)) folders.push_back(folder);
  const std::string beside = fs::path(library.path).parent_path().string();
  for (const std::string& folder :
       {beside, beside + "/gradferry/plugins", std::string("/usr/local/lib/gradferry/plugins"),
        std::string("/usr/lib/gradferry/plugins")}) {
    folders.push_back(folder);
  }
  const std::string prefix = "libgradferry_transport_";
  std::map<std::string, std::set<std::string>> passed_by;
  std::map<std::string, std::string> plugins;
  for (const std::string& folder : folders) {
    std::error_code error;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      const std::string file = it->path().filename().string();
      if (file.rfind(prefix, 0) != 0 || it->path().extension() != ".so") continue;
      const std::string name = it->path().stem().string().substr(prefix.size());
      const auto [known, fresh] = plugins.emplace(name, it->path().string());
      if (!fresh && known->second != it->path().string()) passed_by[name].insert(it->path().string());
    }
  }
  for (const auto& [name, file] : plugins) CheckPlugin(library, name, file, findings);
  for (const auto& [name, files] : passed_by) {
    findings.Ok("copies of plugin " + name, Joined(files) + ": not used, since another one comes before");
  }
  if (plugins.empty()) {
    findings.Problem("plugins", "there is no transport plugin in " + Joined(folders),
                     "install Gradferry whole, or let GRADFERRY_PLUGIN_PATH name the folder of the plugins");
  }
  return !plugins.empty();
}

// Where a worker with these settings would listen.
void CheckAddress(const Library& library, Config& config, const std::string& file, Findings& findings) {
  const auto settings = nlohmann::json::parse(config.Describe());
  const auto& listen = settings["worker.listen"];
  const std::string where = listen.value("where", listen["from"].get<std::string>());
  const std::string why = listen["value"] == "" ? "the transport's own choice, as worker.listen is not set"
                                                : "worker.listen, from " + where;
  if (settings["worker.name"]["value"] == "") config.Set("worker.name", "doctor");
  if (settings["worker.id"]["value"] == -1) config.Set("worker.id", "0");
  for (const char* key : {"group.rendezvous", "metrics.listen"}) config.Set(key, "");
  config.Set("group.peers", "[]");
  try {
    const Worker worker(library, config);
    findings.Ok("address", worker.Address() + " (" + why + ")");
  } catch (const std::exception& e) {
    const std::string what = e.what();
    findings.Problem("address", "a worker with these settings does not open: " + what,
                     MendWorker(what, "correct that setting; `gradferry config" + (file.empty() ? "" : " " + file) +
                                          "` shows where each comes from"));
  }
}

// The settings, and with them what is asked of plugins.
void CheckConfig(const Library& library, const Options& options, Findings& findings) {
  const std::string what = options.file.empty() ? "environment and defaults" : options.file;
  try {
    Config config(library, options.file, options.settings);
    const auto settings = nlohmann::json::parse(config.Describe());
    findings.Ok("config", what);
    const bool plugins = CheckPlugins(library, settings["transport.plugin_path"]["value"], findings);
    if (plugins || settings["transport.plugin"]["value"] != "") {
      CheckAddress(library, config, options.file, findings);
    }
  } catch (const std::exception& e) {
    const std::string error = e.what();
    const bool variable =
        error.find(": GRADFERRY_") != std::string::npos || error.find("the environment has ") != std::string::npos;
    findings.Problem("config", error + "; plugins and address were not looked at",
                     variable ? "correct or unset the variable" : "correct it there, and run doctor again");
  }
}

int Run(const Options& options) {
  Findings findings;
  CheckCma(findings);  // first: it forks, and there are no threads yet
  CheckLimits(findings);
  CheckClock(findings);
  CheckHostName(findings, HostName());
  if (const Library* library = CheckLibraries(findings)) CheckConfig(*library, options, findings);
  CheckDuplicates(findings);
  fputs((options.json ? findings.Json() : findings.Text()).c_str(), stdout);
  return findings.problems() > 0 ? 1 : 0;
}

}  // namespace

void AddDoctor(CLI::App& app, Chosen chosen) {
  auto options = std::make_shared<Options>();
  CLI::App* doctor = app.add_subcommand("doctor", "Find out what keeps workers from running here");
  doctor->add_option("FILE", options->file, "The configuration of a worker, to be looked at as well");
  doctor->add_option("--set", options->settings, "KEY=VALUE over it");
  doctor->add_flag("--json", options->json, "As JSON");
  doctor->footer(
      "Each finding is ok, a warning or a problem, the latter two with a line that says how to mend it. The exit "
      "status\n"
      "is 1 when there is a problem.\n\n"
      "Examples:\n  gradferry doctor\n  gradferry doctor worker.toml --json");
  doctor->callback([chosen, options] { *chosen = [options] { return Run(*options); }; });
}

}  // namespace gradferry::command
