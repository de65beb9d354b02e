// See functions.h.
#include "impl/autograd/functions.h"

#include <c10/util/Exception.h>

namespace gradferry {

variable_list SendRpcBackward::apply(variable_list&& inputs) {
  TORCH_CHECK(inputs.empty(), "SendRpcBackward takes no inputs, got ", inputs.size());
  return std::move(gradients_);
}

variable_list RecvRpcBackward::apply(variable_list&&) {
  TORCH_CHECK(false, "a gradient reached a tensor that came from worker ", from_,
              " outside of a distributed pass; run the backward with gf_backward_sync in the context of that call");
}

NodeOf<SendRpcBackward> MakeSendFunction(int64_t message_id, WorkerId to, const std::vector<at::Tensor>& tensors) {
  auto send = MakeNode<SendRpcBackward>(message_id, to);
  edge_list edges;
  edges.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) edges.push_back(torch::autograd::impl::gradient_edge(tensor));
  send->set_next_edges(std::move(edges));
  return send;
}

Result<NodeOf<RecvRpcBackward>> MakeRecvFunction(int64_t message_id, WorkerId from,
                                                 const std::vector<at::Tensor>& tensors) {
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined() || !(tensor.is_floating_point() || tensor.is_complex())) {
      return Status(Code::kDataLoss, StrCat("a message marks ", DescribeTensor(tensor),
                                            " as requiring grad; only floating point and complex tensors can"));
    }
  }
  auto recv = MakeNode<RecvRpcBackward>(message_id, from);
  for (const at::Tensor& tensor : tensors) {
    const uint32_t output = recv->add_input_metadata(tensor);
    torch::autograd::impl::set_gradient_edge(tensor, {recv, output});
  }
  return recv;
}

}  // namespace gradferry
