// A Transport over one instance of a loaded plugin. Made by OpenTransport; by tests also over function tables of their
// own.
#pragma once

#include <memory>
#include <string>

#include "impl/base/status.h"
#include "impl/transport/plugin.h"
#include "impl/transport/transport.h"

namespace gradferry {

// options and events as for OpenTransport.
Result<std::unique_ptr<Transport>> NewPluginTransport(std::shared_ptr<const Plugin> plugin, const std::string& options,
                                                      TransportEvents* events);

}  // namespace gradferry
