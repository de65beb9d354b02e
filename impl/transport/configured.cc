// See configured.h.
#include "impl/transport/configured.h"

#include <algorithm>
#include <memory>
#include <string>

#include "impl/base/nearest.h"

namespace gradferry {
namespace {

// Nobody connects to a transport that does not listen.
class NoEvents final : public TransportEvents {
 public:
  std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection>) override { return nullptr; }
  void OnAddress(std::string) override {}
};

// A section without a plugin is probably misspelt, and no worker would say so: it looks at those of its transports
// only.
Status NoSuchTransport(const std::string& name, const std::vector<PluginInfo>& plugins) {
  std::vector<std::string> names;
  for (const PluginInfo& plugin : plugins) names.push_back(plugin.name);
  return NotFound(
      StrCat("transport.", name, " is the section of a transport that has no plugin here", DidYouMean(name, names)));
}

}  // namespace

std::vector<TransportSpec> ConfiguredTransports(const Config& config) {
  std::vector<TransportSpec> specs;
  for (const std::string& name : config.GetNames("transport.name")) {
    specs.push_back({name, config.GetSection(StrCat("transport.", name))});
  }
  return specs;
}

PluginSearch ConfiguredPlugins(const Config& config) {
  return {config.GetString("transport.plugin"), config.GetStrings("transport.plugin_path")};
}

Status CheckTransports(Config* config) {
  NoEvents events;
  const OptionsJudge judge = [config](const std::string& name, const std::string& schema) {
    return config->DeclareTransport(name, schema);
  };
  const std::vector<TransportSpec> specs = ConfiguredTransports(*config);
  PluginSearch search = ConfiguredPlugins(*config);
  const auto in_use = OpenTransports(specs, search, &events, judge);
  if (!in_use.ok()) return config->WithPlace(in_use.status());

  search.explicit_path.clear();  // that is the plugin of the one in use
  const std::vector<PluginInfo> plugins = FindPlugins(search);
  for (const std::string& name : config->TransportSections()) {
    if (std::any_of(specs.begin(), specs.end(), [&](const auto& spec) { return spec.name == name; })) continue;
    const auto other = OpenTransport(name, search, config->GetSection("transport." + name), &events, judge);
    if (other.ok()) continue;
    const bool there = std::any_of(plugins.begin(), plugins.end(), [&](const auto& p) { return p.name == name; }) ||
                       other.status().code() != Code::kNotFound;
    return config->WithPlace(there ? other.status() : NoSuchTransport(name, plugins));
  }
  return OkStatus();
}

}  // namespace gradferry
