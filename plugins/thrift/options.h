// The plugin's section of the configuration ([transport.thrift]): what it may hold, its defaults, and its reading.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/thrift/status.h"

namespace gradferry::thrift {

struct Options {
  std::string address = "unix://";  // where listen("") listens
  std::string advertise;            // the IP that peers get instead of 0.0.0.0 or [::]
  bool insecure = false;            // plain TCP beyond loopback
  std::string ca;                   // files in PEM, for tls://
  std::string certificate;          // and those between it and the CA
  std::string key;
  std::string crl;                      // certificates that the CA has revoked
  std::vector<std::string> allow;       // workers that may connect by TLS; empty: all that the CA has named
  int64_t threads = 1;                  // for I/O
  int64_t connect_timeout_ms = 5000;    // until a dialled connection stands
  int64_t handshake_timeout_ms = 5000;  // until an accepted one has brought its first message whole
  int64_t keepalive_s = 15;             // TCP: silence until the system asks whether the peer is there; 0: never
};

// For the descriptor: JSON that describes the options.
extern const char kOptionsSchema[];

// Reads a JSON object. An unknown key, a wrong type or a value that is not allowed is GF_INVALID_ARGUMENT and named.
Status ParseOptions(std::string_view json, Options* out);

}  // namespace gradferry::thrift
