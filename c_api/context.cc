// Contexts, passes and their gradients: gf_context_*, gf_backward_*, gf_optimizer_step.
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"

namespace gradferry {
namespace {

// Reading a released context is an error, too: its gradients are gone.
Result<ContextObject*> LiveContext(gf_context* handle) {
  GF_ASSIGN_OR_RETURN(ContextObject * object, Get(handle));
  if (object->context->released()) {
    return NotFound(StrCat("context ", object->context->id(), " was released")).WithDomain("autograd");
  }
  return object;
}

Status ReadTensors(gf_tensor* const* handles, size_t count, std::vector<at::Tensor>& out, const char* what) {
  for (size_t i = 0; i < count; ++i) {
    if (handles[i] == nullptr) {
      out.emplace_back();
      continue;
    }
    auto tensor = Get(handles[i]);
    if (!tensor.ok()) return tensor.status().Wrap(Code::kInvalidArgument, StrCat(what, " ", i, " is no tensor"));
    out.push_back((*tensor)->tensor);
  }
  return OkStatus();
}

Result<std::shared_ptr<Future>> StartPass(gf_context* context, const gf_backward& given) {
  GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
  GF_RETURN_IF_ERROR(CheckTime(given.deadline, "gf_backward.deadline"));
  if (given.retain_graph > 1)
    return Status(Code::kUnsupported, StrCat("gf_backward.retain_graph is ", given.retain_graph));
  if (given.roots == nullptr && given.root_count > 0) return InvalidArgument("gf_backward.roots is NULL");
  BackwardRequest request;
  request.retain_graph = given.retain_graph == 1;
  GF_RETURN_IF_ERROR(ReadTensors(given.roots, given.root_count, request.roots, "root"));
  if (given.grads != nullptr) {
    GF_RETURN_IF_ERROR(ReadTensors(given.grads, given.root_count, request.grads, "seed gradient"));
  } else {
    request.grads.resize(given.root_count);
  }
  if (given.inputs == nullptr && given.input_count > 0) return InvalidArgument("gf_backward.inputs is NULL");
  if (given.inputs != nullptr && given.input_count == 0) {
    return InvalidArgument("gf_backward.inputs chooses no input; NULL stands for all leaves");
  }
  request.chosen_inputs = given.inputs != nullptr;
  GF_RETURN_IF_ERROR(ReadTensors(given.inputs, given.input_count, request.inputs, "input"));
  return object->worker->StartBackward(object->context, std::move(request), given.deadline);
}

std::string InMilliseconds(const nlohmann::json& value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.1f ms", value.get<double>());
  return text;
}

// What gf_context_explain says as JSON, for people: a line for each pass, one for each thing that it waits for.
std::string ExplanationAsText(const nlohmann::json& explained) {
  auto name = [](const nlohmann::json& pass) {
    return StrCat("pass ", pass["number"].get<uint64_t>(), " of worker ", pass["initiator"].get<std::string>());
  };
  std::string text = StrCat("context ", explained["context"].get<int64_t>(), " on worker ",
                            explained["worker"].get<std::string>(), ": ", explained["passes"].size(), " passes");
  if (!explained["turn"].is_null()) text += StrCat("; it is the turn of ", name(explained["turn"]));
  if (const auto waiting = explained["waiting_turns"].get<size_t>(); waiting > 0)
    text += StrCat(", ", waiting, " wait");
  text += '\n';
  if (explained.contains("aborting")) {
    const auto& aborting = explained["aborting"];
    text += StrCat("  takes back ", name(aborting["turn"]), ": ", aborting["because"].get<std::string>(), "; ",
                   aborting["unanswered"].get<int64_t>(), " peers have not answered\n");
  }
  for (const auto& pass : explained["passes"]) {
    text += StrCat("  ", name(pass), " ", pass["state"].get<std::string>(), ", begun ",
                   InMilliseconds(pass["elapsed_ms"]), " ago, ", pass["nodes_run"].get<uint64_t>(), " nodes run");
    if (pass.contains("within")) text += StrCat(", within ", name(pass["within"]));
    if (pass.contains("time_left_ms")) text += StrCat(", ", InMilliseconds(pass["time_left_ms"]), " left");
    text += '\n';
    for (const auto& peer : pass["unanswered"]) {
      text += StrCat("    worker ", peer["peer"].get<std::string>(), " has not answered ",
                     peer["messages"].get<int64_t>(), " messages for ", InMilliseconds(peer["for_ms"]), "\n");
    }
    for (const auto& send : pass["send_functions"]) {
      text += StrCat("    send function ", send["id"].get<int64_t>(), " waits for gradients from worker ",
                     send["from"].get<std::string>(), " for ", InMilliseconds(send["for_ms"]), "\n");
    }
  }
  return text;
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_context_new(gf_worker* worker, gf_context** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(WorkerObject * object, Get(worker));
    const std::shared_ptr<Worker>& held = object->open->get();
    GF_ASSIGN_OR_RETURN(auto context, held->NewContext());
    auto owned = std::make_shared<OwnedContext>(held, context->id());
    *out = MakeHandle<gf_context>(ContextObject{held, std::move(context), object->open, std::move(owned)});
    return OkStatus();
  });
}

int32_t gf_context_find(gf_worker* worker, int64_t id, gf_context** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(WorkerObject * object, Get(worker));
    const std::shared_ptr<Worker>& held = object->open->get();
    GF_ASSIGN_OR_RETURN(auto context, held->FindContext(id));
    *out = MakeHandle<gf_context>(ContextObject{held, std::move(context), object->open, nullptr});
    return OkStatus();
  });
}

gf_context* gf_context_ref(gf_context* context) { return RefHandle(context); }
void gf_context_unref(gf_context* context) { UnrefHandle(context); }

int64_t gf_context_id(gf_context* context) {
  const ContextObject* object = Peek(context);
  return object == nullptr ? 0 : object->context->id();
}

int32_t gf_context_release(gf_context* context, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
    return object->worker->ReleaseContext(object->context->id());
  });
}

int32_t gf_context_describe(gf_context* context, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
    return TextOut(object->worker->DescribeContext(*object->context), buffer, capacity, length);
  });
}

int32_t gf_context_explain(gf_context* context, uint32_t format, char* buffer, size_t capacity, size_t* length,
                           gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
    if (format > GF_FORMAT_JSON) return Status(Code::kUnsupported, StrCat("the format ", format, " is not known"));
    const nlohmann::json explained = object->worker->ExplainContext(*object->context);
    return TextOut(format == GF_FORMAT_JSON ? explained.dump() : ExplanationAsText(explained), buffer, capacity,
                   length);
  });
}

int32_t gf_backward_sync(gf_context* context, const gf_backward* backward, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const gf_backward given, StructIn(backward, "gf_backward"));
    if (given.queue != nullptr) return InvalidArgument("gf_backward.queue is for gf_backward_start");
    GF_RETURN_IF_ERROR(CheckMayWait("gf_backward_sync"));
    GF_ASSIGN_OR_RETURN(std::shared_ptr<Future> future, StartPass(context, given));
    GF_RETURN_IF_ERROR(WaitFor(*future, kNever).status());  // the pass's own deadline ends it
    return TakeOutcome(*future, nullptr);
  });
}

int32_t gf_backward_start(gf_context* context, const gf_backward* backward, gf_future** future, gf_error** error) {
  if (future != nullptr) *future = nullptr;
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const gf_backward given, StructIn(backward, "gf_backward"));
    GF_ASSIGN_OR_RETURN(auto queue, OptionalQueue(given.queue, future != nullptr, "gf_backward_start"));
    GF_ASSIGN_OR_RETURN(std::shared_ptr<Future> started, StartPass(context, given));
    return HandOver(started, std::move(queue), given.token, future);
  });
}

int32_t gf_context_gradient(gf_context* context, gf_tensor* tensor, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
    GF_ASSIGN_OR_RETURN(TensorObject * variable, Get(tensor));
    at::Tensor gradient = object->context->Gradient(variable->tensor);
    if (!gradient.defined()) {
      return NotFound(StrCat("context ", object->context->id(), " holds no gradient for this tensor, ",
                             DescribeTensor(variable->tensor), ", on worker ", object->worker->name()))
          .WithDomain("autograd");
    }
    *out = MakeHandle<gf_tensor>(TensorObject{std::move(gradient)});
    return OkStatus();
  });
}

int32_t gf_context_gradients(gf_context* context, gf_list** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(ContextObject * object, LiveContext(context));
    ValueList values;
    for (auto& [variable, gradient] : object->context->Gradients()) {
      values.emplace_back(variable);
      values.emplace_back(std::move(gradient));
    }
    *out = MakeHandle<gf_list>(ListObject{std::move(values)});
    return OkStatus();
  });
}

int32_t gf_optimizer_step(gf_optimizer* optimizer, gf_context* context, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(OptimizerObject * object, Get(optimizer));
    GF_ASSIGN_OR_RETURN(ContextObject * in, LiveContext(context));
    return object->optimizer->Step([&](const at::Tensor& parameter) { return in->context->Gradient(parameter); });
  });
}
