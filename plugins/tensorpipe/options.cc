#include "plugins/tensorpipe/options.h"

#include <algorithm>
#include <nlohmann/json.hpp>

namespace gradferry::tp {
namespace {

using Json = nlohmann::json;

const std::vector<std::string> kTransports = {"uv", "shm", "ibv"};
const std::vector<std::string> kChannels = {"basic", "cma", "mpt", "xth"};

Status Invalid(const std::string& key, const std::string& what) {
  return {GF_INVALID_ARGUMENT, "transport.tensorpipe." + key + " " + what};
}

Status ReadBool(const Json& value, const std::string& key, bool* out) {
  if (!value.is_boolean()) return Invalid(key, std::string("must be a boolean, not a ") + value.type_name());
  *out = value.get<bool>();
  return {};
}

Status ReadString(const Json& value, const std::string& key, std::string* out) {
  if (!value.is_string()) return Invalid(key, std::string("must be a string, not a ") + value.type_name());
  *out = value.get<std::string>();
  return {};
}

// An array of distinct words out of allowed.
Status ReadWords(const Json& value, const std::string& key, const std::vector<std::string>& allowed,
                 std::vector<std::string>* out) {
  if (!value.is_array()) return Invalid(key, std::string("must be an array of strings, not a ") + value.type_name());
  std::vector<std::string> words;
  for (const Json& element : value) {
    if (!element.is_string()) return Invalid(key, "must hold strings only");
    const std::string word = element.get<std::string>();
    if (std::find(allowed.begin(), allowed.end(), word) == allowed.end()) {
      return Invalid(key, "names \"" + word + "\"; allowed are " + Join(allowed, ", "));
    }
    if (std::find(words.begin(), words.end(), word) != words.end()) return Invalid(key, "names " + word + " twice");
    words.push_back(word);
  }
  *out = std::move(words);
  return {};
}

Status ReadOption(const std::string& key, const Json& value, Options* out) {
  if (key == "address") return ReadString(value, key, &out->address);
  if (key == "transports") return ReadWords(value, key, kTransports, &out->transports);
  if (key == "channels") return ReadWords(value, key, kChannels, &out->channels);
  if (key == "trusted_network") return ReadBool(value, key, &out->trusted_network);
  return Invalid(key, "is not an option; there are address, channels, transports and trusted_network");
}

}  // namespace

const char kOptionsSchema[] = R"({
  "address": {"type": "string", "default": "uv://127.0.0.1:0",
    "help": "Where to listen unless told otherwise: uv://IP:PORT, shm://NAME or ibv://IP:PORT; port 0 and an empty name let the system pick. The IP is that of one interface, since peers connect back to it."},
  "transports": {"type": "array", "default": ["uv"],
    "help": "Out of uv (TCP), shm (shared memory; keeps half a core busy in every process), ibv (InfiniBand)."},
  "channels": {"type": "array", "default": ["cma", "basic"],
    "help": "How large segments travel: cma (the receiver reads the sender's memory, where both processes of one machine may; tried for each peer and direction, the others are taken where it does not work), and TensorPipe's own, which must be the same on every worker: xth (within a process), mpt (several TCP streams), basic (always there)."},
  "trusted_network": {"type": "boolean", "default": false,
    "help": "Allows listening beyond loopback. Whoever can reach the port can make this process abort."}
})";

Status ParseOptions(std::string_view json, Options* out) {
  Options options;
  if (json.empty()) json = "{}";
  try {
    const Json root = Json::parse(json.begin(), json.end());
    if (!root.is_object()) return {GF_INVALID_ARGUMENT, "transport.tensorpipe must be an object"};
    for (const auto& [key, value] : root.items()) {
      if (Status status = ReadOption(key, value, &options); !status.ok()) return status;
    }
  } catch (const Json::exception& exception) {
    return {GF_INVALID_ARGUMENT, std::string("transport.tensorpipe is not JSON: ") + exception.what()};
  }
  if (options.transports.empty()) return Invalid("transports", "must not be empty");
  // The other channels do not reach every peer, and a tensor without a channel makes TensorPipe abort the process.
  if (std::find(options.channels.begin(), options.channels.end(), "basic") == options.channels.end()) {
    options.channels.push_back("basic");
  }
  std::sort(options.channels.begin(), options.channels.end());
  *out = std::move(options);
  return {};
}

std::string Join(const std::vector<std::string>& words, const char* separator) {
  std::string text;
  for (const std::string& word : words) {
    if (!text.empty()) text += separator;
    text += word;
  }
  return text;
}

}  // namespace gradferry::tp
