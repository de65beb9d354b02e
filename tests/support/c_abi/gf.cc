// See gf.h.
#include "tests/support/c_abi/gf.h"

#include <memory>
#include <random>
#include <stdexcept>
#include <tuple>

namespace gf {

// ---- Errors --------------------------------------------------------------------------------------------------------

Failure::Failure(Error failed) : error_(std::move(failed)) {
  text_ = std::string(gf_code_name(error_.code)) + ": " + error_.description;
}

Error ReadError(const gf_error* error) {
  Error read;
  read.code = gf_error_code(error);
  auto text = [&](uint32_t which) {
    size_t length = 0;
    const char* view = gf_error_text(error, which, &length);
    return std::string(view, length);
  };
  read.message = text(GF_ERROR_MESSAGE);
  read.domain = text(GF_ERROR_DOMAIN);
  read.worker = text(GF_ERROR_WORKER);
  read.operation = text(GF_ERROR_OPERATION);
  read.peer = text(GF_ERROR_PEER);
  read.elapsed_ns = gf_error_elapsed_ns(error);
  read.retry = gf_error_retry(error);
  if (error != nullptr) {
    size_t length = 0;
    gf_error_describe(error, nullptr, 0, &length);
    read.description.resize(length + 1);
    gf_error_describe(error, &read.description[0], length + 1, &length);
    read.description.resize(length);
  }
  if (const gf_error* cause = gf_error_cause(error)) read.cause.push_back(ReadError(cause));
  return read;
}

Error TakeError(int32_t code, gf_error* error) {
  if ((code == GF_OK) != (error == nullptr)) throw std::logic_error("an error must come exactly with a failure");
  if (code != gf_error_code(error)) throw std::logic_error("the error has another code than the function returned");
  Error taken = ReadError(error);
  gf_error_unref(error);
  return taken;
}

// ---- Tensors -------------------------------------------------------------------------------------------------------

Tensor EmptyTensor(const Shape& shape, uint8_t code, uint8_t bits) {
  gf_shape wanted{};
  wanted.struct_size = sizeof(wanted);
  wanted.dtype_code = code;
  wanted.dtype_bits = bits;
  wanted.shape = shape.data();
  wanted.ndim = static_cast<int64_t>(shape.size());
  Tensor tensor;
  Call(gf_tensor_empty, &wanted, tensor.out());
  return tensor;
}

gf_tensor_info Describe(const Tensor& tensor) {
  gf_tensor_info info{};
  info.struct_size = sizeof(info);
  Call(gf_tensor_describe, tensor, &info);
  return info;
}

Shape ShapeOf(const Tensor& tensor) {
  const gf_tensor_info info = Describe(tensor);
  return Shape(info.shape, info.shape + info.ndim);
}

bool RequiresGrad(const Tensor& tensor) { return Describe(tensor).requires_grad == 1; }

Tensor WithGrad(Tensor leaf) {
  Call(gf_tensor_set_requires_grad, leaf, 1);
  return leaf;
}

namespace {

template <class Value>
Tensor RandomOf(const Shape& shape, uint32_t seed) {
  std::mt19937 engine(seed);
  size_t count = 1;
  for (int64_t size : shape) count *= static_cast<size_t>(size);
  std::vector<Value> values(count);
  for (Value& value : values) value = static_cast<Value>(engine() % 1000 + 1) / 1001;
  return TensorOf<Value>(shape, values);
}

}  // namespace

Tensor Random(const Shape& shape, uint32_t seed) { return RandomOf<float>(shape, seed); }
Tensor RandomDoubles(const Shape& shape, uint32_t seed) { return RandomOf<double>(shape, seed); }

namespace {

struct CHook {
  std::function<Tensor(const Tensor&)> hook;
  std::function<void()> dropped;
};

int32_t RunHook(uintptr_t token, gf_tensor* gradient, gf_tensor** replacement, gf_error** error) {
  const Tensor lent(gradient == nullptr ? nullptr : gf_tensor_ref(gradient));
  try {
    Tensor returned = reinterpret_cast<const CHook*>(token)->hook(lent);
    if (returned != nullptr) *replacement = gf_tensor_ref(returned);
    return GF_OK;
  } catch (const Failure& failure) {
    const std::string& text = failure.error().message;
    gf_error_new(failure.error().code, text.data(), text.size(), error, nullptr);
    return failure.error().code;
  } catch (const std::exception& exception) {
    const std::string text = exception.what();
    gf_error_new(GF_UNKNOWN, text.data(), text.size(), error, nullptr);
    return GF_UNKNOWN;
  }
}

}  // namespace

uint64_t RegisterHook(const Tensor& tensor, std::function<Tensor(const Tensor&)> hook, std::function<void()> dropped) {
  auto owned = std::make_unique<CHook>(CHook{std::move(hook), std::move(dropped)});
  gf_tensor_hook given{};
  given.struct_size = sizeof(given);
  given.token = reinterpret_cast<uintptr_t>(owned.get());
  given.callback = RunHook;
  given.drop = [](uintptr_t token) {
    const std::unique_ptr<CHook> last(reinterpret_cast<CHook*>(token));
    if (last->dropped) last->dropped();
  };
  uint64_t id = 0;
  Call(gf_tensor_register_hook, tensor, &given, &id);
  owned.release();
  return id;
}

// ---- Lists ---------------------------------------------------------------------------------------------------------

List NewList() {
  List list;
  Call(gf_list_new, list.out());
  return list;
}

void Push(const List& list, std::nullptr_t) { Call(gf_list_push_none, list); }
void Push(const List& list, Default) { Call(gf_list_push_default, list); }
void Push(const List& list, bool value) { Call(gf_list_push_bool, list, value ? 1 : 0); }
void Push(const List& list, int value) { Call(gf_list_push_int, list, int64_t{value}); }
void Push(const List& list, int64_t value) { Call(gf_list_push_int, list, value); }
void Push(const List& list, double value) { Call(gf_list_push_double, list, value); }
void Push(const List& list, const char* value) { Push(list, std::string(value)); }
void Push(const List& list, const std::string& value) { Call(gf_list_push_string, list, value.data(), value.size()); }
void Push(const List& list, const Bytes& value) {
  Call(gf_list_push_bytes, list, value.data.data(), value.data.size());
}
void Push(const List& list, const Tensor& value) { Call(gf_list_push_tensor, list, value); }
void Push(const List& list, const List& value) { Call(gf_list_push_list, list, value); }
void Push(const List& list, const std::vector<Tensor>& values) {
  List inner = NewList();
  for (const Tensor& value : values) Push(inner, value);
  Push(list, inner);
}
void Push(const List& list, const std::vector<int64_t>& values) {
  List inner = NewList();
  for (int64_t value : values) Push(inner, value);
  Push(list, inner);
}

Tensor TensorAt(const List& list, size_t index) {
  Tensor tensor;
  Call(gf_list_get_tensor, list, index, tensor.out());
  return tensor;
}

List ListAt(const List& list, size_t index) {
  List inner;
  Call(gf_list_get_list, list, index, inner.out());
  return inner;
}

int64_t IntAt(const List& list, size_t index) {
  int64_t value = 0;
  Call(gf_list_get_int, list, index, &value);
  return value;
}

bool BoolAt(const List& list, size_t index) {
  int32_t value = 0;
  Call(gf_list_get_bool, list, index, &value);
  return value == 1;
}

double DoubleAt(const List& list, size_t index) {
  double value = 0;
  Call(gf_list_get_double, list, index, &value);
  return value;
}

std::string StringAt(const List& list, size_t index) {
  const char* view = nullptr;
  size_t length = 0;
  Call(gf_list_get_bytes, list, index, &view, &length);
  return std::string(view, length);
}

// ---- Operators -----------------------------------------------------------------------------------------------------

std::pair<std::string, std::string> SplitOperator(const std::string& name) {
  const size_t dot = name.find('.', name.find("::"));
  if (dot == std::string::npos) return {name, ""};
  return {name.substr(0, dot), name.substr(dot + 1)};
}

List CallOperator(const std::string& name, const List& arguments, uint32_t grad) {
  const auto [base, overload] = SplitOperator(name);
  Operator op;
  Call(gf_operator_find, base.data(), base.size(), overload.data(), overload.size(), op.out());
  List results;
  Call(gf_operator_call, op, arguments, grad, results.out());
  return results;
}

Tensor MetaTensor(const Shape& shape) {
  // size, dtype, layout, device
  return Op("aten::empty.memory_format", shape, nullptr, nullptr, "meta");
}

// ---- Configurations ------------------------------------------------------------------------------------------------

Config NewConfig() {
  Config config;
  Call(gf_config_new, config.out());
  return config;
}

void Set(const Config& config, const std::string& key, const std::string& value) {
  Call(gf_config_set, config, key.data(), key.size(), value.data(), value.size());
}

Worker OpenWorker(const Config& config) {
  Worker worker;
  Call(gf_worker_open, config, worker.out());
  return worker;
}

// ---- Calls ---------------------------------------------------------------------------------------------------------

namespace {

// A gf_call with the texts that it points to.
struct FilledCall {
  FilledCall(const std::string& to, const std::string& name, const List& arguments, const CallOptions& options)
      : target(to) {
    const bool is_operator = name.find("::") != std::string::npos;
    std::tie(base, overload) = is_operator ? SplitOperator(name) : std::make_pair(name, std::string());
    call.struct_size = sizeof(call);
    call.kind = is_operator ? GF_CALL_OPERATOR : GF_CALL_HANDLER;
    call.to = target.data();
    call.to_length = target.size();
    call.name = base.data();
    call.name_length = base.size();
    call.overload = overload.data();
    call.overload_length = overload.size();
    call.arguments = arguments;
    call.context = options.context;
    call.parent = options.parent;
    call.deadline = options.deadline;
    call.no_grad = options.no_grad ? 1 : 0;
    call.profile = options.profile ? 1 : 0;
    call.ended = options.ended == nullptr ? nullptr : options.ended->out();
    call.queue = options.queue;
    call.token = options.token;
  }
  FilledCall(const FilledCall&) = delete;

  std::string target, base, overload;
  gf_call call{};
};

}  // namespace

List CallWorker(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                const CallOptions& options) {
  const FilledCall filled(to, name, arguments, options);
  List results;
  Call(gf_call_sync, from, &filled.call, results.out());
  return results;
}

Future StartCall(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                 const CallOptions& options) {
  const FilledCall filled(to, name, arguments, options);
  Future future;
  Call(gf_call_start, from, &filled.call, future.out());
  return future;
}

void QueueCall(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
               const CallOptions& options) {
  const FilledCall filled(to, name, arguments, options);
  Call(gf_call_start, from, &filled.call, nullptr);
}

bool IsDone(const Future& future) { return gf_future_is_done(future) == 1; }

List Await(const Future& future, int64_t timeout) {
  Call(gf_future_wait, future, timeout);
  List results;
  Call(gf_future_take, future, results.out());
  return results;
}

nlohmann::json ProfileOf(const Future& future) { return nlohmann::json::parse(Text(gf_future_profile, future)); }
nlohmann::json TraceOf(gf_worker* worker) { return nlohmann::json::parse(Text(gf_worker_trace_json, worker)); }

// ---- Contexts ------------------------------------------------------------------------------------------------------

Context NewContext(gf_worker* worker) {
  Context context;
  Call(gf_context_new, worker, context.out());
  return context;
}

Context FindContext(gf_worker* worker, int64_t id) {
  Context context;
  Call(gf_context_find, worker, id, context.out());
  return context;
}

void Release(const Context& context) { Call(gf_context_release, context); }

nlohmann::json Describe(const Context& context) {
  return nlohmann::json::parse(Text(gf_context_describe, context.get()));
}

std::string ExplainText(const Context& context) {
  // The text grows and shrinks from call to call.
  std::string text(1 << 16, '\0');
  size_t length = 0;
  Call(gf_context_explain, context, uint32_t{GF_FORMAT_TEXT}, text.data(), text.size(), &length);
  text.resize(length);
  return text;
}

nlohmann::json Explain(const Context& context) {
  std::string text(1 << 16, '\0');
  size_t length = 0;
  Call(gf_context_explain, context, uint32_t{GF_FORMAT_JSON}, text.data(), text.size(), &length);
  text.resize(length);
  return nlohmann::json::parse(text);
}

nlohmann::json Info(gf_worker* worker) { return nlohmann::json::parse(Text(gf_worker_info, worker)); }

namespace {

// A gf_backward with the arrays that it points to.
struct FilledBackward {
  FilledBackward(const std::vector<Tensor>& given, const BackwardOptions& options)
      : roots(given.begin(), given.end()),
        seeds(options.seeds.begin(), options.seeds.end()),
        inputs(options.inputs.begin(), options.inputs.end()) {
    backward.struct_size = sizeof(backward);
    backward.retain_graph = options.retain ? 1 : 0;
    backward.roots = roots.data();
    backward.root_count = roots.size();
    backward.grads = seeds.empty() ? nullptr : seeds.data();
    backward.deadline = options.deadline;
    backward.queue = options.queue;
    backward.token = options.token;
    backward.inputs = inputs.empty() ? nullptr : inputs.data();
    backward.input_count = inputs.size();
  }
  FilledBackward(const FilledBackward&) = delete;

  std::vector<gf_tensor*> roots, seeds, inputs;
  gf_backward backward{};
};

}  // namespace

void Backward(const Context& context, const std::vector<Tensor>& roots, const BackwardOptions& options) {
  const FilledBackward filled(roots, options);
  Call(gf_backward_sync, context, &filled.backward);
}

Future StartBackward(const Context& context, const std::vector<Tensor>& roots, const BackwardOptions& options) {
  const FilledBackward filled(roots, options);
  Future future;
  Call(gf_backward_start, context, &filled.backward, future.out());
  return future;
}

Tensor Gradient(const Context& context, const Tensor& tensor) {
  Tensor gradient;
  Call(gf_context_gradient, context, tensor, gradient.out());
  return gradient;
}

bool HasGradient(const Context& context, const Tensor& tensor) {
  const Error error = ErrorOf([&] { Gradient(context, tensor); });
  if (error.code != GF_OK && error.code != GF_NOT_FOUND) throw Failure(error);
  return error.code == GF_OK;
}

size_t GradientCount(const Context& context) {
  List gradients;
  Call(gf_context_gradients, context, gradients.out());
  return Size(gradients) / 2;
}

// ---- Requests ------------------------------------------------------------------------------------------------------

List Arguments(const Request& request) {
  List arguments;
  Call(gf_request_arguments, request, arguments.out());
  return arguments;
}

std::string Caller(const Request& request) {
  size_t length = 0;
  const char* view = gf_request_caller(request, &length);
  return std::string(view, length);
}

std::string Name(const Request& request) {
  size_t length = 0;
  const char* view = gf_request_name(request, &length);
  return std::string(view, length);
}

Context ContextOf(const Request& request) {
  Context context;
  Call(gf_request_context, request, context.out());
  return context;
}

void Reply(const Request& request, const List& results) { Call(gf_request_reply, request, results); }

void Fail(const Request& request, int32_t code, const std::string& message) {
  Call(gf_request_fail, request, code, message.data(), message.size());
}

}  // namespace gf
