// The plugin's section of the configuration ([transport.tensorpipe]): what it may hold, its defaults, and its reading.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

struct Options {
  std::string address = "uv://127.0.0.1:0";              // where listen("") listens
  std::vector<std::string> transports = {"uv"};          // of uv, shm, ibv
  std::vector<std::string> channels = {"basic", "cma"};  // of basic, cma, mpt, xth; sorted; basic is always there
  bool trusted_network = false;                          // may listen beyond loopback
};

// For the descriptor: JSON that describes the options.
extern const char kOptionsSchema[];

// Reads a JSON object. An unknown key, a wrong type or a value that is not allowed is GF_INVALID_ARGUMENT and named.
Status ParseOptions(std::string_view json, Options* out);

// "cma, uv": for texts.
std::string Join(const std::vector<std::string>& words, const char* separator);

}  // namespace gradferry::tp
