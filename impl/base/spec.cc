// See spec.h.
#include "impl/base/spec.h"

#include "impl/base/toml_text.h"

namespace gradferry {
namespace {

constexpr char kForm[] = "an optimizer is written as 'sgd = { lr = 0.1, momentum = 0.9 }'";

}  // namespace

Result<OptimizerText> ParseOptimizerSpec(std::string_view spec) {
  Result<std::vector<TomlLeaf>> leaves = ParseToml(spec, "");
  if (!leaves.ok()) return InvalidArgument(StrCat(kForm, "; ", leaves.status().message()));
  if (leaves->empty()) return InvalidArgument(StrCat(kForm, "; got nothing"));

  OptimizerText text;
  text.kind = (*leaves)[0].path[0];
  for (const TomlLeaf& leaf : *leaves) {
    if (leaf.path[0] != text.kind) {
      return InvalidArgument(StrCat(kForm, "; got two kinds, ", text.kind, " and ", leaf.path[0]));
    }
    if (leaf.path.size() == 1) {
      // The only leaf this short that is right is an empty table: no options.
      if (!leaf.value.is_object()) {
        return InvalidArgument(StrCat(kForm, "; ", text.kind, " is ", DescribeTomlValue(leaf.value)));
      }
      continue;
    }
    const std::string& option = leaf.path[1];
    bool scalar = leaf.path.size() == 2 && (leaf.value.is_boolean() || leaf.value.is_number());
    if (!scalar) {
      return InvalidArgument(StrCat("option ", option, " of ", text.kind, " wants a number or a boolean, got ",
                                    leaf.path.size() > 2 ? "a table" : DescribeTomlValue(leaf.value)));
    }
    if (leaf.value.is_boolean()) {
      text.options[option] = leaf.value.get<bool>();
    } else {
      text.options[option] = leaf.value.get<double>();
    }
  }
  return text;
}

}  // namespace gradferry
