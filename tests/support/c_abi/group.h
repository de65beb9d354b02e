// Workers of one group, in this process: opened over a given transport, told each other's addresses, closed at the end.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/c_abi/gf.h"
#include "tests/support/c_abi/live.h"
#include "tests/support/c_abi/server.h"

namespace gf {

using Settings = std::map<std::string, std::string>;

// A name that no other test of this process uses, for sim's networks.
std::string UniqueName();

// The settings of a worker that listens where it likes.
Config WorkerConfig(const std::string& transport, const std::string& network, const std::string& name, int id,
                    const Settings& more = {});
void AddPeer(gf_worker* worker, int id, const std::string& name, const std::string& address);
std::string Address(gf_worker* worker);

class Group {
 public:
  // Their ids are 0, 1, ... in this order.
  Group(const std::string& transport, std::vector<std::string> names, const Settings& settings = {});
  Group(const Group&) = delete;
  // Closes what is open, and fails the test when a worker had to be cut short.
  ~Group();

  gf_worker* operator[](size_t index) const { return workers_.at(index); }
  gf_worker* operator[](const std::string& name) const;
  const std::string& name(size_t index) const { return names_.at(index); }
  const std::string& network() const { return network_; }
  size_t size() const { return workers_.size(); }

  // Where handlers of this worker that may block are registered.
  Server& server(size_t index, int threads = 4);

  // Closes all, at the same time, and gives the handles back.
  void Close();
  void Abort();

 private:
  const std::string network_;
  const std::vector<std::string> names_;
  std::vector<Worker> workers_;
  std::map<size_t, std::unique_ptr<Server>> servers_;
};

// Tests that are run over each transport, by some of the ways (ways.h).
class TransportTest : public LiveTest, public ::testing::WithParamInterface<std::string> {
 protected:
  const std::string& transport() const { return GetParam(); }
};

// Over these ways; where they are not all, a comment says why.
#define GF_OVER(suite, ...)                                                          \
  INSTANTIATE_TEST_SUITE_P(Over, suite, ::testing::Values<std::string>(__VA_ARGS__), \
                           [](const auto& info) { return info.param; })

// Over every way: for what does not belong to one transport.
#define GF_OVER_ALL_WAYS(suite) GF_OVER(suite, "sim", "tensorpipe", "thrift_unix", "thrift_tcp", "thrift_tls")

// Over every way between processes of their own.
#define GF_OVER_ALL_REAL_WAYS(suite) GF_OVER(suite, "tensorpipe", "thrift_unix", "thrift_tcp", "thrift_tls")

}  // namespace gf
