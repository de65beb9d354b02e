// What lives in the library, and waiting for it: a fixture whose tests must leave nothing behind.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/c_abi/gf.h"

namespace gf {

// Looks again and again, without a fixed sleep before the first look; false when it did not come true in time.
bool Eventually(const std::function<bool()>& condition, int64_t timeout = kPatience);

// The counts of gf_live_objects by kind.
std::map<std::string, int64_t> LiveObjects();
// "calls: 1 instead of 0, ..." once they differ from `before` for good; "" when they are back.
std::string LeftBehind(const std::map<std::string, int64_t>& before, int64_t timeout = kPatience);

// Whether no call, pass, context, send or recv function lives in this process, on any worker.
bool NothingUnderWay();

// Threads that are joined at the end; what one throws fails the test.
class Threads {
 public:
  Threads() = default;
  Threads(const Threads&) = delete;
  ~Threads() { Join(); }
  void Start(std::function<void()> body);
  void Join();

 private:
  std::vector<std::thread> threads_;
};

// Every test ends with as many live objects of every kind as it began with. What ends in the background gets time.
class LiveTest : public ::testing::Test {
 protected:
  void SetUp() override { before_ = LiveObjects(); }
  void TearDown() override { EXPECT_EQ(LeftBehind(before_), ""); }

 private:
  std::map<std::string, int64_t> before_;
};

}  // namespace gf
