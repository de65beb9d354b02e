// The ELF note by which a shared object says that it is a transport plugin, and of which epoch. Read before the file is
// loaded, because loading runs its constructors. Called by the plugin loader. The file is not trusted: whatever its
// bytes are, the answer is a note or an error.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

#include "impl/base/status.h"

namespace gradferry {

// What identifies a file however it was named: one that is mapped keeps its inode from being used again.
struct FileId {
  dev_t device = 0;
  ino_t inode = 0;
  bool operator<(const FileId& other) const {
    return device != other.device ? device < other.device : inode < other.inode;
  }
};

struct PluginNote {
  uint32_t epoch = 0;
  uint32_t minor = 0;
  FileId file;
};

// kNotFound when there is no such file, kPermissionDenied when it may not be read, kInvalidArgument when it is no
// shared object for this machine's word size and byte order, is cut off, or carries no note of ours. The messages do
// not repeat the path.
Result<PluginNote> ReadPluginNote(const std::string& path);

}  // namespace gradferry
