// See messages.h.
#include "impl/wire/messages.h"

#include <type_traits>

#include "impl/wire/message_fields.h"

namespace gradferry {
namespace {

std::vector<at::Tensor*> TensorsOf(Call& call) { return CollectTensors(call.arguments); }

// What an error would carry as results does not travel.
std::vector<at::Tensor*> TensorsOf(Reply& reply) {
  return reply.status.ok() ? CollectTensors(reply.results) : std::vector<at::Tensor*>();
}

std::vector<at::Tensor*> TensorsOf(RpcWithAutograd& rpc) {
  return std::visit([](auto& wrapped) { return TensorsOf(wrapped); }, rpc.wrapped);
}

std::vector<at::Tensor*> TensorsOf(RpcWithProfiling& rpc) {
  return std::visit([](auto& wrapped) { return TensorsOf(wrapped); }, rpc.wrapped);
}

std::vector<at::Tensor*> TensorsOf(PropagateGradients& message) {
  std::vector<at::Tensor*> tensors;
  tensors.reserve(message.gradients.size());
  for (at::Tensor& gradient : message.gradients) tensors.push_back(&gradient);
  return tensors;
}

template <class M>
std::vector<at::Tensor*> TensorsOf(M&) {
  return {};
}

}  // namespace

const char* MessageName(const Message& message) {
  return std::visit([](const auto& m) { return Fields<std::decay_t<decltype(m)>>::kName; }, message);
}

std::vector<at::Tensor*> MessageTensors(Message& message) {
  return std::visit([](auto& m) { return TensorsOf(m); }, message);
}

}  // namespace gradferry
