// See handlers.h.
#include "tests/support/c_abi/handlers.h"

#include <map>
#include <memory>
#include <mutex>

#include "tests/support/c_abi/live.h"

namespace gf {
namespace {

// The parameters of one worker.
class Parameters {
 public:
  void Put(int64_t key, Tensor tensor) {
    std::lock_guard lock(mutex_);
    tensors_[key] = std::move(tensor);
  }
  Tensor Get(int64_t key) {
    std::lock_guard lock(mutex_);
    return tensors_.at(key);
  }

 private:
  std::mutex mutex_;
  std::map<int64_t, Tensor> tensors_;
};

List RunOperator(const Request& request) {
  const List arguments = Arguments(request);
  return CallOperator(StringAt(arguments, 0), ListAt(arguments, 1), gf_request_grad(request));
}

List Nested(gf_worker* worker, const Request& request) {
  const List arguments = Arguments(request);
  const Tensor a = TensorAt(arguments, 0), b = TensorAt(arguments, 1);
  const List path = ListAt(arguments, 2);
  if (Size(path) == 0) return CallOperator("aten::add.Tensor", ListOf(a, b), gf_request_grad(request));
  const List rest = NewList();
  for (size_t i = 1; i < Size(path); ++i) Push(rest, StringAt(path, i));
  return CallWorker(worker, StringAt(path, 0), "nested", ListOf(a, b, rest), CallOptions().Parent(request));
}

List Hang(const Request& request) {
  Eventually([&] { return gf_request_is_cancelled(request) == 1; }, 6 * kPatience);
  return NewList();
}

}  // namespace

void RegisterHandlers(Server& server) {
  gf_worker* worker = server.worker();
  auto parameters = std::make_shared<Parameters>();
  server.On("operator", RunOperator);
  server.On("nested", [worker](const Request& request) { return Nested(worker, request); });
  server.On("describe", [worker](const Request& request) {
    return ListOf(Describe(FindContext(worker, IntAt(Arguments(request), 0))).dump());
  });
  server.On("contexts", [worker](const Request&) { return ListOf(Info(worker)["contexts"].get<int64_t>()); });
  server.On("live", [](const Request& request) {
    return ListOf(gf_live_objects(static_cast<uint32_t>(IntAt(Arguments(request), 0))));
  });
  server.On("hold", [parameters](const Request& request) {
    const List arguments = Arguments(request);
    parameters->Put(IntAt(arguments, 0),
                    WithGrad(TensorAt(CallOperator("aten::clone", ListOf(TensorAt(arguments, 1)), GF_GRAD_OFF), 0)));
    return NewList();
  });
  server.On("use", [parameters](const Request& request) {
    const List arguments = Arguments(request);
    return CallOperator("aten::mul.Tensor", ListOf(parameters->Get(IntAt(arguments, 0)), TensorAt(arguments, 1)),
                        gf_request_grad(request));
  });
  server.On("gradient", [worker, parameters](const Request& request) {
    const List arguments = Arguments(request);
    const Context context = FindContext(worker, IntAt(arguments, 0));
    return ListOf(Gradient(context, parameters->Get(IntAt(arguments, 1))));
  });
  server.On("backward_of_a_leaf", [worker](const Request& request) {
    Backward(FindContext(worker, IntAt(Arguments(request), 0)), {WithGrad(Floats({}, {1}))});
    return NewList();
  });
  server.On("hang", Hang);
  server.On("ready", [](const Request&) { return NewList(); });
}

List CallByHandler(gf_worker* from, const std::string& to, const std::string& name, const List& arguments,
                   const CallOptions& options) {
  return CallWorker(from, to, "operator", ListOf(name, arguments), options);
}

void WaitUntilReady(gf_worker* from, const std::string& peer) {
  Error error;
  const bool ready = Eventually([&] {
    error = ErrorOf([&] { CallWorker(from, peer, "ready", NewList()); });
    return error.code != GF_NOT_FOUND;
  });
  if (!ready || error.code != GF_OK) throw Failure(error);
}

}  // namespace gf
