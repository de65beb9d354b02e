// The settings of a worker. They come from four places; where one key has several values, a call (Set) goes before the
// environment, that before texts and files, those before the defaults. Every value is checked when it comes in, so the
// getters cannot fail: an error names the key, the place it came from, what is wanted and what was got. One table
// (ConfigKeys) says everything about a key; docs/configuration.md is made from it.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "impl/base/clock.h"
#include "impl/base/option_schema.h"
#include "impl/base/status.h"

namespace gradferry {

enum class ConfigType : uint8_t { kString, kInteger, kBoolean, kDuration, kStrings, kNames, kPeers };

// One key, as docs/configuration.md shows it.
struct ConfigKey {
  const char* name;  // "section.key"
  ConfigType type;
  const char* default_text;  // as in TOML; "" when there is none or when the program computes it
  const char* default_note;  // for people, when default_text is empty
  int64_t min;               // integers only
  int64_t max;
  bool secret;  // never shown
  const char* help;
};

const std::vector<ConfigKey>& ConfigKeys();

// The table of docs/configuration.md, in Markdown.
std::string ConfigReference();

// A member of the group, from group.peers.
struct ConfigPeer {
  int32_t id = -1;
  std::string name;
  std::string address;  // empty: not known yet
};

class Config {
 public:
  // Where a value comes from; a larger one goes first.
  enum class From : uint8_t { kDefault, kFile, kEnvironment, kCall };

  // Adds TOML, key by key over what earlier texts said. On failure nothing of the text is added.
  Status LoadText(std::string_view toml);
  Status LoadFile(const std::string& path);

  // Sets a key to a value written as in TOML; for strings and durations the bare text will do, and for keys of a
  // transport's own section (transport.sim.seed) whatever is no TOML value is a string.
  Status Set(std::string_view key, std::string_view text);

  // Reads every variable GRADFERRY_<SECTION>_<KEY> and forgets what an earlier call of this read. An empty variable
  // counts as unset. A variable GRADFERRY_* that means nothing is an error, unless its name is one that Gradferry uses
  // otherwise (GRADFERRY_PLUGIN_PATH, GRADFERRY_LOG*, GRADFERRY_LIBRARY, and those of the build).
  Status ApplyEnvironment();
  // The same with "NAME=value" texts, for tests.
  Status ApplyEnvironment(const std::vector<std::string>& variables);

  // True when any place but the defaults says something.
  bool IsSet(std::string_view key) const;
  From WhereFrom(std::string_view key) const;

  // Values in effect. The key must be one of the table and of the getter's type: anything else is a fault of the
  // caller's code and throws std::logic_error.
  std::string GetString(std::string_view key) const;
  int64_t GetInt(std::string_view key) const;
  bool GetBool(std::string_view key) const;
  int64_t GetDuration(std::string_view key) const;  // ns; kNever for "none"
  std::vector<std::string> GetStrings(std::string_view key) const;
  // Of a key that takes one name or an array of them.
  std::vector<std::string> GetNames(std::string_view key) const;
  std::vector<ConfigPeer> GetPeers() const;
  // Everything below "transport.sim." as a JSON object, "{}" when there is nothing.
  std::string GetSection(std::string_view prefix) const;

  // The transports that some place has options for, in the order of their names.
  std::vector<std::string> TransportSections() const;
  // Says what the section of a transport may hold, and checks what is set there. The values of options cannot be
  // checked before: only the plugin knows them. DescribeJson shows the options from then on, those at their defaults
  // included.
  Status DeclareTransport(const std::string& name, std::string_view schema);
  // What was declared to another configuration holds for this one, too.
  void TakeDeclarations(const Config& other) { declared_ = other.declared_; }

  // An error whose text begins with a key, or a section, that a file, a text or the environment has set: the same with
  // that place before it, as the errors of this class have.
  Status WithPlace(const Status& status) const;

  // {"key": {"value": ..., "from": "call" | "environment" | "file" | "default", "where": "worker.toml:3" or the
  // variable's name; absent for a call and a default}}, without secrets.
  std::string DescribeJson() const;

 private:
  // Checked values of one place by full key. A duration is kept as its text, peers as an array of objects.
  using Values = std::map<std::string, nlohmann::json, std::less<>>;

  Status LoadNamedText(std::string_view toml, std::string_view name);
  const nlohmann::json* Find(std::string_view key, From* from) const;
  const nlohmann::json& Get(std::string_view key, ConfigType type) const;
  std::map<std::string, From> SectionKeys(std::string_view prefix) const;

  std::string Where(std::string_view key) const;
  bool IsSecretOption(std::string_view key) const;

  Values file_;
  Values environment_;
  Values call_;
  std::map<std::string, std::string, std::less<>> file_places_;         // "worker.toml:3", "line 3"
  std::map<std::string, std::string, std::less<>> environment_places_;  // names of variables
  std::map<std::string, OptionSchema, std::less<>> declared_;           // by "transport.sim"
};

// "250ms", "1.5s", "2m", "1h", "none" (kNever) in ns; units ns us ms s m h. The error is half a sentence about what is
// wanted.
Result<int64_t> ParseDuration(std::string_view text);

}  // namespace gradferry
