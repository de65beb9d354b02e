// The two nodes that tie the graphs of two workers together. For every message of a context that carries tensors which
// require grad there is one pair: the sender's SendRpcBackward, whose next edges are the gradient edges of those
// tensors in table order, and the receiver's RecvRpcBackward, whose outputs those tensors are over there. Gradients
// travel from recv to send function; the engine moves them, neither node does it by itself.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "impl/autograd/node.h"
#include "impl/base/live.h"
#include "impl/wire/messages.h"

namespace gradferry {

class SendRpcBackward final : public Node {
 public:
  // message_id: the autograd message id, drawn by this worker. to: the receiver of the message.
  SendRpcBackward(int64_t message_id, WorkerId to) : message_id_(message_id), to_(to) {}
  SendRpcBackward() : SendRpcBackward(0, 0) {}

  int64_t message_id() const { return message_id_; }
  WorkerId to() const { return to_; }

  // The gradients that came back for the message's tensors; undefined ones stay so.
  void SetGradients(variable_list gradients) { gradients_ = std::move(gradients); }

  // Takes no inputs; hands out the gradients that were set.
  variable_list apply(variable_list&& inputs) override;
  std::string name() const override { return "SendRpcBackward"; }

 private:
  int64_t message_id_;
  WorkerId to_;
  variable_list gradients_;
  Live<LiveKind::kSendFunctions> live_;
};

class RecvRpcBackward final : public Node {
 public:
  // message_id: the sender's. from: the sender of the message.
  RecvRpcBackward(int64_t message_id, WorkerId from) : message_id_(message_id), from_(from) {}
  RecvRpcBackward() : RecvRpcBackward(0, 0) {}

  int64_t message_id() const { return message_id_; }
  WorkerId from() const { return from_; }

  // Only libtorch's own engine would call this, for a backward() beside ours that reached a tensor which came from
  // another worker; it throws and says what to do instead.
  variable_list apply(variable_list&& gradients) override;
  std::string name() const override { return "RecvRpcBackward"; }

 private:
  int64_t message_id_;
  WorkerId from_;
  Live<LiveKind::kRecvFunctions> live_;
};

// A send function over the gradient edges of `tensors`, which all require grad.
NodeOf<SendRpcBackward> MakeSendFunction(int64_t message_id, WorkerId to, const std::vector<at::Tensor>& tensors);

// A recv function with `tensors` as its outputs: each is a leaf that does not require grad, and does so afterwards.
// kDataLoss when one of them is of a dtype that cannot require grad.
Result<NodeOf<RecvRpcBackward>> MakeRecvFunction(int64_t message_id, WorkerId from,
                                                 const std::vector<at::Tensor>& tensors);

}  // namespace gradferry
