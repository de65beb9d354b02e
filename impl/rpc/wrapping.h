// What lies around a call or its reply: the context's metadata with the send and recv functions, and profiling.
#pragma once

#include <string>
#include <vector>

#include "impl/autograd/context.h"
#include "impl/base/status.h"
#include "impl/trace/profile.h"
#include "impl/wire/frame.h"
#include "impl/wire/messages.h"

namespace gradferry {

// Of a CallSpec or a Call: "aten::add.Tensor".
template <class Target>
std::string TargetName(const Target& target) {
  return target.overload.empty() ? target.name : target.name + "." + target.overload;
}

// Tensors of a message that require grad; *which: of all its tensors those.
std::vector<at::Tensor> RecordedTensors(Message& message, std::vector<bool>* which);

// Makes the tensors that the sender recorded the outputs of a recv function.
Status AttachRecvFunction(DecodedMessage& message, const AutogradMetadata& metadata, WorkerId from,
                          DistAutogradContext& context);

// A Call, Reply or RpcWithAutograd within an RpcWithProfiling.
Message WithProfiling(Message message, uint32_t most_events, Profile profile);

// The bytes of its tensors, as windows count them: about what travels.
uint64_t TensorBytes(Message& message);

}  // namespace gradferry
