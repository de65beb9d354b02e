// Hooks of tensors: functions that see the gradient of a tensor when a backward, ours or libtorch's own, has computed
// it, and may replace it. libtorch holds them (a leaf at the tensor, else at its node), calls them in order of
// registration, those that others registered among them, and frees them with the tensor or the graph.
//
// libtorch's list of hooks only grows and may not change while a backward reads it. So one entry of it is a list of
// ours, to which later hooks are added and from which they are taken at any time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "impl/base/status.h"

namespace gradferry {

// Gets the gradient, undefined when the tensor's node ran for the sake of its other outputs only. Returns what takes
// its place, of the same shape, dtype and device, or an undefined tensor to keep it. An error ends the backward: it is
// thrown through libtorch as a StatusException.
using TensorHook = std::function<Result<at::Tensor>(const at::Tensor& gradient)>;

// Adds a hook to a tensor that requires grad (kInvalidArgument otherwise). Returns a number, unique in the process, for
// RemoveHook. The first hook of a tensor must not be added while a backward reaches the tensor.
Result<uint64_t> AddHook(const at::Tensor& tensor, TensorHook hook);

// Takes a hook away: no call of it begins after this. It is destroyed when the last call of it has ended. kNotFound
// when the tensor has no such hook (any more).
Status RemoveHook(const at::Tensor& tensor, uint64_t id);

// Adds a hook that is there at most once for a tensor; nothing happens when it is there already.
Status AddRetainHook(const at::Tensor& tensor, TensorHook hook);

}  // namespace gradferry
