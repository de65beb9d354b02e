// The objects behind the handles that have no worker: errors, tensors, lists, operators, configurations and optimizers.
// (What has a worker or a queue is in worker_objects.h.)
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "c_api/handle.h"
#include "impl/base/config.h"
#include "impl/base/status.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/optimizer.h"
#include "impl/tensor/value.h"

namespace gradferry {

// An error, and the handle of its cause, which it owns.
struct ErrorObject {
  explicit ErrorObject(std::shared_ptr<const Error> shared);
  ErrorObject(ErrorObject&& other) noexcept;
  ~ErrorObject();

  std::shared_ptr<const Error> error;
  gf_error* cause = nullptr;
};

struct TensorObject {
  at::Tensor tensor;
};

struct ListObject {
  ValueList values;
};

struct OperatorObject {
  std::shared_ptr<const Operator> op;
};

struct ConfigObject {
  Config config;
};

struct OptimizerObject {
  std::unique_ptr<Optimizer> optimizer;
};

template <>
struct HandleTraits<gf_error> {
  using Object = ErrorObject;
  static constexpr LiveKind kKind = LiveKind::kErrors;
};
template <>
struct HandleTraits<gf_tensor> {
  using Object = TensorObject;
  static constexpr LiveKind kKind = LiveKind::kTensors;
};
template <>
struct HandleTraits<gf_list> {
  using Object = ListObject;
  static constexpr LiveKind kKind = LiveKind::kLists;
};
template <>
struct HandleTraits<gf_operator> {
  using Object = OperatorObject;
  static constexpr LiveKind kKind = LiveKind::kOperators;
};
template <>
struct HandleTraits<gf_config> {
  using Object = ConfigObject;
  static constexpr LiveKind kKind = LiveKind::kConfigs;
};
template <>
struct HandleTraits<gf_optimizer> {
  using Object = OptimizerObject;
  static constexpr LiveKind kKind = LiveKind::kOptimizers;
};

}  // namespace gradferry
