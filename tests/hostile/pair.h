// Two workers with settings of their own, which know each other's addresses.
#pragma once

#include <string>

#include "tests/support/c_abi/group.h"

namespace gf {

class Pair {
 public:
  Pair(const std::string& transport, const Settings& first, const Settings& second)
      : network_(UniqueName()),
        a_(OpenWorker(WorkerConfig(transport, network_, "a", 0, first))),
        b_(OpenWorker(WorkerConfig(transport, network_, "b", 1, second))) {
    AddPeer(a_, 1, "b", Address(b_));
    AddPeer(b_, 0, "a", Address(a_));
  }
  Pair(const Pair&) = delete;
  ~Pair() {
    for (gf_worker* worker : {a_.get(), b_.get()}) EXPECT_EQ(gf_worker_close(worker, kPatience, nullptr), GF_OK);
  }

  gf_worker* a() const { return a_; }
  gf_worker* b() const { return b_; }
  const std::string& network() const { return network_; }

  // a + b, over there.
  static double AddAt(gf_worker* from, const std::string& to) {
    return ReadFloats(RemoteOp(from, to, {}, "aten::add.Tensor", Floats({1}, {1}), Floats({1}, {2})))[0];
  }

 private:
  const std::string network_;
  const Worker a_, b_;
};

}  // namespace gf
