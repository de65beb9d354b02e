// See torch_scope.h.
#include "impl/tensor/torch_scope.h"

#include <string>

#include "impl/base/log.h"

namespace gradferry {
namespace {

class LogWarnings final : public c10::WarningHandler {
 public:
#if TORCH_VERSION_MAJOR >= 2
  void process(const c10::Warning& warning) override { Log(LogLevel::kWarning, "libtorch: ", warning.msg()); }
#else
  void process(const c10::SourceLocation&, const std::string& message, const bool) override {
    Log(LogLevel::kWarning, "libtorch: ", message);
  }
#endif
};

c10::WarningHandler* WarningsToLog() {
  static LogWarnings* const handler = new LogWarnings;  // never destroyed: threads may warn at exit
  return handler;
}

}  // namespace

// libtorch keeps the warning handler per thread, so that setting one here disturbs nobody.
TorchScope::TorchScope(GradRecording recording)
    : grad_mode_(recording == GradRecording::kOn), warnings_(WarningsToLog()) {}

}  // namespace gradferry
