// From a seed to a program that is legal for libtorch in both runs: shapes fit, nothing is changed in place that a
// backward needs, numbers stay small. The generator knows shapes, dtypes and which values share memory, not the
// numbers themselves; it runs no operation.
#pragma once

#include <cstdint>

#include "tests/property/program.h"

namespace gradferry::property {

Program Generate(uint64_t seed);

}  // namespace gradferry::property
