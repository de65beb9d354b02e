// gf_list_*, through the C ABI.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/c_api/abi.h"

namespace gradferry::abi {
namespace {

using ::testing::HasSubstr;

class ListTest : public AbiTest {
 protected:
  ListTest() : list_(Made<gf_list>(gf_list_new)) {}
  void TearDown() override {
    gf_list_unref(list_);
    AbiTest::TearDown();
  }
  const gf_list* reading() const { return list_; }

  gf_list* list_;
};

TEST_F(ListTest, HoldsEveryKindInOrder) {
  gf_tensor* tensor = FloatTensor({1}, {5});
  gf_list* inner = Made<gf_list>(gf_list_new);
  Must(gf_list_push_int, inner, int64_t{7});
  Must(gf_list_push_none, list_);
  Must(gf_list_push_bool, list_, 5);
  Must(gf_list_push_int, list_, INT64_MIN);
  Must(gf_list_push_double, list_, 0.5);
  Must(gf_list_push_string, list_, "h\xc3\xa9", size_t{3});
  Must(gf_list_push_bytes, list_, static_cast<const void*>("\xff\0x"), size_t{3});
  Must(gf_list_push_tensor, list_, tensor);
  Must(gf_list_push_list, list_, inner);
  Must(gf_list_push_default, list_);

  ASSERT_EQ(gf_list_size(list_), 9u);
  const uint32_t kinds[] = {GF_VALUE_NONE,  GF_VALUE_BOOL,   GF_VALUE_INT,  GF_VALUE_DOUBLE, GF_VALUE_STRING,
                            GF_VALUE_BYTES, GF_VALUE_TENSOR, GF_VALUE_LIST, GF_VALUE_DEFAULT};
  for (size_t i = 0; i < 9; ++i) EXPECT_EQ(gf_list_kind(list_, i), kinds[i]) << i;

  int32_t truth = 0;
  Must(gf_list_get_bool, reading(), size_t{1}, &truth);
  EXPECT_EQ(truth, 1);
  int64_t integer = 0;
  Must(gf_list_get_int, reading(), size_t{2}, &integer);
  EXPECT_EQ(integer, INT64_MIN);
  double number = 0;
  Must(gf_list_get_double, reading(), size_t{3}, &number);
  EXPECT_EQ(number, 0.5);
  const char* bytes = nullptr;
  size_t length = 0;
  Must(gf_list_get_bytes, reading(), size_t{4}, &bytes, &length);
  EXPECT_EQ(std::string(bytes, length), "h\xc3\xa9");
  Must(gf_list_get_bytes, reading(), size_t{5}, &bytes, &length);
  EXPECT_EQ(std::string(bytes, length), std::string("\xff\0x", 3));
  gf_tensor* got = Made<gf_tensor>(gf_list_get_tensor, reading(), size_t{6});
  EXPECT_EQ(gf_tensor_is_same(got, tensor), 1);
  gf_list* got_inner = Made<gf_list>(gf_list_get_list, reading(), size_t{7});
  EXPECT_EQ(gf_list_size(got_inner), 1u);
  gf_list_unref(got_inner);
  gf_tensor_unref(got);
  gf_list_unref(inner);
  gf_tensor_unref(tensor);
}

TEST_F(ListTest, AListThatWasPushedIsACopy) {
  gf_list* inner = Made<gf_list>(gf_list_new);
  Must(gf_list_push_list, list_, inner);
  Must(gf_list_push_none, inner);
  gf_list* got = Made<gf_list>(gf_list_get_list, reading(), size_t{0});
  EXPECT_EQ(gf_list_size(got), 0u);
  gf_list_unref(got);
  gf_list_unref(inner);
  Must(gf_list_push_list, list_, list_);
  EXPECT_EQ(gf_list_size(list_), 2u);
}

TEST_F(ListTest, AWrongKindOrIndexIsRefused) {
  Must(gf_list_push_int, list_, int64_t{3});
  double number = 9;
  Failure kind = Try(gf_list_get_double, reading(), size_t{0}, &number);
  EXPECT_EQ(kind.code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(kind.message, "value 0 of the list is of kind int, not double");
  EXPECT_EQ(number, 0);
  int64_t integer = 9;
  EXPECT_EQ(Try(gf_list_get_int, reading(), size_t{1}, &integer).code, GF_OUT_OF_RANGE);
  EXPECT_EQ(integer, 0);
  const char* bytes = "x";
  size_t length = 9;
  EXPECT_EQ(Try(gf_list_get_bytes, reading(), size_t{0}, &bytes, &length).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(bytes, nullptr);
  EXPECT_EQ(length, 0u);
  EXPECT_EQ(gf_list_kind(list_, 1), GF_VALUE_NONE);
}

TEST_F(ListTest, BadHandlesAndTextsAreRefused) {
  gf_list* null = nullptr;
  EXPECT_EQ(gf_list_size(nullptr), 0u);
  EXPECT_EQ(gf_list_kind(nullptr, 0), GF_VALUE_NONE);
  EXPECT_EQ(Try(gf_list_push_none, null).code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(Try(gf_list_push_tensor, list_, reinterpret_cast<gf_tensor*>(list_)).message,
              HasSubstr("a gf_tensor is wanted, got a gf_list"));
  EXPECT_EQ(Try(gf_list_push_string, list_, "\xff", size_t{1}).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_list_push_bytes, list_, static_cast<const void*>(nullptr), size_t{1}).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(Try(gf_list_push_bytes, list_, static_cast<const void*>(nullptr), size_t{0}).code, GF_OK);
  EXPECT_EQ(gf_list_size(list_), 1u);
}

}  // namespace
}  // namespace gradferry::abi
