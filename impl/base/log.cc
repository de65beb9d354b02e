// See log.h.
#include "impl/base/log.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <shared_mutex>
#include <vector>

namespace gradferry {
namespace {

constexpr const char* kLevelNames[] = {"debug", "info", "warning", "error"};

struct LogFile {
  std::string path;
  int fd;
  uint32_t level;
};

struct LogSink {
  std::shared_mutex mutex;  // guards the next four; held shared while the callback runs
  LogCallback callback = nullptr;
  uintptr_t token = 0;
  uint32_t callback_level = static_cast<uint32_t>(LogLevel::kOff);
  std::vector<LogFile> files;
  std::atomic<uint32_t> level{static_cast<uint32_t>(LogLevel::kOff)};  // the least that anybody wants

  void FindLevel() {
    uint32_t least = callback_level;
    for (const LogFile& file : files) least = std::min(least, file.level);
    level = least;
  }
};

LogSink& Sink() {
  static LogSink* const sink = new LogSink;  // never destroyed: threads may log at exit
  return *sink;
}

// One write, so that lines of several threads and processes do not mix.
void WriteLine(int fd, uint32_t level, std::string_view message) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  tm utc{};
  gmtime_r(&now.tv_sec, &utc);
  char head[64];
  size_t length = strftime(head, sizeof(head), "%Y-%m-%dT%H:%M:%S", &utc);
  length += static_cast<size_t>(snprintf(head + length, sizeof(head) - length, ".%06ldZ %-7s ", now.tv_nsec / 1000,
                                         kLevelNames[std::min<uint32_t>(level, 3)]));
  std::string line(head, length);
  for (char c : message) line += c == '\n' ? ' ' : c;
  line += '\n';
  // There is nobody to tell that the log cannot be written.
  [[maybe_unused]] const ssize_t written = write(fd, line.data(), line.size());
}

}  // namespace

std::optional<LogLevel> ParseLogLevel(std::string_view name) {
  for (uint32_t level = 0; level < 4; ++level) {
    if (name == kLevelNames[level]) return static_cast<LogLevel>(level);
  }
  return std::nullopt;
}

Status AddLogFile(const std::string& path, LogLevel level) {
  LogSink& sink = Sink();
  std::unique_lock lock(sink.mutex);
  const auto wanted = static_cast<uint32_t>(level);
  const auto known =
      std::find_if(sink.files.begin(), sink.files.end(), [&](const LogFile& file) { return file.path == path; });
  if (known != sink.files.end()) {
    known->level = std::min(known->level, wanted);
  } else {
    const int fd =
        path == "stderr" ? STDERR_FILENO : open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
    if (fd < 0) return InvalidArgument(StrCat("logging.file: ", path, " cannot be opened: ", strerror(errno)));
    sink.files.push_back({path, fd, wanted});
  }
  sink.FindLevel();
  return OkStatus();
}

void SetLog(LogCallback callback, uintptr_t token, LogLevel level) {
  LogSink& sink = Sink();
  std::unique_lock lock(sink.mutex);
  sink.callback = callback;
  sink.token = token;
  sink.callback_level = static_cast<uint32_t>(callback ? level : LogLevel::kOff);
  sink.FindLevel();
}

bool LogEnabled(LogLevel level) { return static_cast<uint32_t>(level) >= Sink().level.load(std::memory_order_relaxed); }

void LogMessage(LogLevel level, std::string_view message) {
  LogSink& sink = Sink();
  const auto number = static_cast<uint32_t>(level);
  std::shared_lock lock(sink.mutex);
  if (sink.callback && number >= sink.callback_level) {
    sink.callback(sink.token, number, message.data(), message.size());
  }
  for (const LogFile& file : sink.files) {
    if (number >= file.level) WriteLine(file.fd, number, message);
  }
}

}  // namespace gradferry
