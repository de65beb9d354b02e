// A transport plugin, loaded and checked: what its descriptor says, and a function table without holes. Called by
// OpenTransport, and with descriptors of their own by tests. Plugins are loaded once per process and file and stay.
#pragma once

#include <memory>
#include <string>

#include "gradferry/transport.h"
#include "impl/base/status.h"

namespace gradferry {

struct Plugin {
  std::string path;
  std::string name;
  std::string version;
  std::string vendor;
  std::string options_schema;
  uint32_t minor = 0;
  uint32_t capabilities = 0;
  uint64_t max_header = 0;
  uint64_t chunk = 0;
  gf_transport_vtable vtable{};  // every slot is set: a stub where the plugin has none and may have none
};

// Checks a descriptor as the plugin's entry returned it, and copies it. Refuses another epoch, and missing slots, each
// by name. Slots that this host does not know are left out, slots that an older plugin does not know are missing.
Result<Plugin> CheckDescriptor(const gf_transport_descriptor* descriptor, const std::string& path);

// Loads a file, or finds it loaded, and checks that it calls itself `name`. The messages do not repeat the path. Other
// threads that ask for the same file meanwhile wait.
Result<std::shared_ptr<const Plugin>> LoadPlugin(const std::string& path, const std::string& name);

// What a function of the plugin `name` reported by its code and, where it filled it, the error. Never OK. error may be
// null.
Status StatusFromPlugin(const std::string& name, int32_t code, const gf_transport_error* error);

}  // namespace gradferry
