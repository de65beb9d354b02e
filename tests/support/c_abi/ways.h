// The ways by which workers of a test reach each other: a transport, and how it is set up. "sim", "tensorpipe",
// "thrift_unix", "thrift_tcp", "thrift_tls".
#pragma once

#include <string>

#include "tests/support/c_abi/gf.h"

namespace gf {

// The transport of a way: "thrift".
std::string TransportOf(const std::string& way);

// Settings for a worker of this name: the transport, and for TLS a certificate, of an authority that all workers of the
// test share, those in processes of their own as well.
void UseWay(const Config& config, const std::string& way, const std::string& worker);

}  // namespace gf
