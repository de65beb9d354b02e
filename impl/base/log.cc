// See log.h.
#include "impl/base/log.h"

#include <atomic>
#include <mutex>
#include <shared_mutex>

namespace gradferry {
namespace {

struct LogSink {
  std::shared_mutex mutex;  // guards callback and token; held shared while the callback runs
  LogCallback callback = nullptr;
  uintptr_t token = 0;
  std::atomic<uint32_t> level{static_cast<uint32_t>(LogLevel::kOff)};
};

LogSink& Sink() {
  static LogSink* const sink = new LogSink;  // never destroyed: threads may log at exit
  return *sink;
}

}  // namespace

void SetLog(LogCallback callback, uintptr_t token, LogLevel level) {
  LogSink& sink = Sink();
  std::unique_lock lock(sink.mutex);
  sink.callback = callback;
  sink.token = token;
  sink.level = static_cast<uint32_t>(callback ? level : LogLevel::kOff);
}

bool LogEnabled(LogLevel level) { return static_cast<uint32_t>(level) >= Sink().level.load(std::memory_order_relaxed); }

void LogMessage(LogLevel level, std::string_view message) {
  LogSink& sink = Sink();
  std::shared_lock lock(sink.mutex);
  if (sink.callback) sink.callback(sink.token, static_cast<uint32_t>(level), message.data(), message.size());
}

}  // namespace gradferry
