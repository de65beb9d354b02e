#include "plugins/thrift/options.h"

#include <nlohmann/json.hpp>

namespace gradferry::thrift {
namespace {

using Json = nlohmann::json;

Status Invalid(const std::string& key, const std::string& what) {
  return {GF_INVALID_ARGUMENT, "transport.thrift." + key + " " + what};
}

Status ReadBool(const Json& value, const std::string& key, bool* out) {
  if (!value.is_boolean()) return Invalid(key, std::string("must be a boolean, not a ") + value.type_name());
  *out = value.get<bool>();
  return {};
}

Status ReadString(const Json& value, const std::string& key, std::string* out) {
  if (!value.is_string()) return Invalid(key, std::string("must be a string, not a ") + value.type_name());
  *out = value.get<std::string>();
  if (out->find('\0') != std::string::npos) return Invalid(key, "must not hold a NUL");
  return {};
}

Status ReadInteger(const Json& value, const std::string& key, int64_t least, int64_t most, int64_t* out) {
  if (!value.is_number_integer()) return Invalid(key, std::string("must be an integer, not a ") + value.type_name());
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most)) {
    return Invalid(key, "is greater than " + std::to_string(most));
  }
  *out = value.get<int64_t>();
  if (*out < least) return Invalid(key, "is less than " + std::to_string(least));
  return {};
}

Status ReadStrings(const Json& value, const std::string& key, std::vector<std::string>* out) {
  if (!value.is_array()) return Invalid(key, std::string("must be an array of strings, not a ") + value.type_name());
  std::vector<std::string> words;
  for (const Json& element : value) {
    if (!element.is_string()) return Invalid(key, "must hold strings only");
    words.push_back(element.get<std::string>());
    if (words.back().empty()) return Invalid(key, "must not hold an empty string");
  }
  *out = std::move(words);
  return {};
}

Status ReadOption(const std::string& key, const Json& value, Options* out) {
  if (key == "address") return ReadString(value, key, &out->address);
  if (key == "advertise") return ReadString(value, key, &out->advertise);
  if (key == "insecure") return ReadBool(value, key, &out->insecure);
  if (key == "ca") return ReadString(value, key, &out->ca);
  if (key == "certificate") return ReadString(value, key, &out->certificate);
  if (key == "key") return ReadString(value, key, &out->key);
  if (key == "crl") return ReadString(value, key, &out->crl);
  if (key == "allow") return ReadStrings(value, key, &out->allow);
  if (key == "threads") return ReadInteger(value, key, 1, 64, &out->threads);
  if (key == "connect_timeout_ms") return ReadInteger(value, key, 1, 3600000, &out->connect_timeout_ms);
  if (key == "handshake_timeout_ms") return ReadInteger(value, key, 1, 3600000, &out->handshake_timeout_ms);
  if (key == "keepalive_s") return ReadInteger(value, key, 0, 32767, &out->keepalive_s);
  return Invalid(key,
                 "is not an option; there are address, advertise, allow, ca, certificate, connect_timeout_ms, crl, "
                 "handshake_timeout_ms, insecure, keepalive_s, key and threads");
}

}  // namespace

const char kOptionsSchema[] = R"({
  "address": {"type": "string", "default": "unix://",
    "help": "Where to listen unless told otherwise: unix:///PATH, tcp://IP:PORT or tls://IP:PORT. unix:// alone is a socket in a folder of the plugin's that only this user can enter; port 0 lets the system pick."},
  "advertise": {"type": "string", "default": "",
    "help": "The IP that peers are told when the listening address is 0.0.0.0 or [::]."},
  "insecure": {"type": "boolean", "default": false,
    "help": "Allows tcp:// beyond loopback, where everybody on the way can read and change what is sent. tls:// needs no such thing."},
  "ca": {"type": "string", "default": "",
    "help": "tls://: the file, in PEM, with the certificate of the authority that all workers trust."},
  "certificate": {"type": "string", "default": "",
    "help": "tls://: the file, in PEM, with this worker's certificate, and those between it and the authority."},
  "key": {"type": "string", "default": "",
    "help": "tls://: the file, in PEM, with the private key of the certificate."},
  "crl": {"type": "string", "default": "",
    "help": "tls://: a file, in PEM, with the authority's list of revoked certificates."},
  "allow": {"type": "array", "default": [],
    "help": "tls://: the names of the workers that may be peers; none: all whose certificate is the authority's."},
  "threads": {"type": "integer", "default": 1,
    "help": "Threads that read and write; connections are dealt out to them."},
  "connect_timeout_ms": {"type": "integer", "default": 5000,
    "help": "How long it may take until a connection that this worker makes stands."},
  "handshake_timeout_ms": {"type": "integer", "default": 5000,
    "help": "How long it may take until the first message of an accepted connection has come whole."},
  "keepalive_s": {"type": "integer", "default": 15,
    "help": "TCP: after how many seconds of silence the system asks whether the other machine is still there; 0: never."}
})";

Status ParseOptions(std::string_view json, Options* out) {
  Options options;
  if (json.empty()) json = "{}";
  try {
    const Json root = Json::parse(json.begin(), json.end());
    if (!root.is_object()) return {GF_INVALID_ARGUMENT, "transport.thrift must be an object"};
    for (const auto& [key, value] : root.items()) {
      if (Status status = ReadOption(key, value, &options); !status.ok()) return status;
    }
  } catch (const Json::exception& exception) {
    return {GF_INVALID_ARGUMENT, std::string("transport.thrift is not JSON: ") + exception.what()};
  }
  *out = std::move(options);
  return {};
}

}  // namespace gradferry::thrift
