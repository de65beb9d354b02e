// `gradferry doctor`: looks at everything that has to be right before a worker runs, and says of what is not how to
// mend it. Works where libgradferry or libtorch are missing or broken, since that is what it is for.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
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

std::string Joined(const std::set<std::string>& parts) {
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
  for (const char* name : {"libtorch_cpu", "libgradferry.so"}) {
    const auto mapped = MappedFiles(name);
    if (mapped.size() > 1) {
      findings.Problem("duplicates", "this process has several of " + std::string(name) + ": " + Joined(mapped),
                       "let all parts of a program find the same file: one folder in LD_LIBRARY_PATH");
    }
  }
  bool several = false;
  for (const std::string& name : {std::string("libtorch_cpu.so"), "libgradferry.so." + std::to_string(GF_ABI_EPOCH)}) {
    const auto copies = Copies(name, LoaderFolders());
    if (copies.size() < 2) continue;
    several = true;
    findings.Warning("duplicates", "there are several of " + name + ": " + Joined(copies),
                     "remove all but one, or put the folder of the right one first in LD_LIBRARY_PATH");
  }
  if (!several) findings.Ok("duplicates", "libtorch and libgradferry are there once at most");
}

// Every plugin file of the search path, opened as a worker would.
void CheckPlugins(const Library& library, Findings& findings) {
  std::vector<std::string> folders = Split(std::getenv("GRADFERRY_PLUGIN_PATH"), ':');
  const std::string beside = fs::path(library.path).parent_path().string();
  for (const std::string& folder :
       {beside, beside + "/gradferry/plugins", std::string("/usr/local/lib/gradferry/plugins"),
        std::string("/usr/lib/gradferry/plugins")}) {
    folders.push_back(folder);
  }
  const std::string prefix = "libgradferry_transport_";
  std::set<std::string> names;
  for (const std::string& folder : folders) {
    std::error_code error;
    std::set<fs::path> files;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      const std::string file = it->path().filename().string();
      if (file.rfind(prefix, 0) == 0 && it->path().extension() == ".so") files.insert(it->path());
    }
    for (const fs::path& file : files) {
      const std::string stem = file.stem().string();
      const std::string name = stem.substr(prefix.size());
      const std::string what = "plugin " + name;
      if (!names.insert(name).second) {
        findings.Ok(what, file.string() + " is not used: another one comes before it");
        continue;
      }
      try {
        Config config(library, "",
                      {"worker.name=doctor", "worker.id=0", "group.rendezvous=", "group.peers=[]", "worker.listen=",
                       "metrics.listen=", "transport.name=" + name, "transport.plugin=" + file.string()});
        const Worker worker(library, config);
        findings.Ok(what, file.string() + ", listens at " + worker.Address());
      } catch (const std::exception& e) {
        findings.Problem(what, file.string() + " cannot be used: " + e.what(),
                         "gradferry plugin-check " + file.string() + "; install the plugin of this release again");
      }
    }
  }
  if (names.empty()) {
    findings.Problem("plugins", "there is no transport plugin",
                     "install Gradferry whole, or let GRADFERRY_PLUGIN_PATH name the folder of the plugins");
  }
}

// The settings, and where a worker with them would listen.
void CheckConfig(const Library& library, const Options& options, Findings& findings) {
  const std::string file = options.file.empty() ? "environment and defaults" : options.file;
  try {
    Config config(library, options.file, options.settings);
    const auto settings = nlohmann::json::parse(config.Describe());
    findings.Ok("config", file);
    const auto& listen = settings["worker.listen"];
    const std::string where = listen.value("where", listen["from"].get<std::string>());
    const std::string why = listen["value"] == "" ? "the transport's own choice, as worker.listen is not set"
                                                  : "worker.listen, from " + where;
    if (settings["worker.name"]["value"] == "") config.Set("worker.name", "doctor");
    if (settings["worker.id"]["value"] == -1) config.Set("worker.id", "0");
    for (const char* key : {"group.rendezvous", "metrics.listen"}) config.Set(key, "");
    config.Set("group.peers", "[]");
    const Worker worker(library, config);
    findings.Ok("address", worker.Address() + " (" + why + ")");
  } catch (const std::exception& e) {
    findings.Problem("config", std::string(e.what()), "gradferry config " + options.file + " shows the settings");
  }
}

int Run(const Options& options) {
  Findings findings;
  CheckCma(findings);  // first: it forks, and there are no threads yet
  CheckLimits(findings);
  CheckClock(findings);
  CheckHostName(findings);
  if (const Library* library = CheckLibraries(findings)) {
    CheckPlugins(*library, findings);
    CheckConfig(*library, options, findings);
  }
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
