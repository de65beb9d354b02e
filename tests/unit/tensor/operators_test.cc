// Operators by name: how values become arguments, what errors say, what results become, and that neither the caller's
// grad mode nor its inference mode matters.
#include "impl/tensor/operators.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/library.h>
#include <torch/version.h>

#include <optional>

#include "impl/base/log.h"

namespace gradferry {
namespace {

bool Contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }
#define EXPECT_CONTAINS(text, part) EXPECT_PRED2(Contains, text, part)

std::shared_ptr<const Operator> Find(const std::string& name, const std::string& overload = "") {
  Result<std::shared_ptr<const Operator>> found = Operator::Find(name, overload);
  EXPECT_TRUE(found.ok()) << found.status().ToString();
  return *found;
}

ValueList Call(const std::string& name, const std::string& overload, const ValueList& arguments, bool record = false) {
  Result<ValueList> results = Find(name, overload)->Call(arguments, record);
  EXPECT_TRUE(results.ok()) << results.status().ToString();
  return results.ok() ? *results : ValueList{};
}

at::Tensor CallOne(const std::string& name, const std::string& overload, const ValueList& arguments,
                   bool record = false) {
  const ValueList results = Call(name, overload, arguments, record);
  EXPECT_EQ(results.size(), 1u);
  return *results.at(0).get<at::Tensor>();
}

Status Failure(const std::string& name, const std::string& overload, const ValueList& arguments) {
  const Status status = Find(name, overload)->Call(arguments, false).status();
  EXPECT_FALSE(status.ok());
  EXPECT_EQ(status.error()->operation, Find(name, overload)->full_name());
  return status;
}

// As an argument: {ValueList{...}} would copy the inner list instead of making a list of one list.
Value List(ValueList values) { return Value(std::move(values)); }

void ExpectEqual(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_TRUE(at::equal(actual, expected)) << actual << "\nis not\n" << expected;
}

// What libtorch's schemas call optional.
#if TORCH_VERSION_MAJOR >= 2
template <class T>
using Optional = std::optional<T>;
#else
template <class T>
using Optional = c10::optional<T>;
#endif

// Operators of our own, for parameters and results that few operators of libtorch have.
TORCH_LIBRARY(gradferry_test, library) {
  library.def("device_text(Device device) -> str", [](c10::Device device) { return device.str(); });
  library.def("scalar(Scalar x) -> Scalar", [](const at::Scalar& x) { return x; });
  library.def("complex() -> Scalar", []() { return at::Scalar(c10::complex<double>(1, 2)); });
  library.def("device() -> Device", []() { return c10::Device(c10::kCPU); });
  library.def("named_device() -> (int first, Device where)",
              []() { return std::make_tuple(int64_t{1}, c10::Device(c10::kCPU)); });
  library.def("floats(float[] x) -> float[]", [](const std::vector<double>& x) { return x; });
  library.def("optional_floats(float[]? x) -> bool",
              [](const Optional<std::vector<double>>& x) { return x.has_value(); });
  library.def("strings(str[] x) -> str[]", [](const c10::List<std::string>& x) { return x; });
  library.def("text(str x) -> str", [](const std::string& x) { return x; });
  library.def("truths(bool[] x) -> bool[]", [](const c10::List<bool>& x) { return x; });
  library.def("nothing(int x) -> ()", [](int64_t) {});
  library.def("no_default(int? x) -> bool", [](Optional<int64_t> x) { return x.has_value(); });
  library.def("no_tensor() -> Tensor", []() { return at::Tensor(); });
  library.def("warns() -> ()", []() { TORCH_WARN("be careful"); });
  library.def("throws(str what) -> ()", [](const std::string& what) {
    TORCH_CHECK_INDEX(what != "index", "an index");
    TORCH_CHECK_VALUE(what != "value", "a value");
    TORCH_CHECK_TYPE(what != "type", "a type");
    TORCH_CHECK_NOT_IMPLEMENTED(what != "not implemented", "not there");
    TORCH_CHECK(what != "plain", "plain");
    if (what == "std") throw std::runtime_error("of std");
    throw 3;
  });
}

// ---- Finding ----

TEST(FindOperator, KnowsItsSchema) {
  const auto add = Find("aten::add", "Tensor");
  EXPECT_EQ(add->full_name(), "aten::add.Tensor");
  EXPECT_EQ(add->schema(), "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor");
  EXPECT_EQ(Find("aten::relu")->full_name(), "aten::relu");
}

TEST(FindOperator, AWrongOverloadGetsTheRightOnes) {
  const Status status = Operator::Find("aten::relu", "Tensor").status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), "operator aten::relu has no overload 'Tensor'; it has '', 'out'");
}

TEST(FindOperator, AWrongNameGetsANearOne) {
  const Status status = Operator::Find("aten::rellu", "").status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_EQ(status.message(), "no operator 'aten::rellu' is registered (did you mean aten::relu?)");
  EXPECT_EQ(Operator::Find("nonsense", "").status().message(), "no operator 'nonsense' is registered");
}

TEST(FindOperator, AnOverloadWithinTheNameIsExplained) {
  EXPECT_EQ(Operator::Find("aten::add.Tensor", "").status().message(),
            "no operator 'aten::add.Tensor' is registered; the overload 'Tensor' is an argument of its own, beside the "
            "name 'aten::add'");
}

TEST(FindOperator, OneWithoutFixedArgumentsIsRefused) {
  EXPECT_EQ(Operator::Find("static_runtime::dict_unpack", "").status().code(), Code::kUnsupported);
}

// ---- Arguments ----

TEST(CallOperator, TakesPositionalArgumentsAndDefaults) {
  const at::Tensor a = at::full({2}, 3.), b = at::full({2}, 4.);
  ExpectEqual(CallOne("aten::add", "Tensor", {a, b}), at::full({2}, 7.));
  ExpectEqual(CallOne("aten::add", "Tensor", {a, b, DefaultValue{}}), at::full({2}, 7.));
  ExpectEqual(CallOne("aten::add", "Tensor", {a, b, 2}), at::full({2}, 11.));
}

TEST(CallOperator, ADefaultMayStandInTheMiddle) {
  const at::Tensor image = at::ones({1, 1, 2, 2}), kernel = at::ones({1, 1, 2, 2});
  ExpectEqual(CallOne("aten::conv2d", "", {image, kernel, DefaultValue{}, DefaultValue{}, 1}),
              at::conv2d(image, kernel, {}, 1, 1));
}

TEST(CallOperator, ScalarsTakeIntsDoublesAndBools) {
  EXPECT_EQ(*Call("gradferry_test::scalar", "", {3})[0].get<int64_t>(), 3);
  EXPECT_EQ(*Call("gradferry_test::scalar", "", {0.5})[0].get<double>(), 0.5);
  EXPECT_EQ(*Call("gradferry_test::scalar", "", {true})[0].get<bool>(), true);
  const std::vector<at::Scalar> wanted{1, 2.5};
  const ValueList sums =
      Call("aten::_foreach_add", "ScalarList", {List({at::ones({1}), at::ones({1})}), List({1, 2.5})});
  const ValueList& tensors = *sums.at(0).get<ValueList>();
  EXPECT_EQ(tensors.at(0).get<at::Tensor>()->item<double>(), 2);
  EXPECT_EQ(tensors.at(1).get<at::Tensor>()->item<double>(), 3.5);
}

TEST(CallOperator, FloatsTakeInts) {
  ExpectEqual(CallOne("aten::dropout", "", {at::ones({3}), 1, true}), at::zeros({3}));
  EXPECT_EQ(*Call("gradferry_test::floats", "", {List({1, 2.5})})[0].get<ValueList>()->at(0).get<double>(), 1.0);
}

TEST(CallOperator, EnumsAreInts) {
  const at::Tensor converted = CallOne("aten::to", "dtype", {at::ones({2}), static_cast<int64_t>(at::kDouble)});
  EXPECT_EQ(converted.scalar_type(), at::kDouble);
  const at::Tensor dense = CallOne("aten::empty", "memory_format",
                                   {List({1, 2, 3, 4}), static_cast<int64_t>(at::kLong), 0 /* strided */, "cpu", false,
                                    static_cast<int64_t>(at::MemoryFormat::ChannelsLast)});
  EXPECT_EQ(dense.scalar_type(), at::kLong);
  EXPECT_TRUE(dense.is_contiguous(at::MemoryFormat::ChannelsLast));
}

TEST(CallOperator, DevicesAreStrings) {
  EXPECT_EQ(*Call("gradferry_test::device_text", "", {"cuda:1"})[0].get<std::string>(), "cuda:1");
  EXPECT_EQ(Failure("gradferry_test::device_text", "", {"toaster"}).message(),
            "gradferry_test::device_text: parameter 'device' wants Device, got string \"toaster\"");
}

TEST(CallOperator, ListsOfAllKinds) {
  const at::Tensor a = at::ones({2}), b = at::zeros({1});
  ExpectEqual(CallOne("aten::cat", "", {List({a, b})}), at::cat({a, b}));
  ExpectEqual(CallOne("aten::permute", "", {at::ones({2, 3}), List({1, 0})}), at::ones({3, 2}));
  EXPECT_EQ(Call("gradferry_test::strings", "", {List({"a", "b"})})[0].get<ValueList>()->size(), 2u);
  EXPECT_EQ(*Call("gradferry_test::truths", "", {List({true, false})})[0].get<ValueList>()->at(1).get<bool>(), false);
  EXPECT_EQ(Call("gradferry_test::floats", "", {List({})})[0].get<ValueList>()->size(), 0u);
}

TEST(CallOperator, ListsOfOptionalTensorsTakeNone) {
  const at::Tensor x = at::arange(6).reshape({2, 3});
  const at::Tensor index = at::tensor({2, 0}, at::kLong);
  ExpectEqual(CallOne("aten::index", "Tensor", {x, List({None{}, index})}), x.index_select(1, index));
  ExpectEqual(CallOne("aten::index", "Tensor", {x, List({at::Tensor(), index})}), x.index_select(1, index));
}

TEST(CallOperator, OneIntStandsForAListOfKnownLength) {
  const at::Tensor image = at::ones({1, 1, 4, 4}), kernel = at::ones({1, 1, 2, 2});
  ExpectEqual(CallOne("aten::conv2d", "", {image, kernel, None{}, 2}), at::full({1, 1, 2, 2}, 4.));
  ExpectEqual(CallOne("aten::conv2d", "", {image, kernel, None{}, List({2, 2})}), at::full({1, 1, 2, 2}, 4.));
  ExpectEqual(CallOne("aten::sum", "dim_IntList", {image, 3}), image.sum(3));  // int[1]? dim
  EXPECT_EQ(Failure("aten::permute", "", {at::ones({2}), 0}).message(),
            "aten::permute: parameter 'dims' wants int[], got int 0");
}

TEST(CallOperator, OptionalParametersTakeNone) {
  EXPECT_FALSE(*Call("gradferry_test::no_default", "", {None{}})[0].get<bool>());
  EXPECT_TRUE(*Call("gradferry_test::no_default", "", {3})[0].get<bool>());
  EXPECT_FALSE(*Call("gradferry_test::optional_floats", "", {None{}})[0].get<bool>());
  EXPECT_TRUE(*Call("gradferry_test::optional_floats", "", {List({1})})[0].get<bool>());
  const at::Tensor sample = CallOne("aten::bernoulli", "", {at::ones({2}), None{}});  // Generator?
  ExpectEqual(sample, at::ones({2}));
}

TEST(CallOperator, SymbolicSizesAreInts) {
  ExpectEqual(CallOne("aten::expand", "", {at::ones({1}), List({4})}), at::ones({4}));
  ExpectEqual(CallOne("aten::slice", "Tensor", {at::arange(5), 0, 1, 4, 2}), at::arange(5).slice(0, 1, 4, 2));
  ExpectEqual(CallOne("aten::slice", "Tensor", {at::arange(5), 0, None{}, 2}), at::arange(2));
}

TEST(CallOperator, OutVariantsAndInPlaceOperatorsWriteWhereTold) {
  at::Tensor out = at::empty({2});
  const at::Tensor result = CallOne("aten::add", "out", {at::ones({2}), at::ones({2}), 1, out});
  EXPECT_TRUE(result.is_same(out));
  ExpectEqual(out, at::full({2}, 2.));
  EXPECT_TRUE(CallOne("aten::mul_", "Scalar", {out, 3}).is_same(out));
  ExpectEqual(out, at::full({2}, 6.));
}

// ---- Errors ----

TEST(CallOperatorError, NamesOperatorParameterWantedAndGot) {
  const at::Tensor x = at::ones({2, 3});
  const std::pair<ValueList, const char*> cases[] = {
      {{x}, "parameter 'other' wants Tensor, got nothing"},
      {{x, DefaultValue{}}, "parameter 'other' wants Tensor, got default, but it has none"},
      {{x, 3}, "parameter 'other' wants Tensor, got int 3"},
      {{x, None{}}, "parameter 'other' wants Tensor, got none"},
      {{x, at::Tensor()}, "parameter 'other' wants Tensor, got undefined tensor"},
      {{x, Bytes{"abc"}}, "parameter 'other' wants Tensor, got 3 bytes"},
      {{x, List({1, 2})}, "parameter 'other' wants Tensor, got list of 2"},
      {{x, x, x}, "parameter 'alpha' wants Scalar, got tensor float32[2, 3]"},
      {{x, x, "one"}, "parameter 'alpha' wants Scalar, got string \"one\""},
  };
  for (const auto& [arguments, text] : cases) {
    const Status status = Failure("aten::add", "Tensor", arguments);
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_EQ(status.message(), StrCat("aten::add.Tensor: ", text));
  }
}

TEST(CallOperatorError, TypesAreNotMixedSilently) {
  EXPECT_CONTAINS(Failure("aten::relu", "", {1.5}).message(), "wants Tensor, got double 1.5");
  EXPECT_CONTAINS(Failure("gradferry_test::nothing", "", {1.5}).message(), "'x' wants int, got double 1.5");
  EXPECT_CONTAINS(Failure("gradferry_test::nothing", "", {true}).message(), "'x' wants int, got bool true");
  EXPECT_CONTAINS(Failure("gradferry_test::no_default", "", {"1"}).message(), "'x' wants int?, got string \"1\"");
  EXPECT_CONTAINS(Failure("gradferry_test::text", "", {3}).message(), "'x' wants str, got int 3");
  EXPECT_CONTAINS(Failure("aten::dropout", "", {at::ones({1}), 0.5, 1}).message(), "'train' wants bool, got int 1");
  EXPECT_CONTAINS(Failure("aten::dropout", "", {at::ones({1}), false, true}).message(),
                  "'p' wants float, got bool false");
}

TEST(CallOperatorError, ElementsOfListsAreNamed) {
  EXPECT_CONTAINS(Failure("aten::cat", "", {List({at::ones({1}), 2})}).message(),
                  "parameter 'tensors' wants Tensor[], got a list with int 2 at index 1");
  EXPECT_CONTAINS(Failure("aten::conv2d", "", {at::ones({1}), at::ones({1}), None{}, "wide"}).message(),
                  "parameter 'stride' wants int[2], got string \"wide\"");
  EXPECT_CONTAINS(Failure("gradferry_test::truths", "", {List({1})}).message(), "'x' wants bool[], got a list with");
}

TEST(CallOperatorError, LongStringsAreCut) {
  EXPECT_CONTAINS(Failure("aten::relu", "", {std::string(1000, 'x')}).message(),
                  "got string \"" + std::string(40, 'x') + "...\"");
}

TEST(CallOperatorError, NothingCanBePassedAsAGenerator) {
  EXPECT_CONTAINS(Failure("aten::bernoulli", "", {at::ones({2}), 3}).message(),
                  "parameter 'generator' wants Generator?, got int 3");
}

TEST(CallOperatorError, TooManyArgumentsAreCounted) {
  EXPECT_EQ(Failure("aten::relu", "", {at::ones({1}), 2, 3}).message(), "aten::relu takes at most 1 arguments, got 3");
}

TEST(CallOperatorError, AFailureKeepsTheMessageAndPutsTheBacktraceAside) {
  const Status status = Failure("aten::mm", "", {at::ones({2, 3}), at::ones({2, 3})});
  EXPECT_EQ(status.message(), "aten::mm: mat1 and mat2 shapes cannot be multiplied (2x3 and 2x3)");
  EXPECT_CONTAINS(status.error()->backtrace, "frame #0");
}

TEST(CallOperatorError, CodesFollowTheExceptionsType) {
  const std::pair<const char*, Code> cases[] = {
      {"index", Code::kInvalidArgument}, {"value", Code::kInvalidArgument},
      {"type", Code::kInvalidArgument},  {"not implemented", Code::kUnimplemented},
      {"plain", Code::kUnknown},         {"std", Code::kUnknown},
      {"other", Code::kUnknown},
  };
  for (const auto& [what, code] : cases) {
    EXPECT_EQ(Failure("gradferry_test::throws", "", {what}).code(), code) << what;
  }
  EXPECT_EQ(Failure("gradferry_test::throws", "", {"std"}).message(), "gradferry_test::throws: of std");
  EXPECT_EQ(Failure("aten::empty", "memory_format", {List({int64_t{1} << 58})}).code(), Code::kResourceExhausted);
}

// ---- Results ----

TEST(OperatorResults, OneValuePerReturn) {
  const at::Tensor x = at::arange(6, at::kFloat).reshape({2, 3});
  const ValueList results = Call("aten::max", "dim", {x, 1});
  ASSERT_EQ(results.size(), 2u);
  ExpectEqual(*results[0].get<at::Tensor>(), at::tensor({2.f, 5.f}));
  ExpectEqual(*results[1].get<at::Tensor>(), at::tensor({2, 2}, at::kLong));
  EXPECT_TRUE(Call("gradferry_test::nothing", "", {1}).empty());
}

TEST(OperatorResults, ListsOfTensorsAreOneValue) {
  const ValueList results = Call("aten::split", "Tensor", {at::arange(5), 2});
  ASSERT_EQ(results.size(), 1u);
  const ValueList& parts = *results[0].get<ValueList>();
  ASSERT_EQ(parts.size(), 3u);
  ExpectEqual(*parts[2].get<at::Tensor>(), at::full({1}, 4, at::kLong));
}

TEST(OperatorResults, NumbersAndTruths) {
  EXPECT_EQ(*Call("aten::item", "", {at::scalar_tensor(2.5)})[0].get<double>(), 2.5);
  EXPECT_EQ(*Call("aten::item", "", {at::scalar_tensor(2, at::kLong)})[0].get<int64_t>(), 2);
  EXPECT_EQ(*Call("aten::is_complex", "", {at::ones({1})})[0].get<bool>(), false);
  EXPECT_EQ(*Call("aten::size", "int", {at::ones({4, 5}), 1})[0].get<int64_t>(), 5);
  EXPECT_EQ(*Call("aten::result_type", "Tensor", {at::ones({1}), at::ones({1}, at::kDouble)})[0].get<int64_t>(),
            static_cast<int64_t>(at::kDouble));
}

TEST(OperatorResults, AnUndefinedTensorIsNone) {
  EXPECT_EQ(Call("gradferry_test::no_tensor", "", {})[0].kind(), ValueKind::kNone);
  const at::Tensor x = at::ones({2, 3});
  const ValueList results =
      Call("aten::native_layer_norm_backward", "",
           {x, x, List({3}), at::zeros({2, 1}), at::ones({2, 1}), None{}, None{}, List({true, false, false})});
  ASSERT_EQ(results.size(), 3u);
  EXPECT_EQ(results[0].kind(), ValueKind::kTensor);
  EXPECT_EQ(results[1].kind(), ValueKind::kNone);
}

TEST(OperatorResults, WhatNoValueCanCarryIsNamed) {
  const Status device = Failure("gradferry_test::named_device", "", {});
  EXPECT_EQ(device.code(), Code::kUnsupported);
  EXPECT_EQ(device.message(),
            "gradferry_test::named_device: its result 'where' is of type Device (Device), which no value can carry");
  EXPECT_EQ(Failure("gradferry_test::device", "", {}).message(),
            "gradferry_test::device: its result is of type Device (Device), which no value can carry");
  EXPECT_EQ(Failure("gradferry_test::complex", "", {}).code(), Code::kUnsupported);
}

// ---- The thread's state ----

TEST(OperatorGradMode, TheArgumentDecidesAndTheThreadsModeComesBack) {
  const at::Tensor x = at::ones({2}).requires_grad_();
  for (bool thread_records : {true, false}) {
    at::AutoGradMode mode(thread_records);
    EXPECT_TRUE(CallOne("aten::mul", "Scalar", {x, 2}, true).requires_grad());
    EXPECT_EQ(at::GradMode::is_enabled(), thread_records);
    EXPECT_FALSE(CallOne("aten::mul", "Scalar", {x, 2}, false).requires_grad());
    EXPECT_EQ(at::GradMode::is_enabled(), thread_records);
  }
}

TEST(OperatorGradMode, InferenceModeOfTheThreadDoesNotMatter) {
  const at::Tensor x = at::ones({2}).requires_grad_();
  {
    c10::InferenceMode inference;
    const at::Tensor y = CallOne("aten::mul", "Scalar", {x, 2}, true);
    EXPECT_TRUE(y.requires_grad());
    EXPECT_FALSE(y.is_inference());
    EXPECT_TRUE(c10::InferenceMode::is_enabled());
  }
  at::AutoDispatchBelowAutograd below;
  EXPECT_TRUE(CallOne("aten::mul", "Scalar", {x, 2}, true).requires_grad());
}

TEST(OperatorGradMode, AFailingCallRestoresTheModeToo) {
  at::AutoGradMode mode(true);
  EXPECT_FALSE(Find("aten::mm")->Call({at::ones({2, 3}), at::ones({2, 3})}, false).ok());
  EXPECT_TRUE(at::GradMode::is_enabled());
}

TEST(OperatorGradMode, ARecordedCallGivesTheGradientOfLocalAutograd) {
  const at::Tensor x = at::tensor({1., 2.}).requires_grad_();
  at::NoGradGuard no_grad;
  const at::Tensor y = CallOne("aten::pow", "Tensor_Scalar", {x, 3}, true);
  CallOne("aten::sum", "", {y}, true).backward();
  ExpectEqual(x.grad(), at::tensor({3., 12.}));
}

// ---- Warnings ----

TEST(OperatorWarnings, GoToTheLogAndNotToStderr) {
  static std::vector<std::string> messages;
  messages.clear();
  SetLog(
      [](uintptr_t, uint32_t level, const char* text, size_t length) {
        EXPECT_EQ(level, static_cast<uint32_t>(LogLevel::kWarning));
        messages.emplace_back(text, length);
      },
      0, LogLevel::kWarning);
  testing::internal::CaptureStderr();
  Call("gradferry_test::warns", "", {});
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  SetLog(nullptr, 0, LogLevel::kOff);
  EXPECT_EQ(messages, std::vector<std::string>{"libtorch: be careful"});
}

}  // namespace
}  // namespace gradferry
