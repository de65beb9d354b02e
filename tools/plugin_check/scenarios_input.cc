// Scenarios: the descriptor, and what a plugin is told that is wrong.
#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/plugin.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {
namespace {

using Json = nlohmann::json;

constexpr uint32_t kKnownCapabilities =
    GF_TRANSPORT_CAP_TIME | GF_TRANSPORT_CAP_TRUSTED_NETWORK_ONLY | GF_TRANSPORT_CAP_SAME_PROCESS;

bool HasType(const Json& value, const std::string& type) {
  if (type == "string") return value.is_string();
  if (type == "integer") return value.is_number_integer();
  if (type == "boolean") return value.is_boolean();
  if (type == "number") return value.is_number();
  if (type == "array") return value.is_array();
  return type == "object" && value.is_object();
}

bool IsType(const std::string& type) {
  for (const char* known : {"string", "integer", "boolean", "number", "array", "object"}) {
    if (type == known) return true;
  }
  return false;
}

// The schema as an object; empty when there is none.
Json Schema() {
  const char* text = Transport::descriptor().options_schema;
  const Json schema = text == nullptr ? Json::object() : Json::parse(text, nullptr, false);
  return schema.is_object() ? schema : Json::object();
}

void CheckOption(const std::string& key, const Json& option) {
  const std::string name = "the schema's option \"" + key + "\" ";
  if (!option.is_object() || !option.contains("type") || !option["type"].is_string() ||
      !IsType(option["type"].get<std::string>())) {
    return Found(11, name + "has no type that is known");
  }
  const std::string type = option["type"].get<std::string>();
  if (option.contains("default") && !HasType(option["default"], type))
    Found(11, name + "has a default that is no " + type);
  if (!option.contains("help") || !option["help"].is_string() || option["help"].get<std::string>().empty()) {
    Found(11, name + "has no help");
  }
  if (option.contains("secret") && !option["secret"].is_boolean()) Found(11, name + "has a secret that is no boolean");
}

void CheckSchema() {
  const char* text = Transport::descriptor().options_schema;
  if (text == nullptr) return;
  const Json schema = Json::parse(text, nullptr, false);
  if (!schema.is_object()) return Found(11, "options_schema is no JSON object");
  for (const auto& [key, option] : schema.items()) CheckOption(key, option);
}

void CheckVtable(const gf_transport_descriptor& descriptor) {
  const gf_transport_vtable table = VtableOf(descriptor);
  auto require = [](const char* name, bool there) {
    if (!there) Found(11, std::string("the vtable lacks ") + name);
  };
  require("create", table.create != nullptr);
  require("destroy", table.destroy != nullptr);
  require("listen", table.listen != nullptr);
  require("connect", table.connect != nullptr);
  require("send", table.send != nullptr);
  require("close", table.close != nullptr);
  require("shutdown", table.shutdown != nullptr);
  const bool time = (descriptor.capabilities & GF_TRANSPORT_CAP_TIME) != 0;
  const bool all =
      table.now != nullptr && table.timer_set != nullptr && table.timer_cancel != nullptr && table.hold != nullptr;
  const bool any =
      table.now != nullptr || table.timer_set != nullptr || table.timer_cancel != nullptr || table.hold != nullptr;
  if (time && !all) Found(11, "the vtable lacks functions of GF_TRANSPORT_CAP_TIME");
  if (!time && any) Found(11, "the vtable has functions of time, which the capabilities do not name");
  if ((table.drive == nullptr) != (table.wake == nullptr))
    Found(15, std::string("the vtable has ") + (table.wake == nullptr ? "drive and no wake" : "wake and no drive"));
}

// A value of another type than the option's.
Json WrongValue(const std::string& type) { return type == "object" ? Json("wrong") : Json::object({{"wrong", 1}}); }

Json BaseOptions(const std::string& options) { return Json::parse(options.empty() ? "{}" : options, nullptr, false); }

void MustRefuse(const std::string& options, const std::string& named, const std::string& what) {
  Transport* transport = nullptr;
  std::string text;
  const int32_t code = Transport::Create(options, &transport, &text);
  Checked(12);
  if (transport != nullptr) {
    Found(12, "create took " + what + ": " + options);
    return transport->Finish();
  }
  if (code != GF_INVALID_ARGUMENT)
    Found(12, "create refused " + what + " with code " + std::to_string(code) + ": " + text);
  if (!named.empty() && text.find(named) == std::string::npos) {
    Found(12, "create refused " + what + " with a text that does not name " + named + ": " + text);
  }
}

}  // namespace

std::string GivenOptions();

void CheckDescriptor() {
  Watching(11, "reading the descriptor");
  const gf_transport_descriptor& descriptor = Transport::descriptor();
  const std::string name = descriptor.name == nullptr ? "" : descriptor.name;
  const bool named = !name.empty() && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
  });
  if (!named) Found(11, "the descriptor's name is \"" + name + "\", which is not of [a-z0-9_]+");
  for (const char* text : {descriptor.version, descriptor.vendor}) {
    if (text == nullptr || *text == '\0') Found(11, "the descriptor has no version or vendor");
  }
  if (descriptor.max_header == 0) Found(11, "the descriptor's max_header is 0");
  if ((descriptor.capabilities & ~kKnownCapabilities) != 0)
    Found(11, "the descriptor has capabilities that are not known");
  CheckVtable(descriptor);
  CheckSchema();
  Checked(11);
}

void CheckOptions() {
  Watching(12, "create with wrong options");
  const Json base = BaseOptions(GivenOptions());
  Json unknown = base;
  unknown["no_such_option"] = 1;
  MustRefuse(unknown.dump(), "no_such_option", "an unknown option");
  for (const auto& [key, option] : Schema().items()) {
    if (!option.is_object() || !option.contains("type") || !option["type"].is_string()) continue;
    Json wrong = base;
    wrong[key] = WrongValue(option["type"].get<std::string>());
    MustRefuse(wrong.dump(), key, "the option " + key + " of a wrong type");
  }
  for (const char* text : {"{", "[]", "7", "{\"", "null", "\"text\"", "{}{}", "{,}"})
    MustRefuse(text, "", "what is no JSON object");
  // The default of each option is allowed.
  for (const auto& [key, option] : Schema().items()) {
    if (!option.is_object() || !option.contains("default")) continue;
    Json options = base;
    options[key] = option["default"];
    Transport* transport = nullptr;
    std::string text;
    const int32_t code = Transport::Create(options.dump(), &transport, &text);
    if (transport == nullptr) {
      Found(12, "create refused the default of " + key + " with code " + std::to_string(code) + ": " + text);
    } else {
      transport->Finish();
    }
  }
}

void CheckAddresses() {
  Watching(12, "listen and connect with wrong addresses");
  Transport* transport = Transport::New();
  const std::string bad[] = {
      "no address at all",
      "://",
      "x://",
      std::string(5000, 'a'),
      std::string("a\0b", 3),
      "\xff\xfe\x01",
      "%s%n%s",
      "::::",
      "[::1",
      "@",
  };
  for (const std::string& address : bad) {
    std::string text;
    int32_t code = GF_OK;
    if (End* end = transport->TryDial(address, &code, &text)) {
      AwaitClosed(end, "a connection to a bad address");
      if (World::Get([&] { return end->state.code; }) == GF_OK)
        Found(6, "a connection to a bad address ended without an error");
    }
  }
  for (const std::string& address : bad) {
    Transport* other = Transport::New();
    std::string text;
    if (other->Listen(address, &text) == GF_OK && other->address().empty()) Found(12, "listen took a bad address");
    other->Finish();
  }
  Transport* small = Transport::New();
  std::string text;
  if (small->Listen("", &text, 1) == GF_OK && small->address().size() > 1) Found(12, "listen wrote more than capacity");
  small->Finish();
  transport->Finish();
}

void CheckWrongFrames() {
  Watching(12, "send with wrong frames");
  Transport* server = Transport::New();
  server->Listen();
  Transport* client = Transport::New();
  End* end = client->Dial(server->address());
  End* other = server->AwaitAccepted();
  const uint64_t most = Transport::descriptor().max_header;
  if (most < (1u << 30) && end->Send({most + 1, {}, 1}) == GF_OK)
    Found(12, "send took a header longer than max_header");
  if (end->Send({0, {}, 1}) == GF_OK) Found(12, "send took a frame without a header");
  if (end->SendWithoutMemory() == GF_OK) Found(12, "send took a segment that has a length and no memory");
  Checked(12, 3);
  // The connection is unharmed.
  end->Send({32, {5}, 2});
  AwaitArrived(other, 1, "the accepting end");
  client->Finish();
  server->Finish();
}

void CheckTexts() {
  Watching(12, "stats and peer");
  Transport* server = Transport::New();
  server->Listen();
  Transport* client = Transport::New();
  End* end = client->Dial(server->address());
  End* other = server->AwaitAccepted();
  other->Send({32, {}, 1});
  AwaitArrived(end, 1, "the dialling end");
  for (const std::string& text : {end->Peer(), other->Peer()}) {
    if (Transport::vtable().peer == nullptr) break;
    const Json facts = Json::parse(text, nullptr, false);
    if (!facts.is_object()) Found(12, "peer wrote no JSON object: " + text);
    Checked(12);
    if (!facts.is_object()) continue;
    if (facts.contains("identities") && !facts["identities"].is_array()) Found(12, "peer's identities are no array");
    if (facts.contains("encrypted") && !facts["encrypted"].is_boolean()) Found(12, "peer's encrypted is no boolean");
    for (const char* key : {"address", "path"}) {
      if (facts.contains(key) && !facts[key].is_string()) Found(12, std::string("peer's ") + key + " is no text");
    }
  }
  if (Transport::vtable().stats != nullptr && !Json::parse(client->Stats(), nullptr, false).is_object()) {
    Found(12, "stats wrote no JSON object");
  }
  client->Finish();
  server->Finish();
}

}  // namespace gradferry::check
