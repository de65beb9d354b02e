// See wrapping.h; and how Worker does it for a call.
#include "impl/rpc/wrapping.h"

#include <algorithm>
#include <type_traits>
#include <utility>

#include "impl/rpc/worker.h"

namespace gradferry {

std::vector<at::Tensor> RecordedTensors(Message& message, std::vector<bool>* which) {
  std::vector<at::Tensor> recorded;
  for (const at::Tensor* tensor : MessageTensors(message)) {
    const bool record = tensor->defined() && tensor->requires_grad();
    which->push_back(record);
    if (record) recorded.push_back(*tensor);
  }
  return recorded;
}

Status AttachRecvFunction(DecodedMessage& message, const AutogradMetadata& metadata, WorkerId from,
                          DistAutogradContext& context) {
  std::vector<at::Tensor> recorded;
  const auto tensors = MessageTensors(message.message);
  for (size_t i = 0; i < tensors.size(); ++i) {
    if (message.requires_grad[i]) recorded.push_back(*tensors[i]);
  }
  if (recorded.empty() != (metadata.message_id == 0)) {
    return Status(Code::kDataLoss, StrCat("autograd message ", metadata.message_id, " of context ", metadata.context_id,
                                          " marks ", recorded.size(), " tensors as requiring grad"));
  }
  if (recorded.empty()) return OkStatus();
  GF_ASSIGN_OR_RETURN(auto recv, MakeRecvFunction(metadata.message_id, from, recorded));
  return context.AddRecvFunction(std::move(recv));
}

Message WithProfiling(Message message, uint32_t most_events, Profile profile) {
  RpcWithProfiling rpc;
  rpc.most_events = most_events;
  rpc.profile = std::move(profile);
  std::visit(
      [&rpc](auto& inner) {
        using Inner = std::decay_t<decltype(inner)>;
        if constexpr (std::is_constructible_v<decltype(rpc.wrapped), Inner> &&
                      !std::is_same_v<Inner, RpcWithProfiling>) {
          rpc.wrapped = std::move(inner);
        }
      },
      message);
  return rpc;
}

uint64_t TensorBytes(Message& message) {
  uint64_t bytes = 0;
  for (const at::Tensor* tensor : MessageTensors(message)) {
    if (!tensor->defined()) continue;
    const uint64_t all = tensor->numel() * tensor->element_size();
    if (tensor->layout() == at::kStrided) {
      bytes += std::min<uint64_t>(all, tensor->has_storage() ? tensor->storage().nbytes() : all);
    } else if (tensor->layout() == at::kSparse) {
      const at::Tensor indices = tensor->_indices(), values = tensor->_values();
      bytes += indices.numel() * indices.element_size() + values.numel() * values.element_size();
    }
  }
  return bytes;
}

Result<Worker::Wrapped> Worker::Wrap(std::variant<Call, Reply> body,
                                     const std::shared_ptr<DistAutogradContext>& context, WorkerId to, bool record) {
  Wrapped wrapped;
  const bool is_call = std::holds_alternative<Call>(body);
  std::visit([&](auto& message) { wrapped.message = std::move(message); }, body);
  if (!context) return wrapped;
  std::vector<at::Tensor> recorded;
  if (record) recorded = RecordedTensors(wrapped.message, &wrapped.record_grad);
  if (recorded.empty()) {
    wrapped.record_grad.clear();
    if (!is_call) return wrapped;
    GF_RETURN_IF_ERROR(context->AddKnownWorker(to));
  } else {
    GF_ASSIGN_OR_RETURN(wrapped.message_id, container_.NewMessageId());
    GF_RETURN_IF_ERROR(context->AddSendFunction(MakeSendFunction(wrapped.message_id, to, recorded)));
  }
  RpcWithAutograd rpc;
  rpc.metadata = {context->id(), wrapped.message_id};
  if (is_call) {
    rpc.wrapped = std::get<Call>(std::move(wrapped.message));
  } else {
    rpc.wrapped = std::get<Reply>(std::move(wrapped.message));
  }
  wrapped.message = std::move(rpc);
  return wrapped;
}

Result<ValueList> Worker::Unwrap(DecodedMessage message, const std::shared_ptr<DistAutogradContext>& context,
                                 WorkerId from) {
  Reply* reply = std::get_if<Reply>(&message.message);
  if (auto* rpc = std::get_if<RpcWithAutograd>(&message.message)) {
    if (!context || rpc->metadata.context_id != context->id()) {
      return Status(Code::kDataLoss, StrCat("the reply belongs to context ", rpc->metadata.context_id,
                                            ", in which the call was not made"));
    }
    GF_RETURN_IF_ERROR(AttachRecvFunction(message, rpc->metadata, from, *context));
    reply = &std::get<Reply>(rpc->wrapped);
  }
  if (reply == nullptr) return Status(Code::kDataLoss, StrCat("a ", MessageName(message.message), " answered a call"));
  if (!reply->status.ok()) return reply->status.WithWorker(NameOf(from));
  return std::move(reply->results);
}

}  // namespace gradferry
