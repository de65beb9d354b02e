// What is allowed to come of a fault, besides what would have come without it.
#pragma once

#include <string>

#include "impl/base/status.h"

namespace gradferry::faults {

// What is wrong with an error that a fault has led to; empty: nothing.
std::string Judge(const Status& status);

}  // namespace gradferry::faults
