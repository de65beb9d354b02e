// The library's log lines, for tests that read them. There is one log per process: one LogLines at a time.
#pragma once

#include <mutex>
#include <string>
#include <vector>

#include "tests/support/c_abi/gf.h"

namespace gf {

class LogLines {
 public:
  explicit LogLines(uint32_t level = GF_LOG_INFO);
  LogLines(const LogLines&) = delete;
  ~LogLines();

  // Whether there is, or soon comes, a line with all of these in it.
  bool Has(const std::vector<std::string>& parts, int64_t timeout = kPatience) const;
  // How many there are now.
  size_t Count(const std::vector<std::string>& parts) const;
  std::string All() const;

 private:
  mutable std::mutex mutex_;  // guards lines_; a leaf
  std::vector<std::string> lines_;
};

}  // namespace gf
