// The host that drives the plugin in these tests.
#pragma once

#include "tests/support/plugin/host.h"

namespace gradferry::tp::testing {

using namespace plugin_testing;  // NOLINT

}  // namespace gradferry::tp::testing
