// See connection.h.
#include "impl/transport/connection.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "impl/base/log.h"

namespace gradferry {
namespace {

void* OpPointer(uint64_t id) { return reinterpret_cast<void*>(static_cast<uintptr_t>(id)); }
uint64_t OpId(void* op) { return static_cast<uint64_t>(reinterpret_cast<uintptr_t>(op)); }

// Runs a callback of the host's, which must not throw into the plugin.
template <class Callback>
Status Shielded(Callback&& callback) {
  try {
    return callback();
  } catch (...) {
    return StatusFromCurrentException();
  }
}

Result<PeerInfo> ReadPeerInfo(const std::string& text) {
  using nlohmann::json;
  const json facts = json::parse(text, nullptr, /*allow_exceptions=*/false);
  const auto wrong = [](const char* what) {
    return Internal(StrCat("the transport says of a peer what is no JSON object with ", what));
  };
  if (!facts.is_object()) return wrong("facts");
  PeerInfo info;
  const auto string = [&facts](const char* key, std::string* value) {
    const auto it = facts.find(key);
    if (it == facts.end()) return true;
    if (it->is_string()) *value = it->get<std::string>();
    return it->is_string();
  };
  if (!string("address", &info.address)) return wrong("an \"address\" that is a string");
  if (!string("path", &info.path)) return wrong("a \"path\" that is a string");
  if (const auto it = facts.find("encrypted"); it != facts.end()) {
    if (!it->is_boolean()) return wrong("\"encrypted\" as a boolean");
    info.encrypted = *it;
  }
  if (const auto it = facts.find("identities"); it != facts.end()) {
    const bool names =
        it->is_array() && std::all_of(it->begin(), it->end(), [](const json& v) { return v.is_string(); });
    if (!names) return wrong("\"identities\" as an array of strings");
    info.identities = it->get<std::vector<std::string>>();
  }
  return info;
}

}  // namespace

PluginConnection::PluginConnection(std::shared_ptr<const Plugin> plugin, std::shared_ptr<ConnectionEvents> events,
                                   gf_transport_conn* conn)
    : plugin_(std::move(plugin)), conn_(conn), events_(std::move(events)) {}

// ---- Calls of the host ----

Status PluginConnection::CheckFrame(const OutFrame& frame) const {
  if (frame.header.empty()) return InvalidArgument("a frame needs a header of at least one byte");
  if (frame.header.size() > plugin_->max_header) {
    return Status(Code::kOutOfRange, StrCat("a frame's header of ", frame.header.size(), " bytes is longer than the ",
                                            plugin_->max_header, " that the transport '", plugin_->name, "' carries"));
  }
  if (frame.segments.size() > UINT32_MAX) return InvalidArgument("a frame has more than 2^32 - 1 segments");
  for (const Segment& segment : frame.segments) {
    if (segment.data == nullptr && segment.length != 0) return InvalidArgument("a frame's segment has no memory");
  }
  return OkStatus();
}

Status PluginConnection::Lost() const {
  return Status(Code::kPeerLost, "the connection has ended").WithDomain("transport." + plugin_->name);
}

void* PluginConnection::PushOp(std::unique_ptr<Op> op) {
  std::lock_guard lock(ops_mutex_);
  op->id = ++last_op_;
  ops_.push_back(std::move(op));
  return OpPointer(last_op_);
}

// Null when there is no such op: never sent, or completed already.
std::unique_ptr<PluginConnection::Op> PluginConnection::TakeOp(uint64_t id) {
  std::lock_guard lock(ops_mutex_);
  const auto it = std::find_if(ops_.begin(), ops_.end(), [&](const auto& op) { return op->id == id; });
  if (it == ops_.end()) return nullptr;
  if (it != ops_.begin()) Violation("GF-TRN-03", StrCat("completed op ", id, " before op ", ops_.front()->id));
  auto op = std::move(*it);
  ops_.erase(it);
  return op;
}

Status PluginConnection::Send(OutFrame frame) {
  GF_RETURN_IF_ERROR(CheckFrame(frame));
  auto op = std::make_unique<Op>();
  op->frame = std::move(frame);
  Op& sent = *op;
  sent.view.struct_size = sizeof(sent.view);
  sent.view.segment_count = static_cast<uint32_t>(sent.frame.segments.size());
  sent.view.header = sent.frame.header.data();
  sent.view.header_length = sent.frame.header.size();
  sent.view.segments = sent.frame.segments.data();

  std::unique_ptr<Op> failed;  // freed after the lock: its owner's destructor is not ours
  std::lock_guard lock(call_mutex_);
  if (ended_ || conn_ == nullptr) {
    failed = std::move(op);
    return Lost();
  }
  // Known before the plugin has it, because it may be completed before send returns. sent must not be touched then.
  const gf_transport_frame* view = &sent.view;
  void* const id = PushOp(std::move(op));
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  const int32_t code = plugin_->vtable.send(conn_, view, id, &error);
  if (code == 0) return OkStatus();
  failed = TakeOp(OpId(id));
  if (!failed) Violation("GF-TRN-04", StrCat("completed op ", OpId(id), " and failed it"));
  return StatusFromPlugin(plugin_->name, code, &error);
}

void PluginConnection::Close() {
  std::lock_guard lock(call_mutex_);
  if (!ended_ && conn_ != nullptr) plugin_->vtable.close(conn_);
}

Result<PeerInfo> PluginConnection::Peer() {
  std::string text;
  {
    std::lock_guard lock(call_mutex_);
    if (ended_ || conn_ == nullptr) return Lost();
    size_t length = 0;
    int32_t code = plugin_->vtable.peer(conn_, nullptr, 0, &length);
    if (code == 0) {
      text.resize(length + 1);  // with its NUL
      code = plugin_->vtable.peer(conn_, text.data(), text.size(), &length);
    }
    if (code != 0) return StatusFromPlugin(plugin_->name, code, nullptr);
    text.resize(std::min(length, text.size()));
  }
  auto info = ReadPeerInfo(text);
  if (!info.ok()) return info.status().WithDomain("transport." + plugin_->name);
  return info;
}

void PluginConnection::Drive(int64_t until, const std::function<bool()>& done) {
  gf_transport_conn* conn;
  {
    std::lock_guard lock(call_mutex_);
    if (ended_ || conn_ == nullptr || driven_) return;
    driven_ = true;
    conn = conn_;
  }
  const auto ask = [](void* arg) { return static_cast<int32_t>((*static_cast<const std::function<bool()>*>(arg))()); };
  plugin_->vtable.drive(conn, until == kNever ? UINT64_MAX : static_cast<uint64_t>(until), ask,
                        const_cast<std::function<bool()>*>(&done));
  {
    std::lock_guard lock(call_mutex_);
    driven_ = false;
  }
  driver_left_.notify_all();
}

void PluginConnection::WakeDriver() {
  std::lock_guard lock(call_mutex_);
  if (!ended_ && driven_) plugin_->vtable.wake(conn_);
}

// ---- Calls of PluginTransport ----

void PluginConnection::Attach(gf_transport_conn* conn) {
  std::lock_guard lock(call_mutex_);
  if (!ended_) conn_ = conn;
}

void PluginConnection::SetEvents(std::shared_ptr<ConnectionEvents> events) { events_ = std::move(events); }

bool PluginConnection::Abandon() {
  std::lock_guard lock(call_mutex_);
  {
    std::lock_guard ops_lock(ops_mutex_);
    if (last_op_ != 0) return false;
  }
  ended_ = true;
  conn_ = nullptr;
  return true;
}

// ---- Events ----

Status PluginConnection::FillSegments(const gf_transport_frame* frame, gf_transport_segment* segments) {
  std::vector<Segment> wanted(frame->segment_count);
  for (uint32_t i = 0; i < frame->segment_count; ++i) wanted[i] = Segment{nullptr, frame->segments[i].length};
  const std::string_view header(static_cast<const char*>(frame->header), frame->header_length);
  GF_RETURN_IF_ERROR(events_->OnDescriptor(header, wanted));
  if (wanted.size() != frame->segment_count) return Internal("the number of segments was changed");
  for (uint32_t i = 0; i < frame->segment_count; ++i) {
    if (wanted[i].data == nullptr && frame->segments[i].length != 0) return Internal("a segment was given no memory");
  }
  for (uint32_t i = 0; i < frame->segment_count; ++i) segments[i].data = wanted[i].data;
  return OkStatus();
}

int32_t PluginConnection::OnDescriptor(const gf_transport_frame* frame, gf_transport_segment* segments) {
  Status status;
  if (frame_announced_) {
    status = Internal("the transport announced a frame before the last one had ended");
    Violation("GF-TRN-05", "announced a frame before the last one had ended");
  } else if (!events_) {
    status = Status(Code::kCancelled, "the connection was refused");
  } else {
    status = Shielded([&] { return FillSegments(frame, segments); });
  }
  if (status.ok()) {
    frame_announced_ = true;
    return 0;
  }
  refusal_ = status.Wrap(status.code(), StrCat("a frame was refused: ", status.message()))
                 .WithDomain("transport." + plugin_->name);
  Log(LogLevel::kWarning, "transport.", plugin_->name, ": closing a connection: ", refusal_.ToString());
  return static_cast<int32_t>(status.code());
}

void PluginConnection::OnFrame(int32_t code) {
  if (!frame_announced_) return Violation("GF-TRN-05", "ended a frame that was not announced");
  frame_announced_ = false;
  Status status;
  if (code != 0) {
    Error error;
    error.code = IsKnownCode(code) ? static_cast<Code>(code) : Code::kUnknown;
    error.message = "a frame that was announced did not arrive whole";
    error.domain = "transport." + plugin_->name;
    status = Status(std::move(error));
  }
  const Status thrown = Shielded([&] {
    events_->OnFrame(std::move(status));
    return OkStatus();
  });
  if (!thrown.ok()) Log(LogLevel::kError, "transport.", plugin_->name, ": OnFrame threw: ", thrown.ToString());
}

void PluginConnection::OnSent(void* op, const gf_transport_error* error) {
  const std::unique_ptr<Op> done = TakeOp(OpId(op));
  if (!done) return Violation("GF-TRN-04", StrCat("completed op ", OpId(op), ", which is not under way"));
  if (error != nullptr && LogEnabled(LogLevel::kDebug)) {
    Log(LogLevel::kDebug, "transport.", plugin_->name,
        ": a frame was not sent: ", StatusFromPlugin(plugin_->name, 0, error).ToString());
  }
}

void PluginConnection::OnClosed(const gf_transport_error* error) {
  if (!refusal_.ok()) return Finish(refusal_);
  Finish(error == nullptr || error->code == 0 ? OkStatus() : StatusFromPlugin(plugin_->name, 0, error));
}

void PluginConnection::OnNeverClosed() {
  Violation("GF-TRN-06", "shut down without having ended a connection");
  Finish(Lost());
}

void PluginConnection::Finish(Status status) {
  {
    std::unique_lock lock(call_mutex_);
    ended_ = true;
    driver_left_.wait(lock, [this] { return !driven_; });
    conn_ = nullptr;
  }
  std::deque<std::unique_ptr<Op>> left;
  {
    std::lock_guard lock(ops_mutex_);
    left.swap(ops_);
  }
  if (!left.empty()) Violation("GF-TRN-04", StrCat("ended a connection with ", left.size(), " frames not completed"));
  left.clear();
  if (frame_announced_) {
    Violation("GF-TRN-05", "ended a connection within a frame");
    OnFrame(static_cast<int32_t>(Code::kPeerLost));
  }
  // The events' owner often holds this connection; letting go of it here breaks the circle.
  const std::shared_ptr<ConnectionEvents> events = std::move(events_);
  if (!events) return;
  const Status thrown = Shielded([&] {
    events->OnClosed(std::move(status));
    return OkStatus();
  });
  if (!thrown.ok()) Log(LogLevel::kError, "transport.", plugin_->name, ": OnClosed threw: ", thrown.ToString());
}

void PluginConnection::Violation(const char* rule, const std::string& what) const {
  Log(LogLevel::kError, "transport.", plugin_->name, ": the plugin broke ", rule, ": it ", what);
}

}  // namespace gradferry
