// See plugin_transport.h. The class gives the plugin its host table and finds, for each event, the connection by its
// token: a number, not a pointer, so that a plugin which speaks of a connection that has ended is logged, not obeyed.
#include "impl/transport/plugin_transport.h"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "impl/base/log.h"
#include "impl/transport/connection.h"
#include "impl/transport/transport_clock.h"

namespace gradferry {
namespace {

gf_transport_error NewError() {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  return error;
}

void* TokenPointer(uint64_t token) { return reinterpret_cast<void*>(static_cast<uintptr_t>(token)); }
uint64_t TokenId(void* token) { return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(token)); }

class PluginTransport final : public Transport {
 public:
  PluginTransport(std::shared_ptr<const Plugin> plugin, TransportEvents* events)
      : plugin_(std::move(plugin)), events_(events), clock_(&plugin_->vtable, &transport_) {
    FillHost();
  }

  ~PluginTransport() override {
    if (transport_ == nullptr) return;
    Shutdown();
    plugin_->vtable.destroy(transport_);
  }

  Status Create(const std::string& options) {
    gf_transport_error error = NewError();
    gf_transport* transport = nullptr;
    const int32_t code = plugin_->vtable.create(&host_, options.data(), options.size(), &transport, &error);
    if (code != 0) return StatusFromPlugin(name(), code, &error);
    if (transport == nullptr) return Internal("create returned no transport").WithDomain(domain());
    transport_ = transport;
    return OkStatus();
  }

  const std::string& name() const override { return plugin_->name; }
  uint64_t max_header() const override { return plugin_->max_header; }
  Clock* clock() override { return (plugin_->capabilities & GF_TRANSPORT_CAP_TIME) != 0 ? &clock_ : nullptr; }

  Result<std::string> Listen(const std::string& address) override {
    GF_RETURN_IF_ERROR(CheckOpen());
    gf_transport_error error = NewError();
    char buffer[1024];
    size_t length = 0;
    const int32_t code =
        plugin_->vtable.listen(transport_, address.data(), address.size(), buffer, sizeof(buffer), &length, &error);
    if (code != 0) return StatusFromPlugin(name(), code, &error);
    if (length == 0 || length > sizeof(buffer)) return Internal("listen returned no address").WithDomain(domain());
    return std::string(buffer, length);
  }

  Result<std::shared_ptr<Connection>> Connect(const std::string& address,
                                              std::shared_ptr<ConnectionEvents> events) override {
    GF_RETURN_IF_ERROR(CheckOpen());
    auto connection = std::make_shared<PluginConnection>(plugin_, std::move(events), nullptr);
    const uint64_t token = Register(connection);
    gf_transport_error error = NewError();
    gf_transport_conn* conn = nullptr;
    const int32_t code =
        plugin_->vtable.connect(transport_, address.data(), address.size(), TokenPointer(token), &conn, &error);
    if (code != 0) {
      Unregister(token);
      return StatusFromPlugin(name(), code, &error);
    }
    connection->Attach(conn);
    return std::shared_ptr<Connection>(std::move(connection));
  }

  void Shutdown() override {
    bool first;
    {
      std::lock_guard lock(mutex_);
      first = !shutting_down_;
      shutting_down_ = true;
    }
    if (first) plugin_->vtable.shutdown(transport_);
    {
      std::unique_lock lock(mutex_);
      ended_.wait(lock, [&] { return has_shut_down_; });
    }
    clock_.DropAll();
  }

  std::string StatsJson() override {
    size_t length = 0;
    if (plugin_->vtable.stats(transport_, nullptr, 0, &length) != 0) return "{}";
    // Counters may have gained digits by the second call.
    std::string text(length + 256, '\0');
    if (plugin_->vtable.stats(transport_, text.data(), text.size(), &length) != 0) return "{}";
    text.resize(std::min(length, text.size()));
    return text;
  }

 private:
  std::string domain() const { return "transport." + plugin_->name; }

  Status CheckOpen() {
    std::lock_guard lock(mutex_);
    if (!shutting_down_) return OkStatus();
    return Status(Code::kClosed, "the transport has been shut down").WithDomain(domain());
  }

  uint64_t Register(std::shared_ptr<PluginConnection> connection) {
    std::lock_guard lock(mutex_);
    connections_.emplace(++last_token_, std::move(connection));
    return last_token_;
  }

  std::shared_ptr<PluginConnection> Unregister(uint64_t token) {
    std::lock_guard lock(mutex_);
    const auto it = connections_.find(token);
    if (it == connections_.end()) return nullptr;
    auto connection = std::move(it->second);
    connections_.erase(it);
    return connection;
  }

  // Null, and a line in the log, when the token's connection has ended or never was.
  std::shared_ptr<PluginConnection> Find(void* token, const char* event) {
    {
      std::lock_guard lock(mutex_);
      const auto it = connections_.find(TokenId(token));
      if (it != connections_.end()) return it->second;
    }
    LogStray(token, event);
    return nullptr;
  }

  void LogStray(void* token, const char* event) const {
    Log(LogLevel::kError, domain(), ": the plugin broke GF-TRN-06: ", event, " for connection ", TokenId(token),
        ", which does not live");
  }

  // ---- Events. Static, because they are the C table's functions; ctx is this. ----

  static PluginTransport& Self(void* ctx) { return *static_cast<PluginTransport*>(ctx); }

  void FillHost() {
    host_.struct_size = sizeof(host_);
    host_.ctx = this;
    host_.now = Now;
    host_.log = LogText;
    host_.on_accept = OnAccept;
    host_.on_address = OnAddress;
    host_.on_descriptor = OnDescriptor;
    host_.on_frame = OnFrame;
    host_.on_sent = OnSent;
    host_.on_closed = OnClosed;
    host_.on_shutdown = OnShutdown;
    host_.on_timer = OnTimer;
  }

  // Runs what an event does; nothing may be thrown into the plugin.
  template <class Fn>
  void Shield(const char* event, Fn&& fn) const noexcept {
    try {
      fn();
    } catch (...) {
      Log(LogLevel::kError, domain(), ": ", event, " threw: ", StatusFromCurrentException().ToString());
    }
  }

  static uint64_t Now(void*) {
    return static_cast<uint64_t>(
        std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
            .count());
  }

  static void LogText(void* ctx, uint32_t level, const char* text, size_t length) {
    Self(ctx).Shield("log", [&] {
      const auto known = static_cast<LogLevel>(std::min(level, static_cast<uint32_t>(LogLevel::kError)));
      Log(known, Self(ctx).domain(), ": ", std::string_view(text, length));
    });
  }

  static void* OnAccept(void* ctx, gf_transport_conn* conn) {
    uint64_t token = 0;
    Self(ctx).Shield("OnAccept", [&] { token = Self(ctx).Accept(conn); });
    return TokenPointer(token);
  }

  // The token, or 0 to refuse.
  uint64_t Accept(gf_transport_conn* conn) {
    auto connection = std::make_shared<PluginConnection>(plugin_, nullptr, conn);
    std::shared_ptr<ConnectionEvents> events;
    Shield("OnAccept", [&] { events = events_->OnAccept(connection); });
    if (!events) {
      if (connection->Abandon()) return 0;
      connection->Close();
    }
    connection->SetEvents(std::move(events));
    return Register(std::move(connection));
  }

  static void OnAddress(void* ctx, const char* address, size_t length) {
    Self(ctx).Shield("OnAddress", [&] { Self(ctx).events_->OnAddress(std::string(address, length)); });
  }

  static int32_t OnDescriptor(void* ctx, void* token, const gf_transport_frame* frame, gf_transport_segment* segments) {
    int32_t code = static_cast<int32_t>(Code::kInternal);
    Self(ctx).Shield("OnDescriptor", [&] {
      const auto connection = Self(ctx).Find(token, "on_descriptor");
      if (connection) code = connection->OnDescriptor(frame, segments);
    });
    return code;
  }

  static void OnFrame(void* ctx, void* token, int32_t code) {
    Self(ctx).Shield("OnFrame", [&] {
      const auto connection = Self(ctx).Find(token, "on_frame");
      if (connection) connection->OnFrame(code);
    });
  }

  static void OnSent(void* ctx, void* token, void* op, const gf_transport_error* error) {
    Self(ctx).Shield("on_sent", [&] {
      const auto connection = Self(ctx).Find(token, "on_sent");
      if (connection) connection->OnSent(op, error);
    });
  }

  static void OnClosed(void* ctx, void* token, const gf_transport_error* error) {
    Self(ctx).Shield("OnClosed", [&] {
      const auto connection = Self(ctx).Unregister(TokenId(token));
      if (!connection) return Self(ctx).LogStray(token, "on_closed");
      connection->OnClosed(error);
    });
  }

  static void OnShutdown(void* ctx) {
    Self(ctx).Shield("on_shutdown", [&] { Self(ctx).EndAll(); });
  }

  void EndAll() {
    std::unordered_map<uint64_t, std::shared_ptr<PluginConnection>> left;
    {
      std::lock_guard lock(mutex_);
      left.swap(connections_);
    }
    for (auto& [token, connection] : left) connection->OnNeverClosed();
    left.clear();
    std::lock_guard lock(mutex_);
    has_shut_down_ = true;
    ended_.notify_all();  // under the lock: who waits may destroy this object
  }

  static void OnTimer(void* ctx, uint64_t timer) {
    Self(ctx).Shield("a timer", [&] { Self(ctx).clock_.Fire(timer); });
  }

  const std::shared_ptr<const Plugin> plugin_;
  TransportEvents* const events_;
  gf_transport_host host_{};
  gf_transport* transport_ = nullptr;  // set by Create, before any other call
  TransportClock clock_;

  std::mutex mutex_;  // guards the rest; a leaf: nothing foreign and no other lock is taken under it
  std::condition_variable ended_;
  std::unordered_map<uint64_t, std::shared_ptr<PluginConnection>> connections_;  // by token
  uint64_t last_token_ = 0;
  bool shutting_down_ = false;
  bool has_shut_down_ = false;
};

}  // namespace

Result<std::unique_ptr<Transport>> NewPluginTransport(std::shared_ptr<const Plugin> plugin, const std::string& options,
                                                      TransportEvents* events) {
  auto transport = std::make_unique<PluginTransport>(std::move(plugin), events);
  GF_RETURN_IF_ERROR(transport->Create(options));
  return std::unique_ptr<Transport>(std::move(transport));
}

}  // namespace gradferry
