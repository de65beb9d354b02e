// A worker whose listener died of a stranger, and whose port somebody else took: it tells its new address, those who
// are with it stay, and those who come find it there.
#include <gtest/gtest.h>

#include "tests/hostile/offenders.h"
#include "tests/hostile/pair.h"
#include "tests/support/c_abi/log.h"
#include "tests/support/plugin/held_port.h"

namespace gf {
namespace {

class MovedTest : public LiveTest {};

TEST_F(MovedTest, AWorkerThatHadToMoveIsFoundAtItsNewAddress) {
  const Pair pair("tensorpipe", {}, {});
  const LogLines log;
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  const std::string before = Address(pair.b());
  const gradferry::plugin_testing::HeldPort held(before);
  { const Socket offender(before); }
  ASSERT_TRUE(Eventually([&] { return Address(pair.b()) != before; }));
  EXPECT_TRUE(log.Has({"worker b listens at " + Address(pair.b()) + " now"})) << log.All();
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
  // Whoever looks for it now, and whoever has to connect anew.
  const Worker late = OpenWorker(WorkerConfig("tensorpipe", "", "late", 2));
  AddPeer(late, 1, "b", Address(pair.b()));
  EXPECT_EQ(Pair::AddAt(late, "b"), 3);
  Call(gf_worker_close, late, kPatience);
  AddPeer(pair.a(), 1, "b", Address(pair.b()));
  EXPECT_EQ(Pair::AddAt(pair.a(), "b"), 3);
}

}  // namespace
}  // namespace gf
