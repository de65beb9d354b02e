// Inbound requests: gf_request_*.
#include <ATen/record_function.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"
#include "impl/trace/recording.h"

namespace gradferry {
namespace {

const char* View(const std::string& text, size_t* length) {
  if (length != nullptr) *length = text.size();
  return text.c_str();
}

const char* NoText(size_t* length) {
  if (length != nullptr) *length = 0;
  return "";
}

// What a thread has begun by gf_request_profile_begin, the last one last.
class BegunProfiles {
 public:
  // libtorch's own state of the thread has to outlive this.
  BegunProfiles() { (void)at::hasThreadLocalCallbacks(); }
  ~BegunProfiles() {
    while (!begun_.empty()) begun_.pop_back();
  }
  void Begin(const std::shared_ptr<Request>& request) {
    begun_.emplace_back(request.get(), std::make_unique<Recording>(request->facts().recorder, request->facts().name));
  }
  bool End(const Request* request) {
    if (begun_.empty() || begun_.back().first != request) return false;
    begun_.pop_back();
    return true;
  }

 private:
  std::vector<std::pair<const Request*, std::unique_ptr<Recording>>> begun_;
};

BegunProfiles& OfThisThread() {
  static thread_local BegunProfiles profiles;
  return profiles;
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

gf_request* gf_request_ref(gf_request* request) { return RefHandle(request); }
void gf_request_unref(gf_request* request) { UnrefHandle(request); }

int32_t gf_request_arguments(gf_request* request, gf_list** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    *out = MakeHandle<gf_list>(ListObject{object->request->arguments()});
    return OkStatus();
  });
}

const char* gf_request_name(gf_request* request, size_t* length) {
  const RequestObject* object = Peek(request);
  return object ? View(object->request->facts().name, length) : NoText(length);
}

const char* gf_request_caller(gf_request* request, size_t* length) {
  const RequestObject* object = Peek(request);
  return object ? View(object->request->facts().caller_name, length) : NoText(length);
}

int32_t gf_request_context(gf_request* request, gf_context** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    const auto& context = object->request->facts().context;
    if (!context) return OkStatus();
    if (!object->worker) return Status(Code::kClosed, "the worker of this request is closed");
    *out = MakeHandle<gf_context>(ContextObject{object->worker, context, nullptr, nullptr});
    return OkStatus();
  });
}

uint32_t gf_request_grad(gf_request* request) {
  const RequestObject* object = Peek(request);
  return object != nullptr && object->request->facts().record ? GF_GRAD_RECORD : GF_GRAD_OFF;
}

int64_t gf_request_time_left(gf_request* request) {
  return OrElse(int64_t{0}, [&]() -> int64_t {
    const RequestObject* object = Peek(request);
    if (object == nullptr || !object->worker) return 0;
    const int64_t deadline = object->request->facts().deadline;
    return deadline == kNever ? kNever : deadline - object->worker->clock().Now();
  });
}

int32_t gf_request_is_cancelled(gf_request* request) {
  const RequestObject* object = Peek(request);
  return object != nullptr && object->request->cancelled() ? 1 : 0;
}

int32_t gf_request_profile_begin(gf_request* request, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    if (object->request->facts().recorder != nullptr) OfThisThread().Begin(object->request);
    return OkStatus();
  });
}

int32_t gf_request_profile_end(gf_request* request, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    if (object->request->facts().recorder == nullptr || OfThisThread().End(object->request.get())) return OkStatus();
    return FailedPrecondition("this thread has not begun to work for this request, or has begun something else since");
  });
}

int32_t gf_request_reply(gf_request* request, const gf_list* results, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    ValueList values;
    if (results != nullptr) {
      GF_ASSIGN_OR_RETURN(const ListObject* list, Get(results));
      values = list->values;
    }
    return object->request->Reply(std::move(values));
  });
}

int32_t gf_request_fail(gf_request* request, int32_t code, const char* message, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(RequestObject * object, Get(request));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(message, length, "the message"));
    if (code == GF_OK || !IsKnownCode(code)) {
      return InvalidArgument(StrCat("a request cannot fail with code ", code, " (", gf_code_name(code), ")"));
    }
    return object->request->Fail(Status(static_cast<Code>(code), std::string(text)));
  });
}
