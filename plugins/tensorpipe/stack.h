// TensorPipe's Context with the transports and channels of the options, and what of them this machine really has.
#pragma once

#include <tensorpipe/core/context.h>

#include <memory>
#include <string>
#include <vector>

#include "plugins/tensorpipe/options.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

struct Stack {
  std::shared_ptr<::tensorpipe::Context> context;
  std::vector<std::string> transports;  // registered
  std::vector<std::string> channels;    // registered
  std::vector<std::string> missing;     // asked for, and not viable here

  bool HasTransport(const std::string& name) const;
};

// Starts TensorPipe's threads. GF_FAILED_PRECONDITION when no transport works here.
Status BuildStack(const Options& options, Stack* out);

}  // namespace gradferry::tp
