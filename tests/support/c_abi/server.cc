// See server.h.
#include "tests/support/c_abi/server.h"

#include <memory>
#include <stdexcept>

namespace gf {

Queue NewQueue() {
  Queue queue;
  Call(gf_queue_new, queue.out());
  return queue;
}

namespace {

std::optional<Entry> NextWithin(const Queue& queue, int64_t timeout) {
  gf_entry raw{};
  size_t count = 0;
  Call(gf_queue_next, queue, &raw, size_t{1}, timeout, &count);
  if (count == 0) return std::nullopt;
  Entry entry;
  entry.token = raw.token;
  entry.kind = raw.kind;
  entry.request = Request(raw.request);
  entry.results = List(raw.results);
  entry.error = TakeError(raw.code, raw.error);
  return entry;
}

}  // namespace

Entry Next(const Queue& queue, int64_t timeout) {
  std::optional<Entry> entry = NextWithin(queue, timeout);
  if (!entry) throw std::runtime_error("nothing came in the queue in time");
  return std::move(*entry);
}

std::optional<Entry> NextIfAny(const Queue& queue) { return NextWithin(queue, 0); }

Server::Server(gf_worker* worker, int threads) : worker_(gf_worker_ref(worker)), queue_(NewQueue()) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { Run(); });
}

Server::~Server() {
  for (size_t i = 0; i < threads_.size(); ++i) gf_queue_wake(queue_, 0, nullptr);
  for (std::thread& thread : threads_) thread.join();
}

void Server::On(const std::string& name, Handler handler) {
  handlers_.push_back(std::move(handler));
  HandleQueue(worker_, name, queue_, reinterpret_cast<uintptr_t>(&handlers_.back()));
}

void Server::Run() {
  for (;;) {
    const Entry entry = Next(queue_, GF_NO_DEADLINE);
    if (entry.kind == GF_ENTRY_WAKE) return;
    const auto& handler = *reinterpret_cast<const Handler*>(entry.token);
    try {
      Reply(entry.request, handler(entry.request));
    } catch (const Failure& failure) {
      const std::string& text = failure.error().message;
      // It may have been answered by the handler itself; that is then what the caller gets.
      gf_request_fail(entry.request, failure.error().code, text.data(), text.size(), nullptr);
    } catch (const std::exception& exception) {
      const std::string text = exception.what();
      gf_request_fail(entry.request, GF_UNKNOWN, text.data(), text.size(), nullptr);
    }
  }
}

namespace {

struct DirectHandler {
  std::function<void(Request)> handler;
  std::function<void()> dropped;
};

}  // namespace

void HandleDirect(gf_worker* worker, const std::string& name, std::function<void(Request)> handler,
                  std::function<void()> dropped, uint32_t flags) {
  auto owned = std::make_unique<DirectHandler>(DirectHandler{std::move(handler), std::move(dropped)});
  gf_direct direct{};
  direct.struct_size = sizeof(direct);
  direct.flags = flags;
  direct.token = reinterpret_cast<uintptr_t>(owned.get());
  direct.handler = [](uintptr_t token, gf_request* raw) {
    Request request(raw);
    try {
      reinterpret_cast<DirectHandler*>(token)->handler(request);
    } catch (const std::exception& exception) {
      const std::string text = exception.what();
      gf_request_fail(request, GF_UNKNOWN, text.data(), text.size(), nullptr);
    }
  };
  direct.drop = [](uintptr_t token) {
    std::unique_ptr<DirectHandler> last(reinterpret_cast<DirectHandler*>(token));
    if (last->dropped) last->dropped();
  };
  Call(gf_worker_handle_direct, worker, name.data(), name.size(), &direct);
  owned.release();
}

void HandleQueue(gf_worker* worker, const std::string& name, const Queue& queue, uintptr_t token) {
  Call(gf_worker_handle_queue, worker, name.data(), name.size(), queue, token);
}

void Unhandle(gf_worker* worker, const std::string& name) {
  Call(gf_worker_unhandle, worker, name.data(), name.size());
}

}  // namespace gf
