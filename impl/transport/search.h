// Where plugins are looked for, in which order. Called by OpenTransport and FindPlugins. It opens nothing.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "impl/transport/transport.h"

namespace gradferry {

// [a-z0-9_]+: what a transport may be called, and what cannot lead out of a folder.
bool IsTransportName(std::string_view name);

// "libgradferry_transport_<name>.so", and back; nothing for another file name or one with a name that is none.
std::string PluginFileName(std::string_view name);
std::optional<std::string> TransportNameOf(std::string_view file_name);

// The folders in the order of OpenTransport's comment; an explicit path does not matter here. Each stands once.
std::vector<std::string> PluginFolders(const PluginSearch& search);

// The files that OpenTransport tries for this name, in order: the explicit path alone, or one per folder.
std::vector<std::string> PluginCandidates(const std::string& name, const PluginSearch& search);

}  // namespace gradferry
