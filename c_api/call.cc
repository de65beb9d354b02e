// Calls to workers: gf_call_*.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"

namespace gradferry {
namespace {

Result<CallSpec> ReadCall(const std::shared_ptr<Worker>& worker, const gf_call& call) {
  CallSpec spec;
  GF_ASSIGN_OR_RETURN(std::string_view to, TextIn(call.to, call.to_length, "gf_call.to"));
  GF_ASSIGN_OR_RETURN(std::string_view name, TextIn(call.name, call.name_length, "gf_call.name"));
  GF_ASSIGN_OR_RETURN(std::string_view overload, TextIn(call.overload, call.overload_length, "gf_call.overload"));
  GF_RETURN_IF_ERROR(CheckTime(call.deadline, "gf_call.deadline"));
  if (call.kind != GF_CALL_HANDLER && call.kind != GF_CALL_OPERATOR) {
    return Status(Code::kUnsupported, StrCat("gf_call.kind is ", call.kind));
  }
  if (call.profile > 1) return Status(Code::kUnsupported, StrCat("gf_call.profile is ", call.profile));
  if (call.when_full > GF_WHEN_FULL_FAIL) {
    return Status(Code::kUnsupported, StrCat("gf_call.when_full is ", call.when_full));
  }
  if (name.empty()) return InvalidArgument("gf_call.name is empty");
  if (call.no_grad > 1) return Status(Code::kUnsupported, StrCat("gf_call.no_grad is ", call.no_grad));
  if (to.empty() && (call.to_id < 0 || call.to_id > kMaxWorkerId)) {
    return InvalidArgument(StrCat("gf_call.to_id is ", call.to_id, "; ids are 0 to ", kMaxWorkerId));
  }
  spec.to = to;
  spec.to_id = to.empty() ? static_cast<WorkerId>(call.to_id) : -1;
  spec.target = call.kind == GF_CALL_OPERATOR ? CallTarget::kOperator : CallTarget::kHandler;
  spec.name = name;
  spec.overload = overload;
  spec.timeout = call.deadline;
  spec.record = call.no_grad == 0;
  spec.profile = call.profile == 1;
  spec.when_full = static_cast<WhenFull>(call.when_full);
  if (call.arguments != nullptr) {
    GF_ASSIGN_OR_RETURN(ListObject * list, Get(call.arguments));
    spec.arguments = list->values;
  }
  if (call.context != nullptr) {
    GF_ASSIGN_OR_RETURN(ContextObject * context, Get(call.context));
    if (context->worker != worker) {
      return InvalidArgument(StrCat("gf_call.context belongs to worker ", context->worker->name(),
                                    ", the call is made by ", worker->name()));
    }
    spec.context = context->context;
  }
  if (call.parent != nullptr) {
    GF_ASSIGN_OR_RETURN(RequestObject * parent, Get(call.parent));
    if (parent->worker != worker) return InvalidArgument("gf_call.parent is a request of another worker");
    spec.parent = parent->request;
  }
  return spec;
}

Result<std::shared_ptr<Future>> Start(gf_worker* worker, const gf_call& call) {
  GF_ASSIGN_OR_RETURN(WorkerObject * object, Get(worker));
  const std::shared_ptr<Worker> held = object->open->get();
  GF_ASSIGN_OR_RETURN(CallSpec spec, ReadCall(held, call));
  return held->StartCall(std::move(spec));
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_call_sync(gf_worker* worker, const gf_call* call, gf_list** results, gf_error** error) {
  return AtBoundary(error, Outs(results), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const gf_call given, StructIn(call, "gf_call"));
    if (given.ended != nullptr) *given.ended = nullptr;
    if (given.queue != nullptr) return InvalidArgument("gf_call.queue is for gf_call_start");
    GF_RETURN_IF_ERROR(CheckMayWait("gf_call_sync"));
    GF_ASSIGN_OR_RETURN(std::shared_ptr<Future> future, Start(worker, given));
    GF_RETURN_IF_ERROR(WaitFor(*future, kNever).status());  // the call's own deadline ends it
    if (given.ended != nullptr) *given.ended = MakeHandle<gf_future>(FutureObject{future});
    return TakeOutcome(*future, results);
  });
}

int32_t gf_call_start(gf_worker* worker, const gf_call* call, gf_future** future, gf_error** error) {
  if (future != nullptr) *future = nullptr;
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const gf_call given, StructIn(call, "gf_call"));
    if (given.ended != nullptr) return InvalidArgument("gf_call.ended is for gf_call_sync");
    GF_ASSIGN_OR_RETURN(auto queue, OptionalQueue(given.queue, future != nullptr, "gf_call_start"));
    GF_ASSIGN_OR_RETURN(std::shared_ptr<Future> started, Start(worker, given));
    return HandOver(started, std::move(queue), given.token, future);
  });
}
