// See dist_engine.h.
#include "impl/engine/dist_engine.h"

#include <ATen/ops/ones_like.h>

#include <algorithm>

#include <nlohmann/json.hpp>
#include <utility>

#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {
namespace {

Status WrongRoot(size_t index, const std::string& why) {
  return InvalidArgument(StrCat("root ", index, " ", why)).WithDomain("autograd").WithOperation("backward");
}

// Edges and seed gradients of the roots, or what is wrong with them.
Result<PassRoots> CheckRoots(const BackwardRequest& request) {
  if (request.roots.empty()) {
    return InvalidArgument("no roots were given to backward").WithDomain("autograd").WithOperation("backward");
  }
  PassRoots roots;
  TorchScope scope(GradRecording::kOff);
  for (size_t i = 0; i < request.roots.size(); ++i) {
    const at::Tensor& root = request.roots[i];
    if (!root.defined()) return WrongRoot(i, "is not defined");
    if (!root.requires_grad()) return WrongRoot(i, StrCat("does not require grad: ", DescribeTensor(root)));
    at::Tensor seed = request.grads[i];
    if (!seed.defined()) {
      if (root.numel() != 1) {
        return WrongRoot(i, StrCat("has ", root.numel(), " elements (", DescribeTensor(root),
                                   "); only a root of one element can leave out its seed gradient"));
      }
      seed = at::ones_like(root);
    } else if (seed.sizes() != root.sizes() || seed.scalar_type() != root.scalar_type() ||
               seed.device() != root.device()) {
      return WrongRoot(i, StrCat("is ", DescribeTensor(root), " but its seed gradient is ", DescribeTensor(seed)));
    }
    roots.edges.push_back(torch::autograd::impl::gradient_edge(root));
    roots.gradients.push_back(std::move(seed));
  }
  return roots;
}

Ack Refusal(Status status) {
  Ack ack;
  ack.status = status.WithDomain("autograd");
  return ack;
}

// What the caller of backward sees of a pass's error.
Status Outcome(const Status& status, int64_t context_id) {
  switch (status.code()) {
    case Code::kOk:
    case Code::kCancelled:
    case Code::kDeadlineExceeded:
    case Code::kClosed:
      return status;
    default:
      return status.Wrap(Code::kPassAborted, StrCat("the backward pass in context ", context_id, " failed: ",
                                                    status.message()))
          .WithDomain("autograd")
          .WithWorker(status.error()->worker)
          .WithOperation(status.error()->operation)
          .WithPeer(status.error()->peer);
  }
}

}  // namespace

Result<std::shared_ptr<Pass>> DistEngine::Backward(std::shared_ptr<DistAutogradContext> context,
                                                   BackwardRequest request, std::function<void(Status)> done) {
  Result<PassRoots> roots = [&]() -> Result<PassRoots> {
    try {
      return CheckRoots(request);
    } catch (...) {
      return StatusFromTorchException();
    }
  }();
  if (!roots.ok()) return roots.status();
  const int64_t context_id = context->id();

  std::lock_guard lock(mutex_);
  GF_RETURN_IF_ERROR(container_->Find(context_id).status());  // not after its release
  ContextPasses& passes = contexts_[context_id];
  if (passes.active && passes.active->id().initiator != peers_->self()) {
    return FailedPrecondition(StrCat("worker ", peers_->NameOf(passes.active->id().initiator),
                                     " runs a backward pass in context ", context_id,
                                     " at this moment; passes of different workers in one context must not overlap"))
        .WithDomain("autograd")
        .WithOperation("backward");
  }
  auto pass = std::make_shared<Pass>(
      PassId{peers_->self(), next_number_++}, request.retain_graph, std::move(context), peers_, this,
      [context_id, done = std::move(done)](Status status) { done(Outcome(status, context_id)); });
  pass->SetDeadline(request.deadline);
  if (passes.active) {
    passes.waiting.push_back({pass, std::move(*roots)});
  } else {
    passes.active = pass;
    pass->Begin(std::move(*roots));
  }
  return pass;
}

bool DistEngine::Retire(Pass& pass, const Status& status) {
  std::shared_ptr<Pass> retired;  // freed after the lock
  std::lock_guard lock(mutex_);
  if (status.ok() && pass.HasEvents()) return false;
  auto it = contexts_.find(pass.context_id());
  if (it == contexts_.end()) return true;
  ContextPasses& passes = it->second;
  if (!status.ok()) {
    uint64_t& aborted = passes.aborted[pass.id().initiator];
    aborted = std::max(aborted, pass.id().number);
  }
  for (auto waiting = passes.waiting.begin(); waiting != passes.waiting.end(); ++waiting) {
    if (waiting->pass.get() != &pass) continue;
    retired = std::move(waiting->pass);
    passes.waiting.erase(waiting);
    return true;
  }
  if (passes.active.get() != &pass) return true;
  retired = std::move(passes.active);
  passes.active = nullptr;
  if (!passes.waiting.empty()) {
    Waiting next = std::move(passes.waiting.front());
    passes.waiting.pop_front();
    passes.active = next.pass;
    next.pass->Begin(std::move(next.roots));
  } else if (passes.aborted.empty()) {
    contexts_.erase(it);
  }
  return true;
}

void DistEngine::OnMark(WorkerId from, MarkSendFunctions message, ReplyCallback reply) {
  if (message.outputs.size() != message.message_ids.size()) {
    return reply(Refusal(InvalidArgument(StrCat("a mark has ", message.message_ids.size(), " message ids and ",
                                                message.outputs.size(), " outputs"))));
  }
  std::vector<std::pair<int64_t, int64_t>> tensors;
  for (size_t i = 0; i < message.outputs.size(); ++i) tensors.emplace_back(message.message_ids[i], message.outputs[i]);
  Status refused;
  std::shared_ptr<Pass> superseded;
  {
    std::lock_guard lock(mutex_);
    auto context = container_->Find(message.context_id);
    if (!context.ok()) {
      refused = context.status();
    } else {
      ContextPasses& passes = contexts_[message.context_id];
      auto aborted = passes.aborted.find(message.pass.initiator);
      if (passes.active && passes.active->id() != message.pass &&
          passes.active->id().initiator == message.pass.initiator &&
          passes.active->id().number < message.pass.number) {
        // Its initiator runs one pass at a time, so the older one has ended badly and its AbortPass is on the way.
        superseded = std::exchange(passes.active, nullptr);
      }
      if (aborted != passes.aborted.end() && message.pass.number <= aborted->second) {
        refused = Status(Code::kAborted, StrCat("pass ", message.pass.number, " of worker ",
                                                peers_->NameOf(message.pass.initiator), " was aborted"));
      } else if (passes.active && passes.active->id() != message.pass) {
        refused = FailedPrecondition(StrCat(
            "worker ", peers_->NameOf(message.pass.initiator), " began a backward pass in context ",
            message.context_id, " while one of worker ", peers_->NameOf(passes.active->id().initiator), " runs on worker ",
            peers_->NameOf(peers_->self()), "; passes of different workers in one context must not overlap"));
      } else {
        if (!passes.active) {
          passes.active = std::make_shared<Pass>(message.pass, message.retain_graph, *std::move(context), peers_, this,
                                                 nullptr);
        }
        passes.active->OnMark(from, std::move(tensors), std::move(reply));
      }
    }
  }
  if (superseded) superseded->Fail(Status(Code::kAborted, "a newer pass of the same worker has begun"));
  if (!refused.ok()) reply(Refusal(refused));
}

void DistEngine::OnMarkFinished(const MarkFinished& message) {
  std::lock_guard lock(mutex_);
  auto it = contexts_.find(message.context_id);
  if (it == contexts_.end() || !it->second.active || it->second.active->id() != message.pass) return;
  it->second.active->OnMarkFinished();
}

void DistEngine::OnGradients(WorkerId from, PropagateGradients message, ReplyCallback reply) {
  {
    std::lock_guard lock(mutex_);
    auto it = contexts_.find(message.context_id);
    if (it != contexts_.end() && it->second.active && it->second.active->id() == message.pass) {
      it->second.active->OnGradients(from, message.message_id, std::move(message.gradients), std::move(reply));
      return;
    }
  }
  reply(Refusal(Status(Code::kAborted, StrCat("pass ", message.pass.number, " of worker ",
                                              peers_->NameOf(message.pass.initiator), " in context ",
                                              message.context_id, " does not run on worker ",
                                              peers_->NameOf(peers_->self())))));
}

void DistEngine::OnAbort(WorkerId from, const AbortPass& message) {
  std::lock_guard lock(mutex_);
  if (!container_->Find(message.context_id).ok()) return;
  ContextPasses& passes = contexts_[message.context_id];
  uint64_t& aborted = passes.aborted[message.pass.initiator];
  aborted = std::max(aborted, message.pass.number);
  if (passes.active && passes.active->id() == message.pass) {
    passes.active->Fail(message.status.WithPeer(peers_->NameOf(from)));
  }
}

void DistEngine::AbandonContext(int64_t context_id, const Status& status) {
  ContextPasses passes;
  {
    std::lock_guard lock(mutex_);
    auto node = contexts_.extract(context_id);
    if (node.empty()) return;
    passes = std::move(node.mapped());
  }
  if (passes.active) passes.active->Fail(status);
  for (Waiting& waiting : passes.waiting) waiting.pass->Fail(status);
}

void DistEngine::OnPeerLost(WorkerId lost, const Status& status) {
  std::lock_guard lock(mutex_);
  for (auto& [id, passes] : contexts_) {
    if (passes.active && passes.active->id().initiator == lost) passes.active->Fail(status);
  }
}

void DistEngine::FailAll(const Status& status) {
  std::lock_guard lock(mutex_);
  for (auto& [id, passes] : contexts_) {
    if (passes.active) passes.active->Fail(status);
    for (Waiting& waiting : passes.waiting) waiting.pass->Fail(status);
  }
}

size_t DistEngine::active_passes() const {
  std::lock_guard lock(mutex_);
  size_t count = 0;
  for (const auto& [id, passes] : contexts_) count += (passes.active ? 1 : 0) + passes.waiting.size();
  return count;
}

nlohmann::json DistEngine::Describe(int64_t context_id) const {
  std::lock_guard lock(mutex_);
  nlohmann::json list = nlohmann::json::array();
  auto add = [&](const Pass& pass) {
    list.push_back({{"initiator", pass.id().initiator}, {"number", pass.id().number}});
  };
  auto it = contexts_.find(context_id);
  if (it == contexts_.end()) return list;
  if (it->second.active) add(*it->second.active);
  for (const Waiting& waiting : it->second.waiting) add(*waiting.pass);
  return list;
}

}  // namespace gradferry
