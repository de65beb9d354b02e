// The library itself: gf_abi_version, gf_build_info, gf_log_set, gf_live_objects.
#include <nlohmann/json.hpp>
#include <string>

#include "c_api/boundary.h"
#include "impl/base/live.h"
#include "impl/base/log.h"
#include "impl/base/release.h"
#include "impl/tensor/doors.h"
#include "impl/transport/transport.h"

namespace gradferry {
namespace {

std::string CompilerName() {
#if defined(__clang__)
  return StrCat("clang ", __clang_major__, ".", __clang_minor__);
#else
  return StrCat("gcc ", __GNUC__, ".", __GNUC_MINOR__);
#endif
}

std::string BuildInfo() {
  nlohmann::json plugins = nlohmann::json::array();
  for (const PluginInfo& plugin : FindPlugins(PluginSearch())) {
    plugins.push_back({{"name", plugin.name}, {"path", plugin.path}});
  }
  nlohmann::json info = {
      {"release", kRelease},
      {"abi", {{"epoch", GF_ABI_EPOCH}, {"minor", GF_ABI_MINOR}}},
      {"torch", {{"compiled", CompiledTorchVersion()}, {"loaded", LoadedTorchVersion()}}},
      {"compiler", CompilerName()},
      {"plugins", plugins},
  };
  // A path may hold bytes that are no UTF-8.
  return info.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

// One of the GF_LIVE_* numbers; there is a gap between handles and what lies behind them.
bool IsLiveKind(uint32_t kind) {
  constexpr auto kLastHandle = static_cast<uint32_t>(LiveKind::kOptimizers);
  constexpr auto kFirstInside = static_cast<uint32_t>(LiveKind::kAutogradContexts);
  return kind <= kLastHandle || (kind >= kFirstInside && kind < kLiveKinds);
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

uint32_t gf_abi_version(void) { return GF_ABI_EPOCH << 16 | GF_ABI_MINOR; }

int32_t gf_build_info(char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&] { return TextOut(BuildInfo(), buffer, capacity, length); });
}

int32_t gf_log_set(gf_log_callback callback, uintptr_t token, uint32_t level, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    if (level > GF_LOG_OFF) return InvalidArgument(StrCat("no log level has the number ", level));
    SetLog(callback, token, static_cast<LogLevel>(level));
    return OkStatus();
  });
}

int64_t gf_live_objects(uint32_t kind) {
  return IsLiveKind(kind) ? LiveCount(static_cast<LiveKind>(kind)).load(std::memory_order_relaxed) : -1;
}
