// The library's own functions, operators, configurations and optimizers, through the C ABI.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "tests/unit/c_api/abi.h"

namespace gradferry::abi {
namespace {

using nlohmann::json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class LibraryTest : public AbiTest {};
class OperatorTest : public AbiTest {};
class ConfigHandleTest : public AbiTest {};
class OptimizerTest : public AbiTest {};

TEST_F(LibraryTest, SaysItsVersions) {
  EXPECT_EQ(gf_abi_version(), GF_ABI_EPOCH << 16 | GF_ABI_MINOR);
  json info = json::parse(Text(gf_build_info));
  EXPECT_EQ(info["abi"]["epoch"], GF_ABI_EPOCH);
  EXPECT_EQ(info["abi"]["minor"], GF_ABI_MINOR);
  EXPECT_NE(info["release"], "");
  EXPECT_NE(info["torch"]["compiled"], "");
  EXPECT_NE(info["torch"]["loaded"], "");
  std::vector<std::string> names;
  for (const json& plugin : info["plugins"]) {
    names.push_back(plugin["name"]);
    EXPECT_THAT(plugin["path"], HasSubstr("libgradferry_transport_" + names.back() + ".so"));
  }
  EXPECT_THAT(names, ::testing::Contains("sim"));
}

TEST_F(LibraryTest, CountsOnlyKindsThatExist) {
  for (uint32_t kind = 0; kind <= GF_LIVE_OPTIMIZERS; ++kind) EXPECT_EQ(gf_live_objects(kind), 0) << kind;
  EXPECT_EQ(gf_live_objects(GF_LIVE_OPTIMIZERS + 1), -1);
  EXPECT_EQ(gf_live_objects(GF_LIVE_AUTOGRAD_CONTEXTS - 1), -1);
  for (uint32_t kind = GF_LIVE_AUTOGRAD_CONTEXTS; kind <= GF_LIVE_CONNECTIONS; ++kind) {
    EXPECT_EQ(gf_live_objects(kind), 0) << kind;
  }
  EXPECT_EQ(gf_live_objects(GF_LIVE_CONNECTIONS + 1), -1);
  EXPECT_EQ(gf_live_objects(UINT32_MAX), -1);
  gf_list* list = Made<gf_list>(gf_list_new);
  EXPECT_EQ(gf_live_objects(GF_LIVE_LISTS), 1);
  EXPECT_EQ(gf_live_objects(GF_LIVE_HANDLES), 1);
  gf_list_unref(list);
}

void KeepMessage(uintptr_t token, uint32_t, const char* message, size_t length) {
  reinterpret_cast<std::string*>(token)->append(message, length);
}

TEST_F(LibraryTest, AWarningOfLibtorchsGoesToTheLogAndNowhereElse) {
  std::string messages;
  Must(gf_log_set, &KeepMessage, reinterpret_cast<uintptr_t>(&messages), GF_LOG_WARNING);
  // Deprecated for other than two dimensions, of which libtorch warns.
  gf_tensor* tensor = FloatTensor({1, 1, 1}, {1});
  gf_list* arguments = Made<gf_list>(gf_list_new);
  Must(gf_list_push_tensor, arguments, tensor);
  gf_operator* op = Made<gf_operator>(gf_operator_find, "aten::numpy_T", size_t{13}, "", size_t{0});
  ::testing::internal::CaptureStderr();
  gf_list* results = Made<gf_list>(gf_operator_call, op, static_cast<const gf_list*>(arguments), GF_GRAD_OFF);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  EXPECT_THAT(messages, HasSubstr("deprecated"));
  Must(gf_log_set, static_cast<gf_log_callback>(nullptr), uintptr_t{0}, GF_LOG_OFF);
  EXPECT_EQ(Try(gf_log_set, &KeepMessage, uintptr_t{0}, GF_LOG_OFF + 1).code, GF_INVALID_ARGUMENT);
  gf_list_unref(results);
  gf_operator_unref(op);
  gf_list_unref(arguments);
  gf_tensor_unref(tensor);
}

TEST_F(OperatorTest, IsFoundByNameAndOverloadAndCalled) {
  gf_operator* add = Made<gf_operator>(gf_operator_find, "aten::add", size_t{9}, "Tensor", size_t{6});
  size_t length = 0;
  EXPECT_STREQ(gf_operator_schema(add, &length),
               "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor");
  EXPECT_EQ(length, strlen(gf_operator_schema(add, nullptr)));
  gf_tensor* a = FloatTensor({2}, {1, 2});
  gf_tensor* b = FloatTensor({2}, {10, 20});
  gf_list* arguments = Made<gf_list>(gf_list_new);
  Must(gf_list_push_tensor, arguments, a);
  Must(gf_list_push_tensor, arguments, b);
  Must(gf_list_push_int, arguments, int64_t{2});
  gf_list* results = Made<gf_list>(gf_operator_call, add, static_cast<const gf_list*>(arguments), GF_GRAD_OFF);
  ASSERT_EQ(gf_list_size(results), 1u);
  gf_tensor* sum = Made<gf_tensor>(gf_list_get_tensor, static_cast<const gf_list*>(results), size_t{0});
  EXPECT_THAT(Floats(sum), ElementsAre(21, 42));
  gf_tensor_unref(sum);
  gf_list_unref(results);

  Must(gf_list_push_int, arguments, int64_t{2});
  gf_list* none = nullptr;
  Failure failure = Try(gf_operator_call, add, static_cast<const gf_list*>(arguments), GF_GRAD_OFF, &none);
  EXPECT_EQ(failure.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(failure.message, HasSubstr("at most 3 arguments, got 4"));
  failure = Try(gf_operator_call, add, static_cast<const gf_list*>(nullptr), GF_GRAD_OFF, &none);
  EXPECT_THAT(failure.message, HasSubstr("self"));
  EXPECT_EQ(Try(gf_operator_call, add, static_cast<const gf_list*>(arguments), 7u, &none).code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(none, nullptr);
  gf_list_unref(arguments);
  gf_tensor_unref(a);
  gf_tensor_unref(b);
  gf_operator_unref(add);
}

TEST_F(OperatorTest, OneThatDoesNotExistIsNamed) {
  gf_operator* none = nullptr;
  Failure failure = Try(gf_operator_find, "aten::add", size_t{9}, "Tensr", size_t{5}, &none);
  EXPECT_EQ(failure.code, GF_NOT_FOUND);
  EXPECT_THAT(failure.message, HasSubstr("'Tensor'"));
  EXPECT_STREQ(gf_operator_schema(nullptr, nullptr), "");
}

void Load(gf_config* config, const char* toml) { Must(gf_config_load_text, config, toml, strlen(toml)); }

TEST_F(ConfigHandleTest, DescribesWhatIsInEffectNow) {
  gf_config* config = Made<gf_config>(gf_config_new);
  Load(config, "worker.name = 'a'\nworker.threads = 3");
  Must(gf_config_set, config, "worker.threads", size_t{14}, "4", size_t{1});
  ASSERT_EQ(setenv("GRADFERRY_CALL_TIMEOUT", "5s", 1), 0);
  json all = json::parse(Text(gf_config_describe, config));
  EXPECT_EQ(all["worker.name"], json::parse(R"({"value": "a", "from": "file", "where": "line 1"})"));
  EXPECT_EQ(all["worker.threads"], json::parse(R"({"value": 4, "from": "call"})"));
  EXPECT_EQ(all["call.timeout"],
            json::parse(R"({"value": "5s", "from": "environment", "where": "GRADFERRY_CALL_TIMEOUT"})"));
  unsetenv("GRADFERRY_CALL_TIMEOUT");
  all = json::parse(Text(gf_config_describe, config));
  EXPECT_EQ(all["call.timeout"], json::parse(R"({"value": "60s", "from": "default"})"));
  gf_config_unref(config);
}

TEST_F(ConfigHandleTest, ErrorsNameTheLineAndTheNearestKey) {
  gf_config* config = Made<gf_config>(gf_config_new);
  const char* text = "[worker]\nthread = 3";
  Failure failure = Try(gf_config_load_text, config, text, strlen(text));
  EXPECT_EQ(failure.code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(failure.message, "line 2: unknown key worker.thread (did you mean worker.threads?)");
  const char* path = "/nonexistent/worker.toml";
  failure = Try(gf_config_load_file, config, path, strlen(path));
  EXPECT_EQ(failure.code, GF_NOT_FOUND);
  EXPECT_THAT(failure.message, HasSubstr(path));
  EXPECT_EQ(Try(gf_config_load_file, config, static_cast<const char*>(nullptr), size_t{0}).code, GF_INVALID_ARGUMENT);
  gf_config_unref(config);
}

gf_optimizer* NewOptimizer(const char* spec, gf_list* parameters) {
  return Made<gf_optimizer>(gf_optimizer_new, spec, strlen(spec), static_cast<const gf_list*>(parameters));
}

TEST_F(OptimizerTest, TakesLeavesThatRequireGradAndNothingElse) {
  gf_tensor* leaf = FloatTensor({2}, {1, 2});
  gf_list* parameters = Made<gf_list>(gf_list_new);
  Must(gf_list_push_tensor, parameters, leaf);
  const char* spec = "sgd = { lr = 0.1 }";
  gf_optimizer* none = nullptr;
  Failure failure = Try(gf_optimizer_new, spec, strlen(spec), static_cast<const gf_list*>(parameters), &none);
  EXPECT_EQ(failure.code, GF_INVALID_ARGUMENT);
  EXPECT_THAT(failure.message, HasSubstr("require"));
  Must(gf_tensor_set_requires_grad, leaf, 1);
  gf_optimizer* optimizer = NewOptimizer(spec, parameters);
  EXPECT_EQ(gf_live_objects(GF_LIVE_OPTIMIZERS), 1);
  gf_optimizer_unref(optimizer);

  Must(gf_list_push_int, parameters, int64_t{3});
  failure = Try(gf_optimizer_new, spec, strlen(spec), static_cast<const gf_list*>(parameters), &none);
  EXPECT_EQ(failure.message, "parameters are tensors; value 1 of the list is of kind int");
  const char* wrong = "sgdd = { lr = 0.1 }";
  failure = Try(gf_optimizer_new, wrong, strlen(wrong), static_cast<const gf_list*>(parameters), &none);
  EXPECT_EQ(failure.code, GF_INVALID_ARGUMENT);
  EXPECT_EQ(none, nullptr);
  gf_list_unref(parameters);
  gf_tensor_unref(leaf);
}

}  // namespace
}  // namespace gradferry::abi
