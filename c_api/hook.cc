// Hooks of tensors: gf_tensor_register_hook, gf_tensor_remove_hook, gf_tensor_retain_grad.
#include <memory>
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "impl/engine/current_pass.h"
#include "impl/tensor/hooks.h"

namespace gradferry {
namespace {

struct Unref {
  void operator()(gf_tensor* tensor) const { gf_tensor_unref(tensor); }
  void operator()(gf_error* error) const { gf_error_unref(error); }
};

// What the callback returned besides GF_OK, as the Status that it means.
Status Failure(int32_t code, gf_error* given) {
  if (const ErrorObject* object = Peek(given)) return Status(object->error);
  const Code known = code != GF_OK && IsKnownCode(code) ? static_cast<Code>(code) : Code::kUnknown;
  return Status(known, StrCat("a hook returned ", code, " (", gf_code_name(code), ") and no error"));
}

// A gf_tensor_hook with its drop, called when the last call of the hook is over.
class CHook {
 public:
  explicit CHook(const gf_tensor_hook& hook) : hook_(hook) {}
  CHook(const CHook&) = delete;
  ~CHook() {
    if (armed_ && hook_.drop != nullptr) hook_.drop(hook_.token);
  }
  // From now on the library owns the token.
  void Arm() { armed_ = true; }

  Result<at::Tensor> Call(const at::Tensor& gradient) const {
    std::unique_ptr<gf_tensor, Unref> lent;
    if (gradient.defined()) lent.reset(MakeHandle<gf_tensor>(TensorObject{gradient}));
    gf_tensor* replacement = nullptr;
    gf_error* error = nullptr;
    const int32_t code = hook_.callback(hook_.token, lent.get(), &replacement, &error);
    const std::unique_ptr<gf_tensor, Unref> owned(replacement);
    const std::unique_ptr<gf_error, Unref> owned_error(error);
    if (code != GF_OK) return Failure(code, error);
    if (replacement == nullptr) return at::Tensor();
    auto object = Get(replacement);
    if (!object.ok()) return object.status().Wrap(Code::kInvalidArgument, "a hook's replacement is no tensor");
    return (*object)->tensor;
  }

 private:
  const gf_tensor_hook hook_;
  bool armed_ = false;
};

Status RetainGradient(const at::Tensor& tensor) {
  if (!tensor.defined()) return InvalidArgument("the tensor is undefined: it has no gradient");
  if (tensor.requires_grad() && tensor.is_leaf()) return OkStatus();
  // The tensor holds its hooks: they must not hold it.
  const c10::weak_intrusive_ptr<c10::TensorImpl> weak(tensor.getIntrusivePtr());
  return AddRetainHook(tensor, [weak](const at::Tensor& gradient) -> Result<at::Tensor> {
    auto alive = weak.lock();
    if (alive && gradient.defined()) AddToCurrentPass(at::Tensor(std::move(alive)), gradient);
    return at::Tensor();
  });
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_tensor_register_hook(gf_tensor* tensor, const gf_tensor_hook* hook, uint64_t* id, gf_error** error) {
  return AtBoundary(error, Outs(id), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(TensorObject * object, Get(tensor));
    GF_ASSIGN_OR_RETURN(const gf_tensor_hook given, StructIn(hook, "gf_tensor_hook"));
    if (given.callback == nullptr) return InvalidArgument("gf_tensor_hook.callback is NULL");
    if (given.reserved != 0) return Status(Code::kUnsupported, "gf_tensor_hook.reserved is not 0");
    auto owned = std::make_shared<CHook>(given);
    GF_ASSIGN_OR_RETURN(*id,
                        AddHook(object->tensor, [owned](const at::Tensor& gradient) { return owned->Call(gradient); }));
    owned->Arm();
    return OkStatus();
  });
}

int32_t gf_tensor_retain_grad(gf_tensor* tensor, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(TensorObject * object, Get(tensor));
    return RetainGradient(object->tensor);
  });
}

int32_t gf_tensor_remove_hook(gf_tensor* tensor, uint64_t id, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(TensorObject * object, Get(tensor));
    return RemoveHook(object->tensor, id);
  });
}
