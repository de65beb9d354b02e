// See current_pass.h.
#include "impl/engine/current_pass.h"

#include <utility>

#include "impl/engine/pass.h"

namespace gradferry {
namespace {

thread_local Pass* current = nullptr;

}  // namespace

Pass* CurrentPass() { return current; }

bool AddToCurrentPass(const at::Tensor& tensor, at::Tensor gradient) {
  if (current == nullptr) return false;
  current->AddGradient(tensor, std::move(gradient));
  return true;
}

CurrentPassScope::CurrentPassScope(Pass* pass) : outer_(std::exchange(current, pass)) {}
CurrentPassScope::~CurrentPassScope() { current = outer_; }

}  // namespace gradferry
