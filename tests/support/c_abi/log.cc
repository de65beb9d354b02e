// See log.h.
#include "tests/support/c_abi/log.h"

#include <algorithm>

#include "tests/support/c_abi/live.h"

namespace gf {

LogLines::LogLines(uint32_t level) {
  const auto add = [](uintptr_t token, uint32_t, const char* message, size_t length) {
    auto* self = reinterpret_cast<LogLines*>(token);
    std::lock_guard lock(self->mutex_);
    self->lines_.emplace_back(message, length);
  };
  Call(gf_log_set, static_cast<gf_log_callback>(add), reinterpret_cast<uintptr_t>(this), level);
}

LogLines::~LogLines() { gf_log_set(nullptr, 0, GF_LOG_WARNING, nullptr); }

size_t LogLines::Count(const std::vector<std::string>& parts) const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(lines_.begin(), lines_.end(), [&](const std::string& line) {
    return std::all_of(parts.begin(), parts.end(),
                       [&](const std::string& part) { return line.find(part) != std::string::npos; });
  }));
}

bool LogLines::Has(const std::vector<std::string>& parts, int64_t timeout) const {
  return Eventually([&] { return Count(parts) > 0; }, timeout);
}

std::string LogLines::All() const {
  std::lock_guard lock(mutex_);
  std::string all;
  for (const std::string& line : lines_) all += line + "\n";
  return all;
}

}  // namespace gf
