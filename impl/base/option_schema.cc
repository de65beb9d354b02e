// See option_schema.h.
#include "impl/base/option_schema.h"

#include <vector>

#include "impl/base/nearest.h"
#include "impl/base/toml_text.h"

namespace gradferry {
namespace {

using nlohmann::json;

struct Type {
  std::string_view name;
  const char* wanted;
  bool (*fits)(const json&);
};

constexpr Type kTypes[] = {
    {"string", "a string", [](const json& v) { return v.is_string(); }},
    {"integer", "an integer", [](const json& v) { return v.is_number_integer(); }},
    {"number", "a number", [](const json& v) { return v.is_number(); }},
    {"boolean", "true or false", [](const json& v) { return v.is_boolean(); }},
    {"array", "an array", [](const json& v) { return v.is_array(); }},
    {"object", "a table", [](const json& v) { return v.is_object(); }},
};

const Type* FindType(std::string_view name) {
  for (const Type& type : kTypes) {
    if (type.name == name) return &type;
  }
  return nullptr;
}

}  // namespace

OptionSchema OptionSchema::Parse(std::string_view text) {
  OptionSchema schema;
  const json document = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return schema;
  for (const auto& [name, described] : document.items()) {
    const json type = described.is_object() ? described.value("type", json()) : json();
    if (!type.is_string() || FindType(type.get_ref<const std::string&>()) == nullptr) return OptionSchema();
    Option option;
    option.type = type;
    if (const auto fallback = described.find("default"); fallback != described.end()) option.fallback = *fallback;
    option.secret = described.value("secret", json()) == true;
    schema.options_[name] = std::move(option);
  }
  schema.judges_ = true;
  return schema;
}

bool OptionSchema::IsSecret(std::string_view option) const {
  const auto found = options_.find(option);
  return found != options_.end() && found->second.secret;
}

Status OptionSchema::Check(std::string_view section, std::string_view rest, const json& value) const {
  if (!judges_) return OkStatus();
  const std::string name(rest.substr(0, rest.find('.')));
  const auto found = options_.find(name);
  if (found == options_.end()) {
    std::vector<std::string> names;
    for (const auto& [known, option] : options_) names.push_back(known);
    const std::string nearest = Nearest(name, names);
    std::string help;
    if (!nearest.empty()) {
      help = StrCat(" (did you mean ", section, ".", nearest, "?)");
    } else {
      for (const std::string& known : names) help += StrCat(help.empty() ? "; there are " : ", ", known);
      if (names.empty()) help = "; the transport has no options";
    }
    return InvalidArgument(StrCat("unknown key ", section, ".", name, help));
  }
  const Type& type = *FindType(found->second.type);
  const bool inside = name.size() < rest.size();
  if (inside ? type.name == "object" : type.fits(value)) return OkStatus();
  const std::string got = found->second.secret ? "something else" : inside ? "a table" : DescribeTomlValue(value);
  return InvalidArgument(StrCat(section, ".", name, " wants ", type.wanted, "; got ", got));
}

}  // namespace gradferry
