// The plugin's file: what can be read of it without loading, and loading it. It is loaded once in a process.
#pragma once

#include <string>
#include <vector>

#include "gradferry/transport.h"

namespace gradferry::check {

struct FileFacts {
  std::string error;  // why it is no shared object that can be read; empty: it is
  bool has_note = false;
  uint32_t epoch = 0;
  uint32_t minor = 0;
  std::vector<std::string> exports;
  std::vector<std::string> needs;  // other libraries
};

FileFacts ReadPluginFile(const std::string& path);

// Its entry; null with error set.
gf_transport_entry LoadEntry(const std::string& path, std::string* error);

// The descriptor that the entry returns to a host of ours; null with error set.
const gf_transport_descriptor* Enter(gf_transport_entry entry, std::string* error);

// The functions as far as the plugin knows them; the rest is null.
gf_transport_vtable VtableOf(const gf_transport_descriptor& descriptor);

}  // namespace gradferry::check
