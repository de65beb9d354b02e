// The end of a TCP connection from this side. A socket that is closed with unread bytes resets the connection, and the
// peer may lose what was sent last, such as the reason of the end. So it is read, and what comes thrown away, until the
// peer has closed too, for a moment at most.
#pragma once

#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/loop.h"

namespace gradferry::thrift {

// On the loop's thread. The socket's sending side has been shut down and nobody watches it.
void Linger(Loop* loop, FileDescriptor fd);

}  // namespace gradferry::thrift
