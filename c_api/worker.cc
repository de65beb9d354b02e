// Workers and their handlers: gf_worker_*.
#include <memory>
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"

namespace gradferry {
namespace {

// A gf_direct with its drop, called when the last call of the handler is over.
class DirectHandler {
 public:
  explicit DirectHandler(const gf_direct& direct) : direct_(direct) {}
  DirectHandler(const DirectHandler&) = delete;
  ~DirectHandler() {
    if (armed_ && direct_.drop != nullptr) direct_.drop(direct_.token);
  }
  // From now on the library owns the token.
  void Arm() { armed_ = true; }
  void Call(gf_request* request) const { direct_.handler(direct_.token, request); }

 private:
  const gf_direct direct_;
  bool armed_ = false;
};

Result<std::shared_ptr<Worker>> WorkerOf(gf_worker* handle) {
  GF_ASSIGN_OR_RETURN(WorkerObject * object, Get(handle));
  return object->open->get();
}

Result<std::shared_ptr<OpenWorker>> CreateWorker(gf_config* config) {
  Config effective;
  if (config != nullptr) {
    GF_ASSIGN_OR_RETURN(ConfigObject * object, Get(config));
    effective = object->config;
  }
  GF_RETURN_IF_ERROR(effective.ApplyEnvironment());
  GF_ASSIGN_OR_RETURN(std::shared_ptr<Worker> worker, Worker::Create(effective));
  return std::make_shared<OpenWorker>(std::move(worker));
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_worker_create(gf_config* config, gf_worker** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::shared_ptr<OpenWorker> worker, CreateWorker(config));
    *out = MakeHandle<gf_worker>(WorkerObject{std::move(worker)});
    return OkStatus();
  });
}

int32_t gf_worker_start(gf_worker* worker, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_RETURN_IF_ERROR(CheckMayBlock("gf_worker_start"));
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    return object->Start();
  });
}

int32_t gf_worker_open(gf_config* config, gf_worker** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_RETURN_IF_ERROR(CheckMayBlock("gf_worker_open"));
    GF_ASSIGN_OR_RETURN(std::shared_ptr<OpenWorker> worker, CreateWorker(config));
    GF_RETURN_IF_ERROR(worker->get()->Start());
    *out = MakeHandle<gf_worker>(WorkerObject{std::move(worker)});
    return OkStatus();
  });
}

gf_worker* gf_worker_ref(gf_worker* worker) { return RefHandle(worker); }
void gf_worker_unref(gf_worker* worker) { UnrefHandle(worker); }

int32_t gf_worker_info(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    return TextOut(object->InfoJson(), buffer, capacity, length);
  });
}

int32_t gf_worker_metrics(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    return TextOut(object->MetricsText(), buffer, capacity, length);
  });
}

int32_t gf_worker_address(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    return TextOut(object->address(), buffer, capacity, length);
  });
}

int32_t gf_worker_trace_start(gf_worker* worker, uint64_t capacity, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    constexpr uint64_t kDefault = 65536, kMost = 10000000;
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    if (capacity > kMost) return InvalidArgument(StrCat("a trace of ", capacity, " events is wanted, at most ", kMost));
    object->trace().Start(capacity == 0 ? kDefault : capacity);
    return OkStatus();
  });
}

int32_t gf_worker_trace_stop(gf_worker* worker, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    object->trace().Stop();
    return OkStatus();
  });
}

int32_t gf_worker_trace_json(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    return TextOut(object->trace().Json(), buffer, capacity, length);
  });
}

int32_t gf_worker_add_peer(gf_worker* worker, const gf_peer* peer, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_ASSIGN_OR_RETURN(const gf_peer given, StructIn(peer, "gf_peer"));
    GF_ASSIGN_OR_RETURN(std::string_view name, TextIn(given.name, given.name_length, "the peer's name"));
    GF_ASSIGN_OR_RETURN(std::string_view address, TextIn(given.address, given.address_length, "the peer's address"));
    return object->AddPeer({given.id, std::string(name), std::string(address)});
  });
}

int32_t gf_worker_close_start(gf_worker* worker, int64_t deadline, gf_future** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_RETURN_IF_ERROR(CheckTime(deadline, "the deadline"));
    *out = MakeHandle<gf_future>(FutureObject{object->Close(deadline)});
    return OkStatus();
  });
}

int32_t gf_worker_close(gf_worker* worker, int64_t deadline, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_RETURN_IF_ERROR(CheckMayBlock("gf_worker_close"));
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_RETURN_IF_ERROR(CheckTime(deadline, "the deadline"));
    auto end = object->Close(deadline);
    end->Wait(kNever);
    return end->outcome().status();
  });
}

int32_t gf_worker_abort(gf_worker* worker, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    object->Abort();
    return OkStatus();
  });
}

int32_t gf_worker_handle_queue(gf_worker* worker, const char* name, size_t length, gf_queue* queue, uintptr_t token,
                               gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(name, length, "the handler's name"));
    GF_ASSIGN_OR_RETURN(QueueObject * given, Get(queue));
    Handler handler;
    handler.deliver = [target = given->queue, token,
                       weak = std::weak_ptr<Worker>(object)](std::shared_ptr<Request> request) {
      QueueEntry entry;
      entry.token = token;
      entry.kind = GF_ENTRY_REQUEST;
      entry.request = std::move(request);
      entry.worker = weak;
      target->Push(std::move(entry));
    };
    return object->AddHandler(std::string(text), std::move(handler));
  });
}

int32_t gf_worker_handle_direct(gf_worker* worker, const char* name, size_t length, const gf_direct* direct,
                                gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(name, length, "the handler's name"));
    GF_ASSIGN_OR_RETURN(const gf_direct given, StructIn(direct, "gf_direct"));
    if (given.handler == nullptr) return InvalidArgument("gf_direct.handler is NULL");
    if ((given.flags & ~GF_DIRECT_INLINE) != 0) {
      return Status(Code::kUnsupported, StrCat("gf_direct.flags is ", given.flags));
    }
    auto owned = std::make_shared<DirectHandler>(given);
    Handler handler;
    handler.is_inline = (given.flags & GF_DIRECT_INLINE) != 0;
    handler.on_pool = !handler.is_inline;
    handler.deliver = [owned, weak = std::weak_ptr<Worker>(object)](std::shared_ptr<Request> request) {
      owned->Call(MakeHandle<gf_request>(RequestObject{std::move(request), weak.lock()}));
    };
    GF_RETURN_IF_ERROR(object->AddHandler(std::string(text), std::move(handler)));
    owned->Arm();
    return OkStatus();
  });
}

int32_t gf_worker_unhandle(gf_worker* worker, const char* name, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto object, WorkerOf(worker));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(name, length, "the handler's name"));
    return object->RemoveHandler(std::string(text));
  });
}
