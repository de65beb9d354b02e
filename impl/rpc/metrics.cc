// See metrics.h.
#include "impl/rpc/metrics.h"

namespace gradferry {

const char* CallKindName(CallKind kind) {
  static constexpr const char* kNames[kCallKinds] = {"handler", "operator", "mark",  "gradients", "turn",
                                                     "abort",   "cleanup",  "lease", "other"};
  return kNames[static_cast<size_t>(kind)];
}

namespace {

struct KindOf {
  CallKind operator()(const Call& call) const {
    return call.target == CallTarget::kOperator ? CallKind::kOperator : CallKind::kHandler;
  }
  CallKind operator()(const RpcWithAutograd& rpc) const { return std::visit(*this, rpc.wrapped); }
  CallKind operator()(const RpcWithProfiling& rpc) const { return std::visit(*this, rpc.wrapped); }
  CallKind operator()(const MarkSendFunctions&) const { return CallKind::kMark; }
  CallKind operator()(const MarkNeeded&) const { return CallKind::kMark; }
  CallKind operator()(const PropagateGradients&) const { return CallKind::kGradients; }
  CallKind operator()(const RequestTurn&) const { return CallKind::kTurn; }
  CallKind operator()(const AbortPass&) const { return CallKind::kAbort; }
  CallKind operator()(const CleanupAutogradContext&) const { return CallKind::kCleanup; }
  CallKind operator()(const ContextsAlive&) const { return CallKind::kLease; }
  template <class T>
  CallKind operator()(const T&) const {
    return CallKind::kOther;
  }
};

}  // namespace

CallKind CallKindOf(const Message& request) { return std::visit(KindOf(), request); }

KindMetrics::~KindMetrics() {
  for (auto& kind : kinds_) delete kind.load();
}

OutcomeMetrics& KindMetrics::Of(CallKind kind) {
  auto& place = kinds_[static_cast<size_t>(kind)];
  OutcomeMetrics* found = place.load(std::memory_order_acquire);
  if (found != nullptr) return *found;
  auto fresh = std::make_unique<OutcomeMetrics>();
  if (place.compare_exchange_strong(found, fresh.get(), std::memory_order_acq_rel)) return *fresh.release();
  return *found;  // another thread was first
}

}  // namespace gradferry
