// A stock client in Python (client.py) against a worker, over TCP and a Unix socket.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "tests/integration/thrift/stock.h"

namespace gf {
namespace {

class StockPythonTest : public LiveTest, public ::testing::WithParamInterface<std::string> {};

TEST_P(StockPythonTest, CallsAWorker) {
  const Stock stock(GetParam());
  const std::string command =
      "/usr/bin/python3 tests/integration/thrift/client.py plugins/thrift/idl '" + stock.address() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0) << command;
}

INSTANTIATE_TEST_SUITE_P(Over, StockPythonTest,
                         ::testing::Values(std::string("tcp://127.0.0.1:0"), std::string("unix://")),
                         [](const auto& info) { return info.index == 0 ? "Tcp" : "Unix"; });

}  // namespace
}  // namespace gf
