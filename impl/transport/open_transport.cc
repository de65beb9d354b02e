// OpenTransport and FindPlugins: from a name to a loaded plugin, trying one place after the other and saying of each
// what was wrong. Called by impl/rpc with what the configuration says.
#include <algorithm>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>

#include "impl/base/log.h"
#include "impl/base/nearest.h"
#include "impl/transport/elf_note.h"
#include "impl/transport/plugin.h"
#include "impl/transport/plugin_transport.h"
#include "impl/transport/search.h"
#include "impl/transport/transport.h"

namespace gradferry {
namespace {

// Why each place did not do.
class Attempts {
 public:
  void Add(const std::string& file, const Status& reason) {
    text_ += StrCat(text_.empty() ? "" : "; ", file, ": ", Reason(reason));
    // A file that is there and unfit says more than the places where there is none.
    if (code_ == Code::kNotFound) code_ = reason.code();
    if (reason.code() != Code::kNotFound) unfit_ = true;
  }

  bool unfit() const { return unfit_; }
  const std::string& text() const { return text_; }

  // search: for a name that was meant.
  Status Failure(const std::string& name, const PluginSearch& search) const {
    std::vector<std::string> names;
    for (const PluginInfo& plugin : FindPlugins(search)) names.push_back(plugin.name);
    const std::string meant = code_ == Code::kNotFound ? DidYouMean(name, names) : "";
    return Status(code_, StrCat("no usable plugin for the transport '", name, "'", meant, "; tried ", text_))
        .WithDomain("transport." + name);
  }

 private:
  static std::string Reason(const Status& status) {
    std::string reason = status.message();
    for (const Error* e = status.error()->cause.get(); e != nullptr; e = e->cause.get()) reason += ": " + e->message;
    return reason;
  }

  Code code_ = Code::kNotFound;
  bool unfit_ = false;
  std::string text_;
};

Result<std::shared_ptr<const Plugin>> FindAndLoad(const std::string& name, const PluginSearch& search) {
  Attempts attempts;
  for (const std::string& file : PluginCandidates(name, search)) {
    auto plugin = LoadPlugin(file, name);
    if (plugin.ok()) {
      // Nobody shall wonder why the file that they put first is not the one in use.
      if (attempts.unfit())
        Log(LogLevel::kWarning, "transport.", name, ": using ", file, "; passed by ", attempts.text());
      return plugin;
    }
    attempts.Add(file, plugin.status());
  }
  return attempts.Failure(name, search);
}

// True for a file that LoadPlugin would not refuse at sight.
bool LooksUsable(const std::string& file) {
  const auto note = ReadPluginNote(file);
  return note.ok() && note->epoch == GF_TRANSPORT_EPOCH;
}

void AddPluginsOf(const std::string& folder, std::vector<PluginInfo>& plugins) {
  std::error_code error;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    const std::string file_name = it->path().filename().string();
    const auto name = TransportNameOf(file_name);
    if (!name) continue;
    const bool known =
        std::any_of(plugins.begin(), plugins.end(), [&](const PluginInfo& info) { return info.name == *name; });
    const std::string file = StrCat(folder, "/", file_name);
    if (!known && LooksUsable(file)) plugins.push_back({*name, file});
  }
}

}  // namespace

Result<std::unique_ptr<Transport>> OpenTransport(const std::string& name, const PluginSearch& search,
                                                 const std::string& options, TransportEvents* events,
                                                 const OptionsJudge& judge) {
  if (!IsTransportName(name)) {
    return InvalidArgument(StrCat("'", name, "' cannot be a transport's name: it consists of a-z, 0-9 and _"));
  }
  GF_ASSIGN_OR_RETURN(std::shared_ptr<const Plugin> plugin, FindAndLoad(name, search));
  if (judge) GF_RETURN_IF_ERROR(judge(name, plugin->options_schema));
  return NewPluginTransport(std::move(plugin), options, events);
}

std::vector<PluginInfo> FindPlugins(const PluginSearch& search) {
  std::vector<PluginInfo> plugins;
  if (!search.explicit_path.empty()) {
    const auto name = TransportNameOf(std::filesystem::path(search.explicit_path).filename().string());
    if (name && LooksUsable(search.explicit_path)) plugins.push_back({*name, search.explicit_path});
  } else {
    for (const std::string& folder : PluginFolders(search)) AddPluginsOf(folder, plugins);
  }
  std::sort(plugins.begin(), plugins.end(), [](const PluginInfo& a, const PluginInfo& b) { return a.name < b.name; });
  return plugins;
}

}  // namespace gradferry
