// What the section of a transport may hold, as its plugin says it (gf_transport_descriptor.options_schema). Config
// reads it, to judge such a section as it judges its own keys and to show the defaults.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "impl/base/status.h"

namespace gradferry {

class OptionSchema {
 public:
  struct Option {
    std::string type;  // "string", "integer", "boolean", "number", "array" or "object"
    std::optional<nlohmann::json> fallback;
    bool secret = false;
  };

  // A text that is no schema judges nothing: the plugin still does, and `gradferry plugin-check` names what is wrong.
  static OptionSchema Parse(std::string_view text);

  // By name.
  const std::map<std::string, Option, std::less<>>& options() const { return options_; }
  bool IsSecret(std::string_view option) const;

  // Whether the section `transport.sim` may hold this value at `rest` ("seed", or "link.delay" within an object). The
  // error is a sentence that names the key, what is wanted and what was got, or the nearest option.
  Status Check(std::string_view section, std::string_view rest, const nlohmann::json& value) const;

 private:
  std::map<std::string, Option, std::less<>> options_;
  bool judges_ = false;
};

}  // namespace gradferry
