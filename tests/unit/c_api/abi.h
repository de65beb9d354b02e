// Short ways to write tests against gradferry.h. Included by the tests beside it.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "gradferry/gradferry.h"

namespace gradferry::abi {

// What a call that must fail said; for EXPECT_EQ with its code and EXPECT_THAT with its text.
struct Failure {
  int32_t code = GF_OK;
  std::string message;
};

// Runs a call (with a gf_error** last) and takes its error.
template <class Function, class... Arguments>
Failure Try(Function function, Arguments... arguments) {
  gf_error* error = nullptr;
  Failure failure;
  failure.code = function(arguments..., &error);
  failure.message = gf_error_text(error, GF_ERROR_MESSAGE, nullptr);
  EXPECT_EQ(gf_error_code(error), failure.code);
  gf_error_unref(error);
  return failure;
}

// Runs a call that must succeed.
template <class Function, class... Arguments>
void Must(Function function, Arguments... arguments) {
  Failure failure = Try(function, arguments...);
  ASSERT_EQ(failure.code, GF_OK) << failure.message;
}

// Makes a handle by a function whose out-parameter comes before the error.
template <class Handle, class Function, class... Arguments>
Handle* Made(Function function, Arguments... arguments) {
  Handle* handle = nullptr;
  Must(function, arguments..., &handle);
  return handle;
}

// A two-call string.
template <class Function, class... Arguments>
std::string Text(Function function, Arguments... arguments) {
  size_t length = 0;
  Must(function, arguments..., static_cast<char*>(nullptr), size_t{0}, &length);
  std::string text(length + 1, '?');
  Must(function, arguments..., text.data(), text.size(), &length);
  text.resize(length);
  return text;
}

inline gf_tensor* FloatTensor(const std::vector<int64_t>& sizes, const std::vector<float>& values) {
  gf_shape shape{};
  shape.struct_size = sizeof(shape);
  shape.dtype_code = GF_DTYPE_FLOAT;
  shape.dtype_bits = 32;
  shape.shape = sizes.data();
  shape.ndim = static_cast<int64_t>(sizes.size());
  gf_tensor* tensor = Made<gf_tensor>(gf_tensor_empty, &shape);
  gf_tensor_info info{};
  info.struct_size = sizeof(info);
  Must(gf_tensor_describe, tensor, &info);
  EXPECT_EQ(static_cast<size_t>(info.numel), values.size());
  std::copy(values.begin(), values.end(), static_cast<float*>(info.data));
  return tensor;
}

inline gf_tensor_info Describe(gf_tensor* tensor) {
  gf_tensor_info info{};
  info.struct_size = sizeof(info);
  Must(gf_tensor_describe, tensor, &info);
  return info;
}

inline std::vector<float> Floats(gf_tensor* tensor) {
  std::vector<float> values(static_cast<size_t>(Describe(tensor).numel));
  Must(gf_tensor_read, tensor, static_cast<void*>(values.data()), values.size() * sizeof(float));
  return values;
}

// Every test gives back what it made.
class AbiTest : public ::testing::Test {
 protected:
  void TearDown() override {
    EXPECT_EQ(gf_live_objects(GF_LIVE_HANDLES), 0);
    EXPECT_EQ(gf_live_objects(GF_LIVE_ERRORS), 0);
  }
};

}  // namespace gradferry::abi
