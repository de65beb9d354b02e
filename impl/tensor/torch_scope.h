// The state of this thread in which libtorch is called. Everything below the C boundary that runs operators or makes
// tensors does so within a TorchScope, because the caller's thread may be in any state: under no_grad, in inference
// mode, below autograd. Any thread; scopes nest.
#pragma once

#include <c10/core/GradMode.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/Exception.h>
#include <torch/version.h>

namespace gradferry {

enum class GradRecording { kOff, kOn };

// While it lives: autograd records or not as asked, inference mode is off, and libtorch's warnings go to the log
// instead of stderr. The destructor puts back what was there.
class TorchScope {
 public:
  explicit TorchScope(GradRecording recording);
  TorchScope(const TorchScope&) = delete;
  TorchScope& operator=(const TorchScope&) = delete;

 private:
#if TORCH_VERSION_MAJOR >= 2
  using WarningGuard = c10::WarningUtils::WarningHandlerGuard;
#else
  using WarningGuard = c10::Warning::WarningHandlerGuard;
#endif

  // In this order: InferenceMode(false) turns recording on, AutoGradMode then decides.
  c10::InferenceMode inference_off_{false};
  c10::AutoGradMode grad_mode_;
  WarningGuard warnings_;
};

}  // namespace gradferry
