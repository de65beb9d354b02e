// TOML as JSON values with line numbers: the one place that knows the TOML library. For config.cc and spec.cc.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "impl/base/status.h"

namespace gradferry {

// A value of a text that is no table, or an empty table.
struct TomlLeaf {
  std::vector<std::string> path;
  nlohmann::json value;
  uint32_t line = 0;  // of the value, from 1
};

// Every leaf of the text, tables within tables taken apart, in the order of the text. `name` is the file's, or "": an
// error begins with "name:line: " or "line N: ". Dates and times become strings; inf and nan are refused.
Result<std::vector<TomlLeaf>> ParseToml(std::string_view text, std::string_view name);

// What an error of ParseToml begins with.
std::string TomlPlace(std::string_view name, uint32_t line);

// One value: "3", "[1, 2]", "{ a = 1 }". The error is the TOML library's sentence.
Result<nlohmann::json> ParseTomlValue(std::string_view text);

// "the integer 3", "the string \"x\"", "an array", "a table": what was got, for error texts. Long strings are cut.
std::string DescribeTomlValue(const nlohmann::json& value);

}  // namespace gradferry
