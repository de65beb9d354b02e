// The C ABI as C++ values, for tests: handles that give themselves back, failures as exceptions, lists from values.
// Includes nothing of the library but gradferry.h, so that a test sees what a binding's author sees. Anything that
// fails throws gf::Failure, which GoogleTest reports with its text; a test that expects an error asks ErrorOf.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "gradferry/gradferry.h"

namespace gf {

inline constexpr int64_t kMillisecond = 1000000;
inline constexpr int64_t kSecond = 1000 * kMillisecond;
// How long a test waits for what must happen; reached only when it is broken.
inline constexpr int64_t kPatience = 20 * kSecond;

// ---- Errors --------------------------------------------------------------------------------------------------------

// What a gf_error said.
struct Error {
  int32_t code = GF_OK;
  std::string message, domain, worker, operation, peer;
  std::string description;  // the whole chain
  int64_t elapsed_ns = 0;
  uint32_t retry = GF_RETRY_NEVER;
  std::vector<Error> cause;  // none or one

  // The last of the chain.
  const Error& root() const { return cause.empty() ? *this : cause.front().root(); }
};

class Failure : public std::exception {
 public:
  explicit Failure(Error failed);
  const char* what() const noexcept override { return text_.c_str(); }
  const Error& error() const { return error_; }

 private:
  Error error_;
  std::string text_;
};

Error ReadError(const gf_error* error);
// Gives the error back. Also checks the rule that there is an error exactly when the code is not GF_OK.
Error TakeError(int32_t code, gf_error* error);

// Calls a function of the header, whose last parameter is a gf_error**; throws when it fails.
template <class Function, class... Arguments>
void Call(Function function, Arguments&&... arguments) {
  gf_error* error = nullptr;
  const int32_t code = function(arguments..., &error);
  Error taken = TakeError(code, error);
  if (taken.code != GF_OK) throw Failure(std::move(taken));
}

// How a piece of code failed; code GF_OK when it did not.
template <class Body>
Error ErrorOf(Body&& body) {
  try {
    body();
  } catch (const Failure& failure) {
    return failure.error();
  }
  return Error();
}

// A text by the two-call pattern: Text(gf_worker_info, worker).
template <class Function, class... Arguments>
std::string Text(Function function, Arguments&&... arguments) {
  size_t length = 0;
  Call(function, arguments..., static_cast<char*>(nullptr), size_t{0}, &length);
  // The text may grow between the calls.
  for (;;) {
    std::string text(length + 64, '\0');
    const Error error = ErrorOf([&] { Call(function, arguments..., &text[0], text.size(), &length); });
    if (error.code == GF_OUT_OF_RANGE && length + 1 > text.size()) continue;
    if (error.code != GF_OK) throw Failure(error);
    text.resize(length);
    return text;
  }
}

// ---- Handles -------------------------------------------------------------------------------------------------------

template <class Noun>
struct Life;
#define GF_LIFE(noun)                                             \
  template <>                                                     \
  struct Life<noun> {                                             \
    static noun* Ref(noun* handle) { return noun##_ref(handle); } \
    static void Unref(noun* handle) { noun##_unref(handle); }     \
  }
GF_LIFE(gf_tensor);
GF_LIFE(gf_list);
GF_LIFE(gf_operator);
GF_LIFE(gf_queue);
GF_LIFE(gf_future);
GF_LIFE(gf_request);
GF_LIFE(gf_worker);
GF_LIFE(gf_context);
GF_LIFE(gf_config);
GF_LIFE(gf_optimizer);
#undef GF_LIFE

template <class Noun>
class Handle {
 public:
  Handle() = default;
  explicit Handle(Noun* owned) : handle_(owned) {}
  Handle(const Handle& other) : handle_(other.handle_ == nullptr ? nullptr : Life<Noun>::Ref(other.handle_)) {}
  Handle(Handle&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Handle& operator=(Handle other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Handle() { reset(); }

  operator Noun*() const { return handle_; }
  Noun* get() const { return handle_; }
  // For an out-parameter.
  Noun** out() {
    reset();
    return &handle_;
  }
  void reset() { Life<Noun>::Unref(std::exchange(handle_, nullptr)); }

 private:
  Noun* handle_ = nullptr;
};

using Tensor = Handle<gf_tensor>;
using List = Handle<gf_list>;
using Operator = Handle<gf_operator>;
using Queue = Handle<gf_queue>;
using Future = Handle<gf_future>;
using Request = Handle<gf_request>;
using Worker = Handle<gf_worker>;
using Context = Handle<gf_context>;
using Config = Handle<gf_config>;
using Optimizer = Handle<gf_optimizer>;

// ---- Tensors -------------------------------------------------------------------------------------------------------

template <class Value>
struct Dtype;
template <>
struct Dtype<float> {
  static constexpr uint8_t kCode = GF_DTYPE_FLOAT;
};
template <>
struct Dtype<double> {
  static constexpr uint8_t kCode = GF_DTYPE_FLOAT;
};
template <>
struct Dtype<int64_t> {
  static constexpr uint8_t kCode = GF_DTYPE_INT;
};

using Shape = std::vector<int64_t>;

Tensor EmptyTensor(const Shape& shape, uint8_t code, uint8_t bits);
// The pointers in it live as long as the tensor.
gf_tensor_info Describe(const Tensor& tensor);
Shape ShapeOf(const Tensor& tensor);
bool RequiresGrad(const Tensor& tensor);
// Makes a leaf require grad and returns it.
Tensor WithGrad(Tensor leaf);

template <class Value>
Tensor TensorOf(const Shape& shape, const std::vector<Value>& values) {
  Tensor tensor = EmptyTensor(shape, Dtype<Value>::kCode, 8 * sizeof(Value));
  const gf_tensor_info info = Describe(tensor);
  if (static_cast<size_t>(info.numel) != values.size()) throw std::invalid_argument("not as many values as elements");
  std::copy(values.begin(), values.end(), static_cast<Value*>(info.data));
  return tensor;
}
inline Tensor Floats(const Shape& shape, const std::vector<float>& values) { return TensorOf<float>(shape, values); }
inline Tensor Doubles(const Shape& shape, const std::vector<double>& values) { return TensorOf<double>(shape, values); }

// Values between 0 and 1, always the same for a seed.
Tensor Random(const Shape& shape, uint32_t seed);
Tensor RandomDoubles(const Shape& shape, uint32_t seed);

template <class Value>
std::vector<Value> Read(const Tensor& tensor) {
  const gf_tensor_info info = Describe(tensor);
  if (info.dtype_code != Dtype<Value>::kCode || info.dtype_bits != 8 * sizeof(Value)) {
    throw std::invalid_argument("the tensor has another dtype");
  }
  std::vector<Value> values(static_cast<size_t>(info.numel));
  Call(gf_tensor_read, tensor, values.data(), values.size() * sizeof(Value));
  return values;
}
inline std::vector<float> ReadFloats(const Tensor& tensor) { return Read<float>(tensor); }
inline std::vector<double> ReadDoubles(const Tensor& tensor) { return Read<double>(tensor); }

// A hook: gets the gradient, an empty handle when there is none, and returns what takes its place or an empty handle. A
// Failure that it throws ends the pass. `dropped` runs once, after the last call. Returns the hook's number.
uint64_t RegisterHook(const Tensor& tensor, std::function<Tensor(const Tensor&)> hook,
                      std::function<void()> dropped = nullptr);
inline void RemoveHook(const Tensor& tensor, uint64_t id) { Call(gf_tensor_remove_hook, tensor, id); }

// ---- Lists ---------------------------------------------------------------------------------------------------------

struct Default {};  // an operator's default
struct Bytes {
  std::string data;
};

List NewList();
void Push(const List& list, std::nullptr_t);
void Push(const List& list, Default);
void Push(const List& list, bool value);
void Push(const List& list, int value);
void Push(const List& list, int64_t value);
void Push(const List& list, double value);
void Push(const List& list, const char* value);
void Push(const List& list, const std::string& value);
void Push(const List& list, const Bytes& value);
void Push(const List& list, const Tensor& value);
void Push(const List& list, const List& value);
void Push(const List& list, const std::vector<Tensor>& values);
void Push(const List& list, const std::vector<int64_t>& values);

template <class... Values>
List ListOf(const Values&... values) {
  List list = NewList();
  (Push(list, values), ...);
  return list;
}

inline size_t Size(const List& list) { return gf_list_size(list); }
Tensor TensorAt(const List& list, size_t index);
List ListAt(const List& list, size_t index);
int64_t IntAt(const List& list, size_t index);
bool BoolAt(const List& list, size_t index);
double DoubleAt(const List& list, size_t index);
std::string StringAt(const List& list, size_t index);

// ---- Operators -----------------------------------------------------------------------------------------------------

// "aten::add.Tensor" as name and overload.
std::pair<std::string, std::string> SplitOperator(const std::string& name);
// All results of an operator that runs here.
List CallOperator(const std::string& name, const List& arguments, uint32_t grad = GF_GRAD_RECORD);
// The first one.
template <class... Values>
Tensor Op(const std::string& name, const Values&... values) {
  return TensorAt(CallOperator(name, ListOf(values...)), 0);
}
inline Tensor Sum(const Tensor& tensor) { return Op("aten::sum", tensor); }
inline Tensor Add(const Tensor& a, const Tensor& b) { return Op("aten::add.Tensor", a, b); }
inline Tensor Mul(const Tensor& a, const Tensor& b) { return Op("aten::mul.Tensor", a, b); }
// A tensor on the meta device: one without memory.
Tensor MetaTensor(const Shape& shape);

// ---- Configurations ------------------------------------------------------------------------------------------------

Config NewConfig();
void Set(const Config& config, const std::string& key, const std::string& value);
Worker OpenWorker(const Config& config);

// ---- Calls ---------------------------------------------------------------------------------------------------------

struct CallOptions {
  CallOptions& In(const Context& value) { return context = value, *this; }
  CallOptions& Parent(const Request& value) { return parent = value, *this; }
  CallOptions& Deadline(int64_t value) { return deadline = value, *this; }
  CallOptions& Profiled() { return profile = true, *this; }
  // By CallWorker only: the ended call.
  CallOptions& Ended(Handle<gf_future>& value) { return ended = &value, *this; }
  CallOptions& NoGrad() { return no_grad = true, *this; }
  CallOptions& To(const Queue& value, uintptr_t value_token) { return queue = value, token = value_token, *this; }

  gf_context* context = nullptr;
  gf_request* parent = nullptr;
  int64_t deadline = 0;
  bool no_grad = false;
  bool profile = false;
  Handle<gf_future>* ended = nullptr;
  gf_queue* queue = nullptr;
  uintptr_t token = 0;
};
inline CallOptions In(const Context& context) { return CallOptions().In(context); }

// A handler "name", or an operator when the name has "::" in it.
List CallWorker(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                const CallOptions& options = {});
Future StartCall(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                 const CallOptions& options = {});
// Without a future: to options.queue only.
void QueueCall(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
               const CallOptions& options);

// The first result of an operator that runs on another worker.
template <class... Values>
Tensor RemoteOp(gf_worker* from, const std::string& to, const CallOptions& options, const std::string& name,
                const Values&... values) {
  return TensorAt(CallWorker(from, to, name, ListOf(values...), options), 0);
}

bool IsDone(const Future& future);
// Waits, then the results; throws how it failed.
List Await(const Future& future, int64_t timeout = kPatience);

// gf_future_profile, gf_worker_trace_json.
nlohmann::json ProfileOf(const Future& future);
nlohmann::json TraceOf(gf_worker* worker);

// ---- Contexts ------------------------------------------------------------------------------------------------------

Context NewContext(gf_worker* worker);
Context FindContext(gf_worker* worker, int64_t id);
void Release(const Context& context);
nlohmann::json Describe(const Context& context);
nlohmann::json Explain(const Context& context);
std::string ExplainText(const Context& context);
nlohmann::json Info(gf_worker* worker);

struct BackwardOptions {
  BackwardOptions& Retain() { return retain = true, *this; }
  BackwardOptions& Seeds(std::vector<Tensor> values) { return seeds = std::move(values), *this; }
  BackwardOptions& Deadline(int64_t value) { return deadline = value, *this; }
  BackwardOptions& Inputs(std::vector<Tensor> values) { return inputs = std::move(values), *this; }
  BackwardOptions& To(const Queue& value, uintptr_t value_token) { return queue = value, token = value_token, *this; }

  bool retain = false;
  std::vector<Tensor> seeds;   // none, or one for each root; an empty handle is ones
  std::vector<Tensor> inputs;  // none: all leaves
  int64_t deadline = 0;
  gf_queue* queue = nullptr;
  uintptr_t token = 0;
};

void Backward(const Context& context, const std::vector<Tensor>& roots, const BackwardOptions& options = {});
Future StartBackward(const Context& context, const std::vector<Tensor>& roots, const BackwardOptions& options = {});

Tensor Gradient(const Context& context, const Tensor& tensor);
bool HasGradient(const Context& context, const Tensor& tensor);
// As many as the context holds.
size_t GradientCount(const Context& context);

// ---- Requests ------------------------------------------------------------------------------------------------------

List Arguments(const Request& request);
std::string Caller(const Request& request);
std::string Name(const Request& request);
// An empty handle when it was made in none.
Context ContextOf(const Request& request);
void Reply(const Request& request, const List& results);
void Fail(const Request& request, int32_t code, const std::string& message);

}  // namespace gf
