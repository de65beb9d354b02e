// See input_buffer.h. Grad mode is off whenever this runs (local_graph.cc), which is what makes adding in place legal.
#include "impl/engine/input_buffer.h"

#include "impl/autograd/add_gradients.h"

namespace gradferry {
namespace {

// Whether `sum += other` may reuse the memory of `sum`: nobody else holds the tensor or its storage, and the result has
// its form.
bool CanAddInPlace(const at::Tensor& sum, const at::Tensor& other) {
  return sum.layout() == at::kStrided && other.layout() == at::kStrided && sum.use_count() == 1 && sum.has_storage() &&
         sum.storage().use_count() == 1 && sum.is_non_overlapping_and_dense() && sum.sizes() == other.sizes() &&
         sum.scalar_type() == other.scalar_type() && sum.device() == other.device() && !sum.is_neg() &&
         !sum.is_conj() && !sum.requires_grad();
}

}  // namespace

void InputBuffer::Add(size_t slot, at::Tensor gradient) {
  if (slots_.size() <= slot) slots_.resize(slot + 1);
  if (!gradient.defined()) return;
  at::Tensor& sum = slots_[slot];
  if (!sum.defined()) {
    sum = std::move(gradient);
  } else if (CanAddInPlace(sum, gradient)) {
    sum.add_(gradient);
  } else if (CanAddInPlace(gradient, sum)) {
    sum = gradient.add_(sum);
  } else {
    sum = AddGradients(sum, gradient);
  }
}

variable_list InputBuffer::Take(size_t slots) && {
  if (slots_.size() < slots) slots_.resize(slots);
  return std::move(slots_);
}

}  // namespace gradferry
