// See config.h. The table first, then the checks that each value passes on its way in, then the class.
#include "impl/base/config.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <set>
#include <stdexcept>
#include <thread>

#include "impl/base/log.h"
#include "impl/base/nearest.h"
#include "impl/base/toml_text.h"

namespace gradferry {

using nlohmann::json;

const std::vector<ConfigKey>& ConfigKeys() {
  constexpr auto kString = ConfigType::kString;
  constexpr auto kInteger = ConfigType::kInteger;
  constexpr auto kBoolean = ConfigType::kBoolean;
  constexpr auto kDuration = ConfigType::kDuration;
  constexpr auto kStrings = ConfigType::kStrings;
  constexpr auto kNames = ConfigType::kNames;
  constexpr auto kPeers = ConfigType::kPeers;
  constexpr int64_t kAny = INT64_MAX;
  constexpr int64_t kLastId = 32767;
  static const auto* const keys = new std::vector<ConfigKey>{
      {"worker.name", kString, "", "`worker<RANK>` with a rendezvous", 0, 0, false,
       "The worker's name in the group: 1 to 127 of `A-Z a-z 0-9 _ : . -`. Required without a rendezvous."},
      {"worker.id", kInteger, "-1", "", -1, kLastId, false,
       "The worker's number in the group. -1: the rank of the rendezvous, or the id that `group.peers` gives its "
       "name."},
      {"worker.threads", kInteger, "", "number of cores", 1, 1024, false,
       "Threads that run handlers, operators and backward passes. One is enough for any nesting of calls."},
      {"worker.listen", kString, "", "the transport's own", 0, 0, false,
       "Where to listen, as the transport writes addresses; with several transports `name=address` for each that shall "
       "not listen at its default, with a blank between them."},

      {"group.name", kString, "default", "", 0, 0, false,
       "Workers of different groups refuse each other: 1 to 127 of `A-Z a-z 0-9 _ : . -`."},
      {"group.peers", kPeers, "", "none", 0, 0, false,
       "The members: an array of `{ id = 0, name = \"trainer\", address = \"...\" }`. A member whose address is not "
       "known "
       "yet has none; this worker itself may be among them."},
      {"group.rendezvous", kString, "", "none", 0, 0, false,
       "Where the members find each other: `env` (`MASTER_ADDR`, `MASTER_PORT`, `RANK`, `WORLD_SIZE`, as torchrun sets "
       "them), `tcp://host:port`, or `file:///path` of a file that all of them reach."},
      {"group.rank", kInteger, "-1", "", -1, kLastId, false,
       "This worker's number in the rendezvous. -1: `RANK` of the environment."},
      {"group.world_size", kInteger, "-1", "", -1, kLastId + 1, false,
       "How many workers meet in the rendezvous. -1: `WORLD_SIZE` of the environment."},
      {"group.join_timeout", kDuration, "60s", "", 0, 0, false,
       "How long opening a worker waits for the addresses of the others."},

      {"transport.name", kNames, "tensorpipe", "", 0, 0, false,
       "The transport, or an array of them in the order of preference: the worker listens on each, and connects to a "
       "peer "
       "by the first that the peer has, too."},
      {"transport.plugin", kString, "", "searched for", 0, 0, false,
       "The transport's plugin file. When it is set no other place is tried."},
      {"transport.plugin_path", kStrings, "", "none", 0, 0, false,
       "Folders to look for plugins in, before the usual places."},
      {"transport.checksum", kString, "header", "", 0, 0, false,
       "What of the frames that this worker sends is covered by a checksum: `header`, all but the elements of tensors, "
       "or "
       "`all`. A receiver checks what is covered."},

      {"transport.chunk_bytes", kInteger, "0", "", 0, kAny, false,
       "Bytes of tensors that are sent to a peer at a time, so that other messages get in between. 0: what the "
       "transport prefers, else 1 MiB."},

      {"call.timeout", kDuration, "60s", "", 0, 0, false, "Deadline of calls that are made without one."},
      {"call.when_full", kString, "wait", "", 0, 0, false,
       "What a call does when a window (`limits.calls_per_peer` and the three after it, or the peer's own) is full: "
       "`wait` for room until its deadline, or `fail` with RESOURCE_EXHAUSTED."},
      {"backward.timeout", kDuration, "300s", "", 0, 0, false,
       "Deadline of backward passes that are started without one, on all workers together."},

      {"liveness.interval", kDuration, "1s", "", 0, 0, false,
       "How long a worker that others wait for may be silent before it is asked for a sign of life. `none`: nobody is "
       "asked, and silence is no loss."},
      {"liveness.suspect", kDuration, "2s", "", 0, 0, false,
       "How long it may be silent before a warning is logged and `gf_worker_info` shows it as suspect. Longer than "
       "`liveness.interval`."},
      {"liveness.lost", kDuration, "4s", "", 0, 0, false,
       "How long it may be silent before it is given up: its connection is closed, and what waits for it fails with "
       "PEER_LOST. Longer than `liveness.suspect`; `none`: never."},
      {"liveness.introduction", kDuration, "5s", "", 0, 0, false,
       "How long a new connection may take until the other side has introduced itself."},
      {"liveness.lease", kDuration, "10s", "", 0, 0, false,
       "How often a worker asks whether the contexts of others that it takes part in still live. `none`: only when a "
       "connection was lost; the default with a virtual time."},
      {"liveness.cleanup_budget", kDuration, "10s", "", 0, 0, false,
       "How long a worker tries to tell another that a context was released."},

      {"security.operators", kStrings, "", "built-in list", 0, 0, false,
       "The operators that peers may call, instead of the built-in list."},
      {"security.operators_extra", kStrings, "", "none", 0, 0, false,
       "Operators that peers may call besides that list."},
      {"security.secret", kString, "", "none", 0, 0, true,
       "The group's secret, the same on all workers: who does not prove that he knows it is refused. At least 16 "
       "bytes; `openssl rand -hex 32` makes a good one. See [protocol.md](protocol.md#proof) for what it protects."},
      {"security.secret_file", kString, "", "none", 0, 0, false,
       "A file with the secret, instead of `security.secret`. Only its owner may have rights to it."},

      {"protocol.min", kInteger, "1", "", 1, 2, false,
       "The oldest version of the protocol that this worker speaks. With a secret version 1 is never spoken, which "
       "knows no proof."},
      {"protocol.max", kInteger, "2", "", 1, 2, false,
       "The newest version of the protocol that this worker speaks: to pin a group while its workers are upgraded one "
       "by one."},

      {"limits.message_bytes", kInteger, "17179869184", "", 1, kAny, false,
       "Bytes of one message from a peer, its tensors included."},
      {"limits.header_bytes", kInteger, "16777216", "", 1, kAny, false,
       "Bytes of one message without the tensors that travel beside it. The transport's own limit, 1 MiB, holds as "
       "well."},
      {"limits.tensors", kInteger, "100000", "", 1, UINT32_MAX, false, "Tensors of one message."},
      {"limits.values", kInteger, "1000000", "", 1, UINT32_MAX, false, "Values of one message, nested ones included."},
      {"limits.nesting", kInteger, "16", "", 1, 64, false, "Depth of lists within lists."},
      {"limits.dims", kInteger, "64", "", 1, 64, false, "Dimensions of one tensor."},
      {"limits.name_bytes", kInteger, "255", "", 127, 65535, false,
       "Bytes of one name: of workers, groups, handlers and operators."},
      {"limits.profile_events", kInteger, "10000", "", 1, 1000000, false,
       "Events of the profile of one call, those of the calls made for it included; later ones are counted only."},
      {"limits.calls_per_peer", kInteger, "65536", "", 1, kAny, false,
       "Calls to one peer that are not answered yet; for more see `call.when_full`. The peer's `limits.requests` holds "
       "as well."},
      {"limits.bytes_per_peer", kInteger, "17179869184", "", 1, kAny, false,
       "Bytes of tensors of calls to one peer that are not answered yet. A call that is larger goes when it is alone. "
       "Half of the peer's `limits.memory_per_peer` holds as well."},
      {"limits.calls", kInteger, "262144", "", 1, kAny, false,
       "Calls to all peers together that are not answered yet."},
      {"limits.bytes", kInteger, "68719476736", "", 1, kAny, false,
       "Bytes of tensors of calls to all peers together that are not answered yet."},
      {"limits.memory_per_peer", kInteger, "34359738368", "", 65536, kAny / 4, false,
       "Bytes that one peer can make this worker hold: of messages that are arriving, of requests that are not "
       "answered, and of replies that it has not taken. A message beyond that closes the connection."},
      {"limits.pending_connections", kInteger, "64", "", 1, 65536, false,
       "Connections from peers that have not introduced themselves; with one more the oldest of them is closed."},
      {"limits.requests", kInteger, "65536", "", 1, kAny, false,
       "Requests from peers that are not answered yet; one more is answered with RESOURCE_EXHAUSTED."},

      {"logging.file", kString, "", "nowhere", 0, 0, false,
       "Where the library writes its log: the path of a file, which grows, or `stderr`. It is one for the whole "
       "process, "
       "besides what `gf_log_set` gets."},
      {"logging.level", kString, "info", "", 0, 0, false,
       "The least that is written there: `debug`, `info`, `warning` or `error`."},

      {"metrics.listen", kString, "", "nowhere", 0, 0, false,
       "`IP:port` where the metrics of the worker can be read by HTTP (`GET /metrics`), in Prometheus's text format. "
       "Port "
       "0 lets the system pick; the log and `gf_worker_info` tell the address."},
      {"metrics.insecure", kBoolean, "false", "", 0, 0, false,
       "Allows `metrics.listen` beyond loopback, where anybody can read who calls whom, and how often."},
  };
  return *keys;
}

namespace {

constexpr std::string_view kTransport = "transport.";
constexpr std::string_view kVariablePrefix = "GRADFERRY_";

const ConfigKey* FindKey(std::string_view name) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (key.name == name) return &key;
  }
  return nullptr;
}

std::vector<std::string> KeyNames() {
  std::vector<std::string> names;
  for (const ConfigKey& key : ConfigKeys()) names.emplace_back(key.name);
  return names;
}

bool IsName(std::string_view text, size_t longest, std::string_view more) {
  if (text.empty() || text.size() > longest) return false;
  return std::all_of(text.begin(), text.end(), [&](char c) {
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    return letter || more.find(c) != std::string_view::npos;
  });
}

bool IsWorkerName(std::string_view text) { return IsName(text, 127, "_:.-"); }

// "transport.sim.seed": a key of a transport's own section, which only the plugin can judge.
bool IsTransportOption(std::string_view key) {
  if (key.substr(0, kTransport.size()) != kTransport) return false;
  std::string_view rest = key.substr(kTransport.size());
  size_t dot = rest.find('.');
  if (dot == std::string_view::npos || dot + 1 == rest.size()) return false;
  std::string_view section = rest.substr(0, dot);
  return IsName(section, 63, "_-") && FindKey(StrCat(kTransport, section)) == nullptr;
}

Status UnknownKey(std::string_view key) {
  return InvalidArgument(StrCat("unknown key ", key, DidYouMean(key, KeyNames())));
}

// ---- Checks: each says what is wanted, in half a sentence, or returns "" when the value will do. --------------------

std::string CheckString(std::string_view key, const json& value) {
  if (!value.is_string()) return "a string";
  const auto& text = value.get_ref<const std::string&>();
  if (text.find('\0') != std::string::npos) return "a string without NUL characters";
  if (key == "logging.level") return ParseLogLevel(text) ? "" : "\"debug\", \"info\", \"warning\" or \"error\"";
  if (key == "call.when_full") return text == "wait" || text == "fail" ? "" : "\"wait\" or \"fail\"";
  if (key == "transport.checksum") return text == "header" || text == "all" ? "" : "\"header\" or \"all\"";
  if (text.empty()) return key != "group.name" ? "" : "a string that is not empty";
  if (key == "worker.name" || key == "group.name") {
    return IsWorkerName(text) ? "" : "1 to 127 characters of A-Z a-z 0-9 _ : . -";
  }
  if (key == "group.rendezvous") {
    bool file = text.rfind("file:///", 0) == 0 && text.size() > strlen("file:///");
    size_t colon = text.rfind(':');
    bool tcp = text.rfind("tcp://", 0) == 0 && colon > strlen("tcp://") && IsName(text.substr(colon + 1), 5, "");
    return text == "env" || file || tcp ? "" : "\"env\", \"tcp://host:port\" or \"file:///path\"";
  }
  return "";
}

std::string CheckInteger(const ConfigKey& key, const json& value) {
  std::string wanted = key.max == INT64_MAX ? StrCat("an integer of at least ", key.min)
                                            : StrCat("an integer from ", key.min, " to ", key.max);
  if (!value.is_number_integer()) return wanted;
  int64_t number = value.get<int64_t>();
  return number < key.min || number > key.max ? wanted : "";
}

std::string CheckStrings(const json& value) {
  bool good = value.is_array() && std::all_of(value.begin(), value.end(), [](const json& v) { return v.is_string(); });
  return good ? "" : "an array of strings, as in [\"one\", \"two\"]";
}

// One name, or an array of different ones.
std::string CheckNames(const json& value) {
  constexpr const char* kForm = "a name of 1 to 63 characters of A-Z a-z 0-9 _ -, or an array of different ones";
  auto is_name = [](const json& v) { return v.is_string() && IsName(v.get_ref<const std::string&>(), 63, "_-"); };
  if (!value.is_array()) return is_name(value) ? "" : kForm;
  std::set<json> different(value.begin(), value.end());
  bool good = !value.empty() && different.size() == value.size() && std::all_of(value.begin(), value.end(), is_name);
  return good ? "" : kForm;
}

constexpr char kPeersForm[] = "an array of { id = 0, name = \"trainer\", address = \"...\" }";

std::string CheckPeer(const json& peer) {
  constexpr const char* kForm = kPeersForm;
  if (!peer.is_object()) return kForm;
  for (const auto& [field, value] : peer.items()) {
    if (field != "id" && field != "name" && field != "address") {
      return StrCat(kForm, ", without ", field, DidYouMean(field, {"id", "name", "address"}));
    }
  }
  auto id = peer.find("id");
  auto name = peer.find("name");
  if (id == peer.end() || name == peer.end()) return StrCat(kForm, ", each with id and name");
  if (!id->is_number_integer() || *id < 0 || *id > 32767) return StrCat(kForm, ", each id an integer from 0 to 32767");
  if (!name->is_string() || !IsWorkerName(name->get_ref<const std::string&>())) {
    return StrCat(kForm, ", each name 1 to 127 characters of A-Z a-z 0-9 _ : . -");
  }
  auto address = peer.find("address");
  if (address != peer.end() && !address->is_string()) return StrCat(kForm, ", each address a string");
  return "";
}

std::string CheckPeers(const json& value) {
  if (!value.is_array()) return kPeersForm;
  std::set<int64_t> ids;
  std::set<std::string> names;
  for (const json& peer : value) {
    std::string wanted = CheckPeer(peer);
    if (!wanted.empty()) return wanted;
    if (!ids.insert(peer["id"].get<int64_t>()).second)
      return StrCat("each id once, id ", peer["id"], " is there twice");
    if (!names.insert(peer["name"]).second) return StrCat("each name once, name ", peer["name"], " is there twice");
  }
  return "";
}

std::string CheckValue(const ConfigKey& key, const json& value) {
  switch (key.type) {
    case ConfigType::kString:
      return CheckString(key.name, value);
    case ConfigType::kInteger:
      return CheckInteger(key, value);
    case ConfigType::kBoolean:
      return value.is_boolean() ? "" : "true or false";
    case ConfigType::kStrings:
      return CheckStrings(value);
    case ConfigType::kNames:
      return CheckNames(value);
    case ConfigType::kPeers:
      return CheckPeers(value);
    case ConfigType::kDuration: {
      constexpr char kForm[] = "a duration, as in \"30s\" or \"250ms\" (\"none\" is no limit)";
      if (!value.is_string()) return kForm;
      Result<int64_t> duration = ParseDuration(value.get_ref<const std::string&>());
      return duration.ok() ? "" : StrCat(kForm, ", ", duration.status().message());
    }
  }
  return "";
}

// Checks one value of any place and adds it to *values.
template <class Values>
Status AddValue(const std::string& key, json value, Values* values) {
  if (IsTransportOption(key)) {
    // Taken apart, so that a later place can override one key of a table.
    if (value.is_object() && !value.empty()) {
      for (auto& [name, inner] : value.items()) GF_RETURN_IF_ERROR(AddValue(StrCat(key, ".", name), inner, values));
      return OkStatus();
    }
    (*values)[key] = std::move(value);
    return OkStatus();
  }
  const ConfigKey* known = FindKey(key);
  if (known == nullptr) return UnknownKey(key);
  std::string wanted = CheckValue(*known, value);
  if (!wanted.empty()) {
    return InvalidArgument(
        StrCat(key, " wants ", wanted, "; got ", known->secret ? "something else" : DescribeTomlValue(value)));
  }
  (*values)[key] = std::move(value);
  return OkStatus();
}

// The value that a text without type stands for (Set, the environment).
Result<json> ReadText(const std::string& key, std::string_view text) {
  const ConfigKey* known = FindKey(key);
  bool names = known != nullptr && known->type == ConfigType::kNames;
  bool takes_bare_text =
      known == nullptr || names || known->type == ConfigType::kString || known->type == ConfigType::kDuration;
  bool typed_string = known != nullptr && takes_bare_text;
  bool quoted = !text.empty() && (text.front() == '"' || text.front() == '\'' || (names && text.front() == '['));
  // A worker may be named 42: for a string only quotes make TOML of the text.
  if (typed_string && !quoted) return json(std::string(text));
  Result<json> value = ParseTomlValue(text);
  if (value.ok()) return value;
  if (takes_bare_text) return json(std::string(text));
  return InvalidArgument(StrCat(key, " wants a value as in TOML; got ", DescribeTomlValue(std::string(text)), ": ",
                                value.status().message()));
}

template <class Values>
Status AddText(const std::string& key, std::string_view text, Values* values) {
  if (FindKey(key) == nullptr && !IsTransportOption(key)) return UnknownKey(key);
  GF_ASSIGN_OR_RETURN(json value, ReadText(key, text));
  return AddValue(key, std::move(value), values);
}

// ---- The environment ----------------------------------------------------------------------------------------------

std::string Upper(std::string_view text) {
  std::string upper(text);
  for (char& c : upper) {
    if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  }
  return upper;
}

std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return lower;
}

std::string VariableOf(std::string_view key) {
  std::string name = StrCat(kVariablePrefix, Upper(key));
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

// Variables that are read elsewhere: by the plugin search, the bindings, the programs, and the build, which people
// often have in the same environment.
bool IsReserved(std::string_view name) {
  static constexpr std::string_view kNames[] = {"GRADFERRY_PLUGIN_PATH", "GRADFERRY_LIBRARY",   "GRADFERRY_OUTPUT_BASE",
                                                "GRADFERRY_DISK_CACHE",  "GRADFERRY_PLATFORMS", "GRADFERRY_SKYLIB"};
  static constexpr std::string_view kPrefixes[] = {
      "GRADFERRY_LOG",           "GRADFERRY_DEMO_", "GRADFERRY_TORCH",   "GRADFERRY_TENSORPIPE",
      "GRADFERRY_THRIFT",        "GRADFERRY_GTEST", "GRADFERRY_OPENSSL", "GRADFERRY_TOMLPLUSPLUS",
      "GRADFERRY_NLOHMANN_JSON", "GRADFERRY_CLI11", "GRADFERRY_RULES_"};
  auto is_name = [&](std::string_view reserved) { return name == reserved; };
  auto has_prefix = [&](std::string_view prefix) { return name.substr(0, prefix.size()) == prefix; };
  return std::any_of(std::begin(kNames), std::end(kNames), is_name) ||
         std::any_of(std::begin(kPrefixes), std::end(kPrefixes), has_prefix);
}

// GRADFERRY_TRANSPORT_SIM_SEED is transport.sim.seed; "" when the name is of another form. The section is one word,
// unless it is that of a transport in use, whose name may have underscores.
std::string TransportOptionOf(std::string_view variable, const std::vector<std::string>& transports) {
  std::string prefix = VariableOf(kTransport);
  if (variable.substr(0, prefix.size()) != prefix) return "";
  std::string_view rest = variable.substr(prefix.size());
  size_t length = rest.find('_');
  if (length == std::string_view::npos) return "";
  std::string section = Lower(rest.substr(0, length));
  for (const std::string& transport : transports) {
    std::string in_use = Upper(transport) + "_";
    if (rest.substr(0, in_use.size()) != in_use) continue;
    section = transport;
    length = transport.size();
    break;
  }
  std::string key = StrCat(kTransport, section, ".", Lower(rest.substr(length + 1)));
  return IsTransportOption(key) ? key : "";
}

std::string KnownKeyOf(std::string_view variable) {
  for (const ConfigKey& key : ConfigKeys()) {
    if (VariableOf(key.name) == variable) return key.name;
  }
  return "";
}

std::vector<std::string> VariableNames() {
  std::vector<std::string> names;
  for (const ConfigKey& key : ConfigKeys()) names.push_back(VariableOf(key.name));
  return names;
}

// Puts the name of a place before an error.
Status At(std::string_view place, const Status& status) {
  return status.ok() ? status : Status(status.code(), StrCat(place, status.message()));
}

// ---- Defaults ------------------------------------------------------------------------------------------------------

json DefaultOf(const ConfigKey& key) {
  std::string_view text = key.default_text;
  switch (key.type) {
    case ConfigType::kString:
    case ConfigType::kDuration:
    case ConfigType::kNames:
      return std::string(text);
    case ConfigType::kStrings:
    case ConfigType::kPeers:
      return json::array();
    case ConfigType::kBoolean:
      return text == "true";
    case ConfigType::kInteger:
      break;
  }
  if (!text.empty()) return std::stoll(key.default_text);
  // worker.threads; hardware_concurrency may not know.
  int64_t cores = std::thread::hardware_concurrency();
  return std::clamp(cores, key.min, key.max);
}

const json& Default(std::string_view key) {
  static const auto* const defaults = [] {
    auto* values = new std::map<std::string, json, std::less<>>;
    for (const ConfigKey& known : ConfigKeys()) (*values)[known.name] = DefaultOf(known);
    return values;
  }();
  return defaults->find(key)->second;
}

Result<std::string> ReadFile(const std::string& path) {
  auto failure = [&] {
    return NotFound(StrCat("the configuration file ", path, " cannot be read: ", strerror(errno)));
  };
  FILE* file = std::fopen(path.c_str(), "rbe");
  if (file == nullptr) return failure();
  std::string text;
  char block[4096];
  size_t length;
  while ((length = std::fread(block, 1, sizeof(block), file)) > 0) text.append(block, length);
  // A folder opens, and shows only here that it is none.
  bool failed = std::ferror(file) != 0;
  Status status = failed ? failure() : OkStatus();
  std::fclose(file);
  if (failed) return status;
  return text;
}

const char* FromName(Config::From from) {
  switch (from) {
    case Config::From::kDefault:
      return "default";
    case Config::From::kFile:
      return "file";
    case Config::From::kEnvironment:
      return "environment";
    case Config::From::kCall:
      return "call";
  }
  return "default";
}

// Options of plugins that were not asked which of theirs are secret: these names tell.
bool SoundsSecret(std::string_view key) {
  std::string name = Lower(key);
  for (const char* word : {"secret", "password", "passphrase", "token"}) {
    if (name.find(word) != std::string::npos) return true;
  }
  return false;
}

const char* TypeName(ConfigType type) {
  switch (type) {
    case ConfigType::kString:
      return "string";
    case ConfigType::kInteger:
      return "integer";
    case ConfigType::kBoolean:
      return "boolean";
    case ConfigType::kDuration:
      return "duration";
    case ConfigType::kStrings:
      return "array of strings";
    case ConfigType::kNames:
      return "string or array of strings";
    case ConfigType::kPeers:
      return "array of tables";
  }
  return "";
}

}  // namespace

std::string ConfigReference() {
  std::string text = "| Key | Type | Default | Meaning |\n|---|---|---|---|\n";
  for (const ConfigKey& key : ConfigKeys()) {
    std::string fallback = *key.default_text != '\0' ? StrCat("`", key.default_text, "`") : key.default_note;
    text += StrCat("| `", key.name, "` | ", TypeName(key.type), " | ", fallback, " | ", key.help, " |\n");
  }
  return text;
}

Result<int64_t> ParseDuration(std::string_view text) {
  struct Unit {
    std::string_view name;
    double ns;
  };
  // Longer names before their endings.
  static constexpr Unit kUnits[] = {{"ns", 1}, {"us", 1e3}, {"ms", 1e6}, {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};
  if (text == "none") return kNever;
  for (const Unit& unit : kUnits) {
    if (text.size() <= unit.name.size() || text.substr(text.size() - unit.name.size()) != unit.name) continue;
    std::string_view number = text.substr(0, text.size() - unit.name.size());
    size_t dots = std::count(number.begin(), number.end(), '.');
    bool digits = number.find_first_not_of("0123456789.") == std::string_view::npos;
    if (!digits || dots > 1 || number.front() == '.' || number.back() == '.' || number.size() > 18) break;
    // strtod would follow the program's locale.
    double value = 0;
    double scale = 1;
    bool fraction = false;
    for (char c : number) {
      if (c == '.') {
        fraction = true;
        continue;
      }
      value = value * 10 + (c - '0');
      if (fraction) scale *= 10;
    }
    double ns = std::round(value / scale * unit.ns);
    if (ns < 1) return InvalidArgument("more than 0");
    if (ns >= 9e18) return InvalidArgument("less than 292 years");
    return static_cast<int64_t>(ns);
  }
  return InvalidArgument("a number with a unit of ns, us, ms, s, m, h");
}

Status Config::LoadText(std::string_view toml) { return LoadNamedText(toml, ""); }

Status Config::LoadFile(const std::string& path) {
  GF_ASSIGN_OR_RETURN(std::string text, ReadFile(path));
  return LoadNamedText(text, path);
}

Status Config::LoadNamedText(std::string_view toml, std::string_view name) {
  GF_ASSIGN_OR_RETURN(std::vector<TomlLeaf> leaves, ParseToml(toml, name));
  Values added;
  std::map<std::string, std::string> places;
  for (TomlLeaf& leaf : leaves) {
    std::string key;
    for (const std::string& part : leaf.path) key += StrCat(key.empty() ? "" : ".", part);
    // An empty section says nothing, but its name may be wrong.
    bool empty_section = leaf.value.is_object();
    std::string inside = key + ".x";
    bool known_section = IsTransportOption(inside);
    for (const ConfigKey& known : ConfigKeys()) {
      known_section = known_section || std::string_view(known.name).substr(0, key.size() + 1) == key + ".";
    }
    if (empty_section && known_section) continue;
    Values one;  // or more, of a table
    const std::string place = TomlPlace(name, leaf.line);
    GF_RETURN_IF_ERROR(At(place, AddValue(key, std::move(leaf.value), &one)));
    for (auto& [added_key, value] : one) {
      added[added_key] = std::move(value);
      places[added_key] = place.substr(0, place.rfind(": "));
    }
  }
  for (auto& [key, value] : added) file_[key] = std::move(value);
  for (auto& [key, place] : places) file_places_[key] = std::move(place);
  return OkStatus();
}

Status Config::Set(std::string_view key, std::string_view text) {
  Values added;
  GF_RETURN_IF_ERROR(AddText(std::string(key), text, &added));
  for (auto& [name, value] : added) call_[name] = std::move(value);
  return OkStatus();
}

Status Config::ApplyEnvironment() {
  std::vector<std::string> variables;
  for (char** variable = environ; variable != nullptr && *variable != nullptr; ++variable) {
    if (std::strncmp(*variable, kVariablePrefix.data(), kVariablePrefix.size()) == 0) variables.emplace_back(*variable);
  }
  return ApplyEnvironment(variables);
}

Status Config::ApplyEnvironment(const std::vector<std::string>& variables) {
  Values read;
  decltype(environment_places_) places;
  std::vector<std::pair<std::string, std::string>> others;
  for (const std::string& variable : variables) {
    size_t equals = variable.find('=');
    if (equals == std::string::npos || variable.compare(0, kVariablePrefix.size(), kVariablePrefix) != 0) continue;
    std::string name = variable.substr(0, equals);
    std::string text = variable.substr(equals + 1);
    std::string key = KnownKeyOf(name);
    if (text.empty() || (key.empty() && IsReserved(name))) continue;
    if (key.empty()) {
      others.emplace_back(std::move(name), std::move(text));
      continue;
    }
    GF_RETURN_IF_ERROR(At(name + ": ", AddText(key, text, &read)));
    places[key] = name;
  }
  // Which transport is in use may itself be said by the environment.
  std::swap(environment_, read);
  std::vector<std::string> transports = GetNames("transport.name");
  std::swap(environment_, read);
  for (const auto& [name, text] : others) {
    std::string key = TransportOptionOf(name, transports);
    if (key.empty()) {
      return InvalidArgument(StrCat("the environment has ", name, ", which is no setting of Gradferry's",
                                    DidYouMean(name, VariableNames())));
    }
    Values one;
    GF_RETURN_IF_ERROR(At(name + ": ", AddText(key, text, &one)));
    for (auto& [added_key, value] : one) {
      read[added_key] = std::move(value);
      places[added_key] = name;
    }
  }
  environment_ = std::move(read);
  environment_places_ = std::move(places);
  return OkStatus();
}

const json* Config::Find(std::string_view key, From* from) const {
  const std::pair<const Values*, From> places[] = {
      {&call_, From::kCall}, {&environment_, From::kEnvironment}, {&file_, From::kFile}};
  for (const auto& [values, place] : places) {
    auto found = values->find(key);
    if (found == values->end()) continue;
    *from = place;
    return &found->second;
  }
  *from = From::kDefault;
  return nullptr;
}

Config::From Config::WhereFrom(std::string_view key) const {
  From from;
  Find(key, &from);
  return from;
}

bool Config::IsSet(std::string_view key) const { return WhereFrom(key) != From::kDefault; }

const json& Config::Get(std::string_view key, ConfigType type) const {
  const ConfigKey* known = FindKey(key);
  if (known == nullptr || known->type != type) {
    throw std::logic_error(StrCat("no configuration key ", key, " of type ", TypeName(type)));
  }
  From from;
  const json* value = Find(key, &from);
  return value != nullptr ? *value : Default(key);
}

std::string Config::GetString(std::string_view key) const { return Get(key, ConfigType::kString); }

int64_t Config::GetInt(std::string_view key) const { return Get(key, ConfigType::kInteger); }

bool Config::GetBool(std::string_view key) const { return Get(key, ConfigType::kBoolean); }

int64_t Config::GetDuration(std::string_view key) const {
  Result<int64_t> duration = ParseDuration(Get(key, ConfigType::kDuration).get_ref<const std::string&>());
  return *duration;  // checked when it came in
}

std::vector<std::string> Config::GetStrings(std::string_view key) const { return Get(key, ConfigType::kStrings); }

std::vector<std::string> Config::GetNames(std::string_view key) const {
  const json& names = Get(key, ConfigType::kNames);
  if (names.is_array()) return names;
  return {names.get<std::string>()};
}

std::vector<ConfigPeer> Config::GetPeers() const {
  std::vector<ConfigPeer> peers;
  for (const json& peer : Get("group.peers", ConfigType::kPeers)) {
    peers.push_back({peer["id"].get<int32_t>(), peer["name"], peer.value("address", "")});
  }
  return peers;
}

std::map<std::string, Config::From> Config::SectionKeys(std::string_view prefix) const {
  std::map<std::string, From> keys;
  for (const Values* values : {&file_, &environment_, &call_}) {
    for (auto it = values->lower_bound(prefix); it != values->end(); ++it) {
      if (std::string_view(it->first).substr(0, prefix.size()) != prefix) break;
      if (IsTransportOption(it->first)) keys[it->first] = WhereFrom(it->first);
    }
  }
  return keys;
}

std::string Config::GetSection(std::string_view prefix) const {
  std::string inside = StrCat(prefix, ".");
  json section = json::object();
  for (const auto& [key, from] : SectionKeys(inside)) {
    json* place = &section;
    std::string_view rest = std::string_view(key).substr(inside.size());
    for (size_t dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
      place = &(*place)[std::string(rest.substr(0, dot))];
      // One place said `link = 3`, another `link.delay = 1`: the table wins.
      if (!place->is_object()) *place = json::object();
      rest.remove_prefix(dot + 1);
    }
    From ignored;
    (*place)[std::string(rest)] = *Find(key, &ignored);
  }
  return section.dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string Config::Where(std::string_view key) const {
  const From from = WhereFrom(key);
  if (from != From::kFile && from != From::kEnvironment) return "";
  const auto& places = from == From::kFile ? file_places_ : environment_places_;
  const auto found = places.find(key);
  return found == places.end() ? "" : found->second;
}

std::vector<std::string> Config::TransportSections() const {
  std::vector<std::string> names;
  for (const auto& [key, from] : SectionKeys(kTransport)) {
    const std::string name = key.substr(kTransport.size(), key.find('.', kTransport.size()) - kTransport.size());
    if (names.empty() || names.back() != name) names.push_back(name);
  }
  return names;
}

Status Config::DeclareTransport(const std::string& name, std::string_view schema) {
  const std::string section = StrCat(kTransport, name);
  const OptionSchema& declared = declared_[section] = OptionSchema::Parse(schema);
  for (const auto& [key, from] : SectionKeys(section + ".")) {
    From ignored;
    const Status status =
        declared.Check(section, std::string_view(key).substr(section.size() + 1), *Find(key, &ignored));
    const std::string where = Where(key);
    if (!status.ok()) return At(where.empty() ? "" : where + ": ", status);
  }
  return OkStatus();
}

Status Config::WithPlace(const Status& status) const {
  if (status.ok()) return status;
  const std::string& message = status.message();
  const auto end = std::find_if(message.begin(), message.end(), [](char c) { return !IsName({&c, 1}, 1, "_.-"); });
  const std::string key(message.begin(), end);
  std::string where = Where(key);
  if (where.empty()) {
    // A section, or an option that is a table.
    const auto within = SectionKeys(key + ".");
    if (!within.empty()) where = Where(within.begin()->first);
  }
  if (where.empty()) return status;
  Error placed = *status.error();
  placed.message = StrCat(where, ": ", message);
  return Status(std::move(placed));
}

bool Config::IsSecretOption(std::string_view key) const {
  const size_t dot = key.find('.', kTransport.size());
  const auto declared = declared_.find(key.substr(0, dot));
  if (declared == declared_.end()) return SoundsSecret(key);
  const std::string_view rest = key.substr(dot + 1);
  return declared->second.IsSecret(rest.substr(0, rest.find('.'))) || SoundsSecret(key);
}

std::string Config::DescribeJson() const {
  // Sorted by key, as json does it.
  json all = json::object();
  auto add = [&](const std::string& key, const json& value, From from) {
    all[key] = {{"value", value}, {"from", FromName(from)}};
    if (const std::string where = Where(key); !where.empty()) all[key]["where"] = where;
  };
  for (const ConfigKey& key : ConfigKeys()) {
    if (!key.secret) add(key.name, Get(key.name, key.type), WhereFrom(key.name));
  }
  for (const auto& [key, from] : SectionKeys(kTransport)) {
    From ignored;
    if (!IsSecretOption(key)) add(key, *Find(key, &ignored), from);
  }
  for (const auto& [section, schema] : declared_) {
    for (const auto& [name, option] : schema.options()) {
      const std::string key = StrCat(section, ".", name);
      if (option.fallback && !IsSecretOption(key) && SectionKeys(key + ".").empty() && !all.contains(key)) {
        add(key, *option.fallback, From::kDefault);
      }
    }
  }
  return all.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace gradferry
