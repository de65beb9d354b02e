// A group of workers whose transport is the example plugin.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class ExampleTransportTest : public LiveTest {};

TEST_F(ExampleTransportTest, WorkersCallAndDifferentiateOverIt) {
  Group group("dgram", {"a", "b", "c"});
  EXPECT_THAT(Address(group[0]), StartsWith("@"));
  EXPECT_EQ(Info(group[0])["transport"], "dgram");
  const Tensor x = WithGrad(Floats({2}, {3, 4}));
  const Context context = NewContext(group[0]);
  // x * x on b, doubled on c.
  const Tensor square = RemoteOp(group[0], "b", In(context), "aten::mul.Tensor", x, x);
  const Tensor twice = RemoteOp(group[0], "c", In(context), "aten::add.Tensor", square, square);
  EXPECT_EQ(ReadFloats(twice), (std::vector<float>{18, 32}));
  Backward(context, {Sum(twice)});
  EXPECT_EQ(ReadFloats(Gradient(context, x)), (std::vector<float>{12, 16}));
}

TEST_F(ExampleTransportTest, LargeTensorsTravelToo) {
  Group group("dgram", {"a", "b"});
  const std::vector<float> values(3000000, 1.5f);
  const Tensor x = WithGrad(Floats({3000000}, values));
  const Context context = NewContext(group[0]);
  const Tensor sum = Sum(RemoteOp(group[0], "b", In(context), "aten::mul.Tensor", x, x));
  Backward(context, {sum});
  EXPECT_EQ(ReadFloats(Gradient(context, x)), std::vector<float>(3000000, 3.0f));
}

TEST_F(ExampleTransportTest, AnOptionThatItDoesNotHaveIsATypedError) {
  const Config unknown = WorkerConfig("dgram", "", "a", 0, {{"transport.dgram.colour", "green"}});
  const Error error = ErrorOf([&] { OpenWorker(unknown); });
  EXPECT_EQ(error.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(error.message, HasSubstr("colour"));
}

}  // namespace
}  // namespace gf
