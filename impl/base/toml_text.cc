// See toml_text.h.
#include "impl/base/toml_text.h"

#define TOML_EXCEPTIONS 0
// A text that is wrong is an error, not the end of the process, in builds with assertions too.
#define TOML_ASSERT(expression) static_cast<void>(0)
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>

namespace gradferry {
namespace {

using nlohmann::json;

template <class T>
std::string Print(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

// Throws nothing; a number without a JSON form sets *bad to what it is.
json ToJson(const toml::node& node, std::string* bad) {
  switch (node.type()) {
    case toml::node_type::string:
      return node.as_string()->get();
    case toml::node_type::integer:
      return node.as_integer()->get();
    case toml::node_type::boolean:
      return node.as_boolean()->get();
    case toml::node_type::date:
      return Print(node.as_date()->get());
    case toml::node_type::time:
      return Print(node.as_time()->get());
    case toml::node_type::date_time:
      return Print(node.as_date_time()->get());
    case toml::node_type::floating_point: {
      double value = node.as_floating_point()->get();
      if (!std::isfinite(value)) *bad = Print(value);
      return value;
    }
    case toml::node_type::array: {
      json array = json::array();
      for (const toml::node& item : *node.as_array()) array.push_back(ToJson(item, bad));
      return array;
    }
    case toml::node_type::table: {
      json object = json::object();
      for (auto&& [key, item] : *node.as_table()) object[std::string(key.str())] = ToJson(item, bad);
      return object;
    }
    default:
      return nullptr;
  }
}

Status CollectLeaves(const toml::table& table, const std::vector<std::string>& path, std::string_view name,
                     std::vector<TomlLeaf>* leaves) {
  for (auto&& [key, node] : table) {
    std::vector<std::string> here = path;
    here.emplace_back(key.str());
    const toml::table* inner = node.as_table();
    if (inner != nullptr && !inner->empty()) {
      GF_RETURN_IF_ERROR(CollectLeaves(*inner, here, name, leaves));
      continue;
    }
    uint32_t line = node.source().begin.line;
    std::string bad;
    json value = ToJson(node, &bad);
    if (!bad.empty()) {
      return InvalidArgument(StrCat(TomlPlace(name, line), here.back(), " wants a finite number, got ", bad));
    }
    leaves->push_back({std::move(here), std::move(value), line});
  }
  return OkStatus();
}

}  // namespace

std::string TomlPlace(std::string_view name, uint32_t line) {
  return name.empty() ? StrCat("line ", line, ": ") : StrCat(name, ":", line, ": ");
}

Result<std::vector<TomlLeaf>> ParseToml(std::string_view text, std::string_view name) {
  toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return InvalidArgument(StrCat(TomlPlace(name, error.source().begin.line), error.description()));
  }
  std::vector<TomlLeaf> leaves;
  GF_RETURN_IF_ERROR(CollectLeaves(parsed.table(), {}, name, &leaves));
  // Tables are kept sorted by key; errors are to name the first wrong line.
  std::stable_sort(leaves.begin(), leaves.end(), [](const TomlLeaf& a, const TomlLeaf& b) { return a.line < b.line; });
  return leaves;
}

Result<json> ParseTomlValue(std::string_view text) {
  toml::parse_result parsed = toml::parse(StrCat("value = ", text));
  if (!parsed) return InvalidArgument(std::string(parsed.error().description()));
  const toml::table& table = parsed.table();
  const toml::node* node = table.get("value");
  if (table.size() != 1 || node == nullptr) return InvalidArgument("one value is wanted, got several lines");
  std::string bad;
  json value = ToJson(*node, &bad);
  if (!bad.empty()) return InvalidArgument("a finite number is wanted, got " + bad);
  return value;
}

std::string DescribeTomlValue(const json& value) {
  // Invalid UTF-8 cannot be in a TOML text but can be in a variable of the environment.
  auto dump = [](const json& v) { return v.dump(-1, ' ', false, json::error_handler_t::replace); };
  constexpr size_t kShown = 60;
  auto cut = [](std::string text) { return text.size() > kShown ? text.substr(0, kShown) + "..." : text; };
  if (value.is_string()) return StrCat("the string ", cut(dump(value)));
  if (value.is_boolean()) return StrCat("the boolean ", dump(value));
  if (value.is_number_integer()) return StrCat("the integer ", dump(value));
  if (value.is_number()) return StrCat("the number ", dump(value));
  if (value.is_array()) return StrCat("the array ", cut(dump(value)));
  if (value.is_object()) return "a table";
  return "nothing";
}

}  // namespace gradferry
