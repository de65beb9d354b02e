// What a configuration says of transports: which, with which options, from which plugins; and whether the plugins
// agree. Called by impl/rpc when a worker is made, and by the C boundary for gf_config_check.
#pragma once

#include <vector>

#include "impl/base/config.h"
#include "impl/base/status.h"
#include "impl/transport/transport_set.h"

namespace gradferry {

// transport.name, each with its section.
std::vector<TransportSpec> ConfiguredTransports(const Config& config);

// transport.plugin and transport.plugin_path.
PluginSearch ConfiguredPlugins(const Config& config);

// Makes the transports of transport.name as opening a worker does, and of every other one that has a section, and ends
// them again; none listens. The first error, with the place of what is wrong where it is known. *config knows the
// options of the plugins from then on (Config::DeclareTransport).
Status CheckTransports(Config* config);

}  // namespace gradferry
