// See hooks.h.
#include "impl/tensor/hooks.h"

#include <torch/csrc/autograd/cpp_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "impl/tensor/torch_scope.h"
#include "impl/tensor/value.h"

namespace gradferry {
namespace {

struct Entry {
  const uint64_t id;
  const bool retains;
  const TensorHook hook;
  std::atomic<bool> removed{false};
};

// Why a replacement cannot stand for the gradient, or OK.
Status CheckReplacement(const at::Tensor& gradient, const at::Tensor& replacement) {
  if (!gradient.defined()) return InvalidArgument("a hook returned a gradient where there is none to replace");
  const bool fits = gradient.sizes() == replacement.sizes() && gradient.scalar_type() == replacement.scalar_type() &&
                    gradient.device() == replacement.device();
  if (fits) return OkStatus();
  return InvalidArgument(
      StrCat("a hook returned ", DescribeTensor(replacement), " for a gradient that is ", DescribeTensor(gradient)));
}

class HookList {
 public:
  void Add(std::shared_ptr<Entry> entry) {
    std::lock_guard lock(mutex_);
    entries_.push_back(std::move(entry));
  }

  // What was taken out, for the caller to free under no lock; null when it is not here.
  std::shared_ptr<Entry> Remove(uint64_t id) {
    std::lock_guard lock(mutex_);
    auto it = std::find_if(entries_.begin(), entries_.end(), [id](const auto& entry) { return entry->id == id; });
    if (it == entries_.end()) return nullptr;
    std::shared_ptr<Entry> taken = std::move(*it);
    entries_.erase(it);
    taken->removed = true;
    return taken;
  }

  bool Retains() const {
    std::lock_guard lock(mutex_);
    return std::any_of(entries_.begin(), entries_.end(), [](const auto& entry) { return entry->retains; });
  }

  // What takes the gradient's place; undefined when no hook replaced it.
  at::Tensor Run(const at::Tensor& gradient) const {
    std::vector<std::shared_ptr<Entry>> entries;
    {
      std::lock_guard lock(mutex_);
      entries = entries_;
    }
    at::Tensor current = gradient;
    bool replaced = false;
    for (const auto& entry : entries) {
      if (entry->removed) continue;  // by one before it
      Result<at::Tensor> returned = entry->hook(current);
      if (!returned.ok()) throw StatusException(returned.status());
      if (!returned->defined()) continue;
      if (Status status = CheckReplacement(current, *returned); !status.ok()) throw StatusException(status);
      current = *std::move(returned);
      replaced = true;
    }
    return replaced ? current : at::Tensor();
  }

 private:
  mutable std::mutex mutex_;  // guards entries_; a leaf lock
  std::vector<std::shared_ptr<Entry>> entries_;
};

// What libtorch's list holds.
struct HookListCaller {
  std::shared_ptr<HookList> list;
  at::TensorBase operator()(const at::TensorBase& gradient) const { return list->Run(at::Tensor(gradient)); }
};

// Orders who looks into libtorch's lists and adds to them.
std::mutex& RegistrationMutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

// All lists of ours that a tensor has, in order. Needs the mutex.
std::vector<HookListCaller*> ListsOf(const at::Tensor& tensor) {
  std::vector<HookListCaller*> lists;
  auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
  if (meta == nullptr || meta->cpp_hooks_list_ == nullptr) return lists;
  for (auto& function : *meta->cpp_hooks_list_) {
    if (auto* caller = function.target<HookListCaller>()) lists.push_back(caller);
  }
  return lists;
}

// The list at the end of libtorch's, so that hooks which others have added come before: null when it is not ours.
HookList* LastList(const at::Tensor& tensor) {
  auto* meta = torch::autograd::impl::get_autograd_meta(tensor);
  if (meta == nullptr || meta->cpp_hooks_list_ == nullptr || meta->cpp_hooks_list_->empty()) return nullptr;
  auto* caller = meta->cpp_hooks_list_->back().target<HookListCaller>();
  return caller == nullptr ? nullptr : caller->list.get();
}

Status CheckRequiresGrad(const at::Tensor& tensor) {
  if (!tensor.defined()) return InvalidArgument("the tensor is undefined: it has no gradient");
  if (tensor.requires_grad()) return OkStatus();
  return InvalidArgument(StrCat("a tensor that does not require grad gets no gradient: ", DescribeTensor(tensor)));
}

// Needs the mutex.
uint64_t AddEntry(const at::Tensor& tensor, TensorHook hook, bool retains) {
  static uint64_t last_id = 0;  // guarded by the mutex
  auto entry = std::shared_ptr<Entry>(new Entry{++last_id, retains, std::move(hook)});
  const uint64_t id = entry->id;
  HookList* list = LastList(tensor);
  if (list != nullptr) {
    list->Add(std::move(entry));
    return id;
  }
  HookListCaller caller{std::make_shared<HookList>()};
  caller.list->Add(std::move(entry));
  static_cast<const at::TensorBase&>(tensor).register_hook(std::move(caller));
  return id;
}

}  // namespace

Result<uint64_t> AddHook(const at::Tensor& tensor, TensorHook hook) {
  GF_RETURN_IF_ERROR(CheckRequiresGrad(tensor));
  TorchScope scope(GradRecording::kOff);
  std::lock_guard lock(RegistrationMutex());
  return AddEntry(tensor, std::move(hook), /*retains=*/false);
}

Status RemoveHook(const at::Tensor& tensor, uint64_t id) {
  std::shared_ptr<Entry> removed;  // freed after the lock
  if (tensor.defined()) {
    std::lock_guard lock(RegistrationMutex());
    for (HookListCaller* caller : ListsOf(tensor)) {
      removed = caller->list->Remove(id);
      if (removed != nullptr) return OkStatus();
    }
  }
  return NotFound(StrCat("the tensor has no hook ", id, "; it may have been removed already"));
}

Status AddRetainHook(const at::Tensor& tensor, TensorHook hook) {
  GF_RETURN_IF_ERROR(CheckRequiresGrad(tensor));
  TorchScope scope(GradRecording::kOff);
  std::lock_guard lock(RegistrationMutex());
  for (HookListCaller* caller : ListsOf(tensor)) {
    if (caller->list->Retains()) return OkStatus();
  }
  AddEntry(tensor, std::move(hook), /*retains=*/true);
  return OkStatus();
}

}  // namespace gradferry
