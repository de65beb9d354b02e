// The group's secret, from the configuration.
#pragma once

#include <string>

#include "impl/base/config.h"
#include "impl/base/status.h"

namespace gradferry {

// security.secret, or what the file security.secret_file holds, without the end of its line; empty when there is
// neither. Errors name the key and the file and say nothing of the secret: both are given, a file that cannot be read
// or to which others have rights, a secret that is too short to be one.
Result<std::string> ReadSecret(const Config& config);

}  // namespace gradferry
