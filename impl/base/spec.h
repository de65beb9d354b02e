// The text that describes an optimizer (gf_optimizer_new): 'sgd = { lr = 0.1, momentum = 0.9 }'. Only its form is
// judged here; which kinds and keys there are is known to impl/tensor/optimizer.h.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "impl/base/status.h"

namespace gradferry {

struct OptimizerText {
  std::string kind;
  std::map<std::string, std::variant<bool, double>> options;
};

Result<OptimizerText> ParseOptimizerSpec(std::string_view spec);

}  // namespace gradferry
