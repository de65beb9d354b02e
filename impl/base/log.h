// The process's log: silent until a callback is set (gf_log_set) or a configuration names a file (logging.file). Levels
// that nobody wants cost one atomic load.
// Any thread may log, also while holding a lock: the callback gets nothing to call back into.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "impl/base/status.h"

namespace gradferry {

enum class LogLevel : uint32_t { kDebug = 0, kInfo = 1, kWarning = 2, kError = 3, kOff = 4 };

using LogCallback = void (*)(uintptr_t token, uint32_t level, const char* message, size_t length);

// Waits until no call of the previous callback runs.
void SetLog(LogCallback callback, uintptr_t token, LogLevel level);
// "debug", "info", "warning", "error".
std::optional<LogLevel> ParseLogLevel(std::string_view name);
// Messages of at least this level are appended to the file ("stderr": there), one a line with time and level, until the
// process ends. For a file that is there already the lower level holds.
Status AddLogFile(const std::string& path, LogLevel level);
bool LogEnabled(LogLevel level);
void LogMessage(LogLevel level, std::string_view message);

template <class... Args>
void Log(LogLevel level, const Args&... args) {
  if (LogEnabled(level)) LogMessage(level, StrCat(args...));
}

}  // namespace gradferry
