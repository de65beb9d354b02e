// gf_tensor_register_hook and gf_tensor_remove_hook: what they refuse. What hooks do is tested with passes, in
// tests/integration/c_hooks_test.cc.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/c_api/abi.h"

namespace gradferry::abi {
namespace {

using ::testing::HasSubstr;

class HookTest : public AbiTest {
 protected:
  static int32_t Keep(uintptr_t, gf_tensor*, gf_tensor**, gf_error**) { return GF_OK; }
  static gf_tensor_hook Counted(int* drops) {
    gf_tensor_hook hook{};
    hook.struct_size = sizeof(hook);
    hook.callback = Keep;
    hook.drop = [](uintptr_t token) { ++*reinterpret_cast<int*>(token); };
    hook.token = reinterpret_cast<uintptr_t>(drops);
    return hook;
  }
};

TEST_F(HookTest, WrongInputIsRefusedAndNotDropped) {
  int drops = 0;
  uint64_t id = 7;
  gf_tensor* tensor = FloatTensor({1}, {1});
  gf_tensor_hook hook = Counted(&drops);
  Failure failure = Try(gf_tensor_register_hook, tensor, &hook, &id);
  EXPECT_EQ(failure.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(failure.message, HasSubstr("does not require grad"));
  EXPECT_EQ(id, 0u);
  Must(gf_tensor_set_requires_grad, tensor, 1);
  EXPECT_EQ(Try(gf_tensor_register_hook, static_cast<gf_tensor*>(nullptr), &hook, &id).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_tensor_register_hook, tensor, static_cast<gf_tensor_hook*>(nullptr), &id).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_tensor_register_hook, tensor, &hook, static_cast<uint64_t*>(nullptr)).code, GF_INVALID_ARGUMENT);
  hook.callback = nullptr;
  EXPECT_THAT(Try(gf_tensor_register_hook, tensor, &hook, &id).message, HasSubstr("callback is NULL"));
  hook = Counted(&drops);
  hook.reserved = 1;
  EXPECT_EQ(Try(gf_tensor_register_hook, tensor, &hook, &id).code, GF_UNSUPPORTED);
  EXPECT_EQ(drops, 0);
  gf_tensor_unref(tensor);
  EXPECT_EQ(drops, 0);
}

TEST_F(HookTest, IsDroppedOnceWhenItIsRemovedOrItsTensorEnds) {
  int drops = 0;
  gf_tensor* tensor = FloatTensor({1}, {1});
  Must(gf_tensor_set_requires_grad, tensor, 1);
  gf_tensor_hook hook = Counted(&drops);
  const auto register_hook = [&] {
    uint64_t id = 0;
    Must(gf_tensor_register_hook, tensor, &hook, &id);
    EXPECT_NE(id, 0u);
    return id;
  };
  const uint64_t first = register_hook(), second = register_hook();
  EXPECT_NE(first, second);
  Must(gf_tensor_remove_hook, tensor, first);
  EXPECT_EQ(drops, 1);
  const Failure again = Try(gf_tensor_remove_hook, tensor, first);
  EXPECT_EQ(again.code, GF_NOT_FOUND);
  EXPECT_THAT(again.message, HasSubstr(std::to_string(first)));
  EXPECT_EQ(Try(gf_tensor_remove_hook, static_cast<gf_tensor*>(nullptr), second).code, GF_INVALID_ARGUMENT);
  gf_tensor* other = FloatTensor({1}, {1});
  EXPECT_EQ(Try(gf_tensor_remove_hook, other, second).code, GF_NOT_FOUND);
  gf_tensor_unref(other);
  EXPECT_EQ(drops, 1);
  gf_tensor_unref(tensor);
  EXPECT_EQ(drops, 2);
}

TEST_F(HookTest, AnErrorOfOnesOwnHasItsCodeAndMessage) {
  gf_error* made = nullptr;
  Must(gf_error_new, int32_t{GF_OUT_OF_RANGE}, "too far", size_t{7}, &made);
  EXPECT_EQ(gf_error_code(made), GF_OUT_OF_RANGE);
  EXPECT_STREQ(gf_error_text(made, GF_ERROR_MESSAGE, nullptr), "too far");
  gf_error_unref(made);
  EXPECT_EQ(Try(gf_error_new, int32_t{GF_OK}, "fine", size_t{4}, &made).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_error_new, int32_t{4711}, "what", size_t{4}, &made).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_error_new, int32_t{GF_INTERNAL}, "\xff", size_t{1}, &made).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(made, nullptr);
}

}  // namespace
}  // namespace gradferry::abi
