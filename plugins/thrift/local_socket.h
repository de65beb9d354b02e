// Listening at a path. Without one the socket gets a name of its own in a folder that only this user can enter. What a
// dead process has left behind is taken away, what lives is not.
#pragma once

#include <sys/types.h>

#include <string>

#include "plugins/thrift/address.h"
#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/status.h"

namespace gradferry::thrift {

class LocalSocket {
 public:
  LocalSocket() = default;
  LocalSocket(const LocalSocket&) = delete;
  LocalSocket& operator=(const LocalSocket&) = delete;
  // Takes the file away, if it is still the one that was made here.
  ~LocalSocket();

  // Sets address->path. GF_ALREADY_EXISTS when somebody listens there, or the file is none of a socket.
  Status Listen(Address* address, FileDescriptor* out);

 private:
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace gradferry::thrift
