// Optimizers of torch::optim, fed with gradients from outside: `.grad` of the parameters is neither read nor written,
// so a gradient of an earlier pass can never be applied twice. The C boundary makes them; gradients come from contexts.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "impl/base/spec.h"
#include "impl/base/status.h"

namespace gradferry {

using OptimizerSpec = OptimizerText;

class Optimizer {
 public:
  // The gradient for a parameter, or an undefined tensor.
  using GradientOf = std::function<at::Tensor(const at::Tensor& parameter)>;

  // Kinds and options are those of gf_optimizer_new. kInvalidArgument names the kind or option that is unknown (and the
  // nearest known one), missing, of the wrong type or out of range, or the index of a parameter that is undefined, not
  // strided, not a leaf, does not require grad, or is there twice.
  static Result<std::unique_ptr<Optimizer>> New(const OptimizerSpec& spec, std::vector<at::Tensor> parameters);
  ~Optimizer();

  // One step in place. gradient_of is asked once for each parameter, in order, before anything changes; a parameter
  // whose gradient is undefined is not touched, nor is its state (momentum, averages). kInvalidArgument when a gradient
  // has another shape or dtype than its parameter: nothing has changed then. An error of libtorch's, as for a sparse
  // gradient with an optimizer that takes none, may leave earlier parameters updated. Any thread; steps run one after
  // the other.
  Status Step(const GradientOf& gradient_of);

  const std::vector<at::Tensor>& parameters() const;

 private:
  struct Impl;
  explicit Optimizer(std::unique_ptr<Impl> impl);
  const std::unique_ptr<Impl> impl_;
};

}  // namespace gradferry
