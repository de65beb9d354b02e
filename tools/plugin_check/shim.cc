#include "tools/plugin_check/shim.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/plugin.h"

namespace gradferry::check {
namespace {

const gf_transport_descriptor* the_descriptor = nullptr;
gf_transport_vtable the_vtable{};
std::string the_options;
std::string the_address;

constexpr char kFirst[] = "plugin-check:";

// The end that this thread drives.
thread_local const End* driven_here = nullptr;

gf_transport_error NewError() {
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  return error;
}

// The ends that have dialled, by the number in their first frame. Guarded by World.
std::vector<std::shared_ptr<Link>>& Links() {
  static auto* const links = new std::vector<std::shared_ptr<Link>>;
  return *links;
}

// All there are. Guarded by World.
std::vector<End*>& AllEnds() {
  static auto* const ends = new std::vector<End*>;
  return *ends;
}

// An event is on this thread's stack; end is null when it is of no connection.
void CheckStack(const char* event, const End* end, bool last = false) {
  if (CallOnThisStack() != nullptr)
    Found(2, std::string(event) + " came on the stack of the host's " + CallOnThisStack());
  Checked(2);
  if (driven_here == nullptr) return;
  if (driven_here != end) Found(15, std::string(event) + " came on the stack of another connection's drive");
  if (driven_here == end && last) Found(15, std::string(event) + " came on the stack of drive");
  Checked(15);
}

}  // namespace

double World::patience = 15;

std::mutex& World::mutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

std::condition_variable& World::changed() {
  static auto* const changed = new std::condition_variable;
  return *changed;
}

void CheckError(const char* function, int32_t code, const gf_transport_error& error) {
  const std::string call(function);
  if (code < 0 || (code > GF_UNAUTHENTICATED && code < GF_CLOSED) || code > GF_REENTRANT) {
    Found(12, call + " returned " + std::to_string(code) + ", which is no code of gradferry.h");
  }
  if (error.code == 0 || error.length == 0) {
    Found(12, call + " failed and did not fill the error's " + (error.code == 0 ? "code" : "text"));
  } else if (error.length >= sizeof(error.text)) {
    Found(12, call + " filled the error with a length that leaves no room for a NUL");
  }
  Checked(12);
}

// ---- One end of a connection -------------------------------------------------------------------------------------

struct End::Op {
  uint64_t id = 0;
  std::vector<Block> bytes;
  Block structs;
};

// An event on this end: nothing else on the stack, nothing else at the time, nothing after the last.
struct End::Event {
  Event(End* end, const char* name) : end_(end), within_(name) {
    CheckStack(name, end, std::strcmp(name, "on_closed") == 0);
    if (end->events_.fetch_add(1) != 0) Found(3, std::string(name) + " came while another event of its connection ran");
    World::Update([&] {
      if (end->state.closed != 0) Found(6, std::string(name) + " came after on_closed");
      if (end->transport_->over != 0) Found(7, std::string(name) + " came after on_shutdown");
    });
    for (int rule : {3, 6, 7}) Checked(rule);
  }
  ~Event() { end_->events_.fetch_sub(1); }

 private:
  End* const end_;
  const WithinEvent within_;
};

bool End::AnyWithinFrame() {
  return World::Get(
      [] { return std::any_of(AllEnds().begin(), AllEnds().end(), [](End* end) { return end->announced_.load(); }); });
}

std::deque<Shape>* End::Incoming() const {
  if (link_ == nullptr) return nullptr;
  return dialled_ ? &link_->to_client : &link_->to_server;
}

std::deque<Shape>* End::Outgoing() const {
  if (link_ == nullptr) return nullptr;
  return dialled_ && !link_->remote ? &link_->to_server : &link_->to_client;
}

int32_t End::Send(const Shape& shape) {
  std::string header(shape.header, '\0');
  FillBytes(shape, 0, header.data());
  std::vector<std::pair<const char*, uint64_t>> parts(shape.segments.size());
  for (size_t i = 0; i < parts.size(); ++i) parts[i] = {nullptr, shape.segments[i]};
  return SendBytes(header.data(), header.size(), parts, shape, false);
}

// Tells the accepting end which link this is.
void End::SendFirst() {
  size_t number = 0;
  World::Update([&] {
    Links().push_back(link_);
    number = Links().size();
  });
  const std::string header = kFirst + std::to_string(number);
  if (SendBytes(header.data(), header.size(), {}, {}, true) != GF_OK)
    Found(3, "a frame could not be sent right after connect");
}

// A part without bytes is filled from the shape.
int32_t End::SendBytes(const char* header, size_t header_length,
                       const std::vector<std::pair<const char*, uint64_t>>& parts, const Shape& shape, bool is_first) {
  auto op = std::make_shared<Op>();
  op->bytes.emplace_back(header_length, BlockUse::kSentBytes);
  std::memcpy(op->bytes[0].data(), header, header_length);
  // A few segments get pages of their own, many share them.
  uint64_t total = 0;
  for (const auto& part : parts) total += part.second;
  const bool shared = parts.size() > 8;
  if (shared) op->bytes.emplace_back(total, BlockUse::kSentBytes);
  op->structs = Block(sizeof(gf_transport_frame) + parts.size() * sizeof(gf_transport_segment), BlockUse::kSentStruct);
  // Aligned from the block's end, since both sizes are multiples of 8.
  auto* frame = reinterpret_cast<gf_transport_frame*>(op->structs.data());
  auto* segments = reinterpret_cast<gf_transport_segment*>(frame + 1);
  uint64_t offset = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (!shared) op->bytes.emplace_back(parts[i].second, BlockUse::kSentBytes);
    char* data = op->bytes.back().data() + (shared ? offset : 0);
    offset += parts[i].second;
    if (parts[i].first != nullptr) {
      std::memcpy(data, parts[i].first, parts[i].second);
    } else if (parts[i].second != 0) {
      FillBytes(shape, i + 1, data);
    }
    segments[i] = {parts[i].second != 0 ? data : nullptr, parts[i].second};
  }
  *frame = {sizeof(*frame), static_cast<uint32_t>(parts.size()), op->bytes[0].data(), header_length, segments};
  for (const Block& block : op->bytes) block.MakeReadOnly();
  op->structs.MakeReadOnly();

  const std::lock_guard<std::mutex> lock(call_mutex_);
  if (conn_ == nullptr) return GF_CLOSED;
  World::Update([&] {
    op->id = ++last_op_;
    ops_.push_back(op);
    if (!is_first && Outgoing() != nullptr) Outgoing()->push_back(shape);
  });
  gf_transport_error error = NewError();
  void* const id = reinterpret_cast<void*>(static_cast<uintptr_t>(op->id));
  const int32_t code = Call<int32_t>("send", GF_INTERNAL, [&] { return the_vtable.send(conn_, frame, id, &error); });
  op->structs.TakeAway();
  Checked(4);
  if (code == GF_OK) {
    World::Update([&] { ++state.taken; });
    return code;
  }
  CheckError("send", code, error);
  World::Update([&] {
    const auto found = std::find(ops_.begin(), ops_.end(), op);
    if (found == ops_.end()) {
      Found(4, "a send that failed was completed by on_sent as well");
    } else {
      ops_.erase(found);
    }
    if (!is_first && Outgoing() != nullptr && !Outgoing()->empty()) Outgoing()->pop_back();
  });
  for (const Block& block : op->bytes) block.TakeAway();
  return code;
}

int32_t End::SendWithoutMemory() {
  const char header[4] = {1, 2, 3, 4};
  const gf_transport_segment segment{nullptr, 5};
  const gf_transport_frame frame{sizeof(frame), 1, header, sizeof(header), &segment};
  gf_transport_error error = NewError();
  const std::lock_guard<std::mutex> lock(call_mutex_);
  if (conn_ == nullptr) return GF_CLOSED;
  const int32_t code =
      Call<int32_t>("send", GF_INTERNAL, [&] { return the_vtable.send(conn_, &frame, nullptr, &error); });
  if (code != GF_OK) CheckError("send", code, error);
  return code;
}

void End::Close() {
  const std::lock_guard<std::mutex> lock(call_mutex_);
  if (conn_ != nullptr) Call("close", [&] { the_vtable.close(conn_); });
}

void End::Drive(uint64_t until, const std::function<bool()>& done) {
  gf_transport_conn* conn = nullptr;
  {
    const std::lock_guard<std::mutex> lock(call_mutex_);
    if (ended_ || conn_ == nullptr) return;
    conn = conn_;
    ++drives_;
  }
  struct Asker {
    const std::function<bool()>& done;
    const std::thread::id here;
  } asker{done, std::this_thread::get_id()};
  const auto ask = [](void* arg) -> int32_t {
    const auto& from = *static_cast<const Asker*>(arg);
    if (std::this_thread::get_id() != from.here) Found(15, "drive asked done on another thread");
    return from.done() ? 1 : 0;
  };
  // Not by Call: it waits, and events come on its stack.
  driven_here = this;
  try {
    the_vtable.drive(conn, until, ask, &asker);
  } catch (...) {
    Found(9, "drive let an exception out");
  }
  driven_here = nullptr;
  {
    const std::lock_guard<std::mutex> lock(call_mutex_);
    --drives_;
  }
  driver_left_.notify_all();
}

void End::Wake() {
  const std::lock_guard<std::mutex> lock(call_mutex_);
  if (conn_ != nullptr) Call("wake", [&] { the_vtable.wake(conn_); });
}

std::string End::Peer() {
  const std::lock_guard<std::mutex> lock(call_mutex_);
  if (conn_ == nullptr || the_vtable.peer == nullptr) return "";
  size_t length = 0;
  if (Call<int32_t>("peer", GF_INTERNAL, [&] { return the_vtable.peer(conn_, nullptr, 0, &length); }) != GF_OK) {
    Found(12, "peer with buffer NULL failed");
    return "";
  }
  const Block buffer(length + 256, BlockUse::kBuffer);
  size_t written = 0;
  const int32_t code = Call<int32_t>("peer", GF_INTERNAL,
                                     [&] { return the_vtable.peer(conn_, buffer.data(), buffer.length(), &written); });
  if (code != GF_OK) Found(12, "peer failed with a buffer that is large enough");
  return std::string(buffer.data(), std::min(written, buffer.length()));
}

// ---- Events ----

// Is it the frame that was sent next?
void End::CheckAnnounced(const gf_transport_frame& frame, const std::string& header) {
  auto matches = [&](const Shape& shape) {
    if (shape.header != header.size() || shape.segments.size() != frame.segment_count) return false;
    for (uint32_t i = 0; i < frame.segment_count; ++i) {
      if (frame.segments[i].length != shape.segments[i]) return false;
    }
    return SameBytes(shape, 0, header.data());
  };
  known_ = false;
  World::Update([&] {
    std::deque<Shape>* coming = Incoming();
    if (coming == nullptr) return;
    if (coming->empty()) return Found(3, "a frame was announced that was not sent, or twice");
    const auto found = std::find_if(coming->begin(), coming->end(), matches);
    if (found == coming->end()) {
      Found(3, "a frame was announced whose header or lengths are not what was sent");
      coming->pop_front();
      return;
    }
    if (found != coming->begin()) {
      Found(3, "a frame came before one that was sent earlier, or that one was lost");
    }
    shape_ = *found;
    known_ = true;
    coming->erase(coming->begin(), found + 1);
  });
  Checked(3);
}

int32_t End::OnDescriptor(const gf_transport_frame* frame, gf_transport_segment* segments) {
  const Event event(this, "on_descriptor");
  Checked(5);
  if (announced_) Found(5, "a frame was announced before the last one had ended");
  if (frame->header == nullptr || frame->header_length == 0 || frame->header_length > the_descriptor->max_header) {
    Found(5, "a frame was announced with a header of " + std::to_string(frame->header_length) + " bytes");
    return GF_INTERNAL;
  }
  header_.assign(static_cast<const char*>(frame->header), frame->header_length);
  first_ = !dialled_ && link_ == nullptr && header_.compare(0, sizeof(kFirst) - 1, kFirst) == 0;
  if (first_) {
    World::Update([&] {
      const size_t number = std::strtoul(header_.c_str() + sizeof(kFirst) - 1, nullptr, 10);
      if (number >= 1 && number <= Links().size() && !Links()[number - 1]->remote) link_ = Links()[number - 1];
      told = true;
    });
  } else {
    CheckAnnounced(*frame, header_);
  }
  World::Update([&] { ++state.announced; });
  const int32_t refusal = on_descriptor && !first_ ? on_descriptor(*this) : GF_OK;
  if (refusal != GF_OK) return refusal;
  announced_ = true;
  Arrive(*frame);
  for (uint32_t i = 0; i < frame->segment_count; ++i) segments[i].data = segments_[i].first;
  return GF_OK;
}

// Memory for a frame's segments.
void End::Arrive(const gf_transport_frame& frame) {
  blocks_.clear();
  segments_.clear();
  uint64_t total = 0;
  for (uint32_t i = 0; i < frame.segment_count; ++i) total += frame.segments[i].length;
  const bool shared = frame.segment_count > 8;
  if (shared) blocks_.emplace_back(total, BlockUse::kReceived);
  uint64_t offset = 0;
  for (uint32_t i = 0; i < frame.segment_count; ++i) {
    const uint64_t length = frame.segments[i].length;
    if (!shared) blocks_.emplace_back(length, BlockUse::kReceived);
    segments_.emplace_back(length == 0 ? nullptr : blocks_.back().data() + (shared ? offset : 0), length);
    offset += length;
  }
}

void End::OnFrame(int32_t code) {
  const Event event(this, "on_frame");
  Checked(5);
  if (!announced_) return Found(5, "on_frame came for a frame that was not announced, was refused, or has ended");
  announced_ = false;
  if (code == GF_OK) {
    for (size_t i = 0; known_ && i < segments_.size(); ++i) {
      if (segments_[i].second != 0 && !SameBytes(shape_, i + 1, segments_[i].first)) {
        Found(5, "segment " + std::to_string(i) + " of " + std::to_string(segments_[i].second) +
                     " bytes arrived with other bytes than were sent");
      }
    }
    if (echo && !first_) {
      std::vector<std::pair<const char*, uint64_t>> parts(segments_.begin(), segments_.end());
      SendBytes(header_.data(), header_.size(), parts, shape_, false);
    }
  }
  for (const Block& block : blocks_) block.TakeAway();
  const bool counts = code == GF_OK && !first_;
  if (counts && on_frame) on_frame(*this);
  World::Update([&] {
    if (counts) ++state.arrived;
  });
}

void End::OnSent(void* id, const gf_transport_error* error) {
  const Event event(this, "on_sent");
  Checked(4);
  const auto number = static_cast<uint64_t>(reinterpret_cast<uintptr_t>(id));
  std::shared_ptr<Op> op;
  World::Update([&] {
    const auto found = std::find_if(ops_.begin(), ops_.end(), [&](const auto& each) { return each->id == number; });
    if (found == ops_.end())
      return Found(4, "on_sent came for a frame that is not under way: twice, or with another op");
    if (found != ops_.begin()) Found(3, "on_sent did not come in the order of send");
    op = *found;
    ops_.erase(found);
  });
  if (op == nullptr) return;
  for (const Block& block : op->bytes) block.TakeAway();
  if (on_sent) on_sent(*this);
  World::Update([&] {
    ++state.completed;
    if (error != nullptr && error->code != GF_OK) ++state.failed;
  });
}

void End::OnClosed(const gf_transport_error* error) {
  Event event(this, "on_closed");
  Checked(6);
  if (announced_) Found(5, "on_closed came within a frame: its on_frame is missing");
  if (on_closed) on_closed(*this);
  {
    // From here on nothing is called on it.
    std::unique_lock<std::mutex> lock(call_mutex_);
    ended_ = true;
    const auto left = [this] { return drives_ == 0; };
    if (driven_here != this && !driver_left_.wait_for(lock, std::chrono::duration<double>(World::patience), left))
      Found(15, "on_closed came, and drive did not return");
    conn_ = nullptr;
  }
  World::Update([&] {
    if (!ops_.empty()) Found(4, "on_closed came with " + std::to_string(ops_.size()) + " sends without on_sent");
    ++state.closed;
    if (error != nullptr) {
      state.code = error->code;
      state.text.assign(error->text, std::min<size_t>(error->length, sizeof(error->text)));
      if (error->code != GF_OK && error->length == 0) Found(12, "on_closed came with an error that has no text");
    }
  });
}

// ---- A transport ---------------------------------------------------------------------------------------------------

void Transport::SetPlugin(const gf_transport_descriptor* descriptor, std::string options, std::string address) {
  the_descriptor = descriptor;
  the_vtable = VtableOf(*descriptor);
  the_options = std::move(options);
  the_address = std::move(address);
}

const gf_transport_descriptor& Transport::descriptor() { return *the_descriptor; }
const gf_transport_vtable& Transport::vtable() { return the_vtable; }

Transport::Transport() : host_(new gf_transport_host()) { FillHost(); }

int32_t Transport::Create(const std::string& options, Transport** out, std::string* text) {
  auto* transport = new Transport;  // for ever, as what comes too late may still mean it
  gf_transport_error error = NewError();
  const int32_t code = Call<int32_t>("create", GF_INTERNAL, [&] {
    return the_vtable.create(transport->host_, options.data(), options.size(), &transport->self_, &error);
  });
  *text = std::string(error.text, std::min<size_t>(error.length, sizeof(error.text)));
  *out = nullptr;
  if (code != GF_OK) {
    CheckError("create", code, error);
  } else if (transport->self_ == nullptr) {
    Found(12, "create returned GF_OK and no transport");
  } else {
    *out = transport;
  }
  return code;
}

Transport* Transport::New() {
  Transport* transport = nullptr;
  std::string text;
  const int32_t code = Create(the_options, &transport, &text);
  if (transport != nullptr) return transport;
  Found(10, "create failed with code " + std::to_string(code) + ": " + text + "; options: " + the_options);
  throw ScenarioOver();
}

int32_t Transport::Listen(const std::string& address, std::string* text, size_t capacity) {
  const Block buffer(capacity, BlockUse::kBuffer);
  gf_transport_error error = NewError();
  size_t length = 0;
  const int32_t code = Call<int32_t>("listen", GF_INTERNAL, [&] {
    return the_vtable.listen(self_, address.data(), address.size(), buffer.data(), capacity, &length, &error);
  });
  if (code != GF_OK) {
    CheckError("listen", code, error);
    *text = std::string(error.text, std::min<size_t>(error.length, sizeof(error.text)));
    return code;
  }
  if (length == 0 || length > capacity) {
    Found(12, "listen wrote an address of " + std::to_string(length) + " bytes");
    return GF_INTERNAL;
  }
  address_.assign(buffer.data(), length);
  for (char c : address_) {
    if (c <= ' ' || c > '~') Found(12, "listen returned an address with other characters than printable ASCII");
  }
  return code;
}

void Transport::Listen() {
  std::string text;
  const int32_t code = Listen(the_address, &text);
  if (code == GF_OK) return;
  Found(12, "listen at \"" + the_address + "\" failed with code " + std::to_string(code) + ": " + text);
  throw ScenarioOver();
}

End* Transport::NewEnd() {
  auto* end = new End(this);  // for ever, as above
  World::Update([&] {
    ends_.insert(end);
    AllEnds().push_back(end);
  });
  return end;
}

End* Transport::TryDial(const std::string& address, int32_t* code, std::string* text,
                        const std::function<void(End&)>& prepare) {
  End* end = NewEnd();
  end->dialled_ = true;
  if (prepare) prepare(*end);
  gf_transport_error error = NewError();
  gf_transport_conn* conn = nullptr;
  *code = Call<int32_t>("connect", GF_INTERNAL,
                        [&] { return the_vtable.connect(self_, address.data(), address.size(), end, &conn, &error); });
  *text = std::string(error.text, std::min<size_t>(error.length, sizeof(error.text)));
  const std::lock_guard<std::mutex> lock(end->call_mutex_);
  if (*code != GF_OK) {
    CheckError("connect", *code, error);
    if (end->ended_) Found(6, "connect failed, and on_closed came as well");
    World::Update([&] { ends_.erase(end); });
    return nullptr;
  }
  if (conn == nullptr) Found(12, "connect returned GF_OK and no connection");
  if (!end->ended_) end->conn_ = conn;
  return end;
}

End* Transport::Dial(const std::string& address, bool remote) {
  int32_t code = GF_OK;
  std::string text;
  End* end = TryDial(address, &code, &text, [&](End& each) {
    each.link_ = std::make_shared<Link>();
    each.link_->remote = remote;
  });
  if (end == nullptr) {
    Found(6, "connect to a listener at " + address + " failed with code " + std::to_string(code) + ": " + text);
    throw ScenarioOver();
  }
  end->SendFirst();
  return end;
}

void Transport::Shutdown() {
  Call("shutdown", [&] { the_vtable.shutdown(self_); });
}

void Transport::AwaitOver() {
  World::Await(7, "on_shutdown", [&] { return over != 0; });
}

void Transport::Destroy() {
  Watching(7, "destroy");
  Call("destroy", [&] { the_vtable.destroy(self_); });
  World::Update([&] { destroyed_ = true; });
}

void Transport::Finish() {
  Shutdown();
  AwaitOver();
  Destroy();
}

std::string Transport::Stats() {
  if (the_vtable.stats == nullptr) return "";
  size_t length = 0;
  if (Call<int32_t>("stats", GF_INTERNAL, [&] { return the_vtable.stats(self_, nullptr, 0, &length); }) != GF_OK) {
    Found(12, "stats with buffer NULL failed");
    return "";
  }
  const Block buffer(length + 256, BlockUse::kBuffer);
  size_t written = 0;
  const int32_t code = Call<int32_t>("stats", GF_INTERNAL,
                                     [&] { return the_vtable.stats(self_, buffer.data(), buffer.length(), &written); });
  if (code != GF_OK) Found(12, "stats failed with a buffer that is large enough");
  return std::string(buffer.data(), std::min(written, buffer.length()));
}

End* Transport::AwaitAccepted(size_t index) {
  World::Await(6, "on_accept", [&] { return accepted.size() > index; });
  End* end = World::Get([&] { return accepted[index]; });
  World::Await(3, "the first frame", [&] { return end->told || end->state.closed != 0; });
  return end;
}

// ---- The host's table ----

End* Transport::Find(void* token, const char* event) {
  End* end = World::Get([&] { return ends_.count(token) != 0 ? static_cast<End*>(token) : nullptr; });
  if (end == nullptr)
    Found(6, std::string(event) + " came with a token that no connection has, or of one that never was");
  return end;
}

void* Transport::Accept(gf_transport_conn* conn) {
  CheckStack("on_accept", nullptr);
  if (conn == nullptr) Found(6, "on_accept came without a connection");
  const WithinEvent within("on_accept");
  End* end = NewEnd();
  end->conn_ = conn;
  const bool wanted = !on_accept || on_accept(*end);
  World::Update([&] {
    if (over != 0) Found(7, "on_accept came after on_shutdown");
    if (wanted) {
      accepted.push_back(end);
    } else {
      ends_.erase(end);
    }
  });
  if (!wanted) end->conn_ = nullptr;
  return wanted ? end : nullptr;
}

void Transport::FillHost() {
  gf_transport_host& host = *host_;
  host.struct_size = sizeof(host);
  host.ctx = this;
  host.now = [](void*) -> uint64_t {
    return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
  };
  host.log = [](void* ctx, uint32_t level, const char* text, size_t length) {
    if (level > 3 || (text == nullptr && length != 0)) Found(12, "log was called with level " + std::to_string(level));
    if (static_cast<Transport*>(ctx)->destroyed_) Found(14, "log was called after destroy");
  };
  host.on_accept = [](void* ctx, gf_transport_conn* conn) -> void* {
    return static_cast<Transport*>(ctx)->Accept(conn);
  };
  host.on_address = [](void* ctx, const char* address, size_t length) {
    const WithinEvent within("on_address");
    auto* self = static_cast<Transport*>(ctx);
    World::Update([&] { self->addresses.emplace_back(address, length); });
  };
  host.on_descriptor = [](void* ctx, void* token, const gf_transport_frame* frame,
                          gf_transport_segment* segments) -> int32_t {
    End* end = static_cast<Transport*>(ctx)->Find(token, "on_descriptor");
    return end == nullptr ? GF_INTERNAL : end->OnDescriptor(frame, segments);
  };
  host.on_frame = [](void* ctx, void* token, int32_t code) {
    if (End* end = static_cast<Transport*>(ctx)->Find(token, "on_frame")) end->OnFrame(code);
  };
  host.on_sent = [](void* ctx, void* token, void* op, const gf_transport_error* error) {
    if (End* end = static_cast<Transport*>(ctx)->Find(token, "on_sent")) end->OnSent(op, error);
  };
  host.on_closed = [](void* ctx, void* token, const gf_transport_error* error) {
    if (End* end = static_cast<Transport*>(ctx)->Find(token, "on_closed")) end->OnClosed(error);
  };
  host.on_shutdown = [](void* ctx) {
    auto* self = static_cast<Transport*>(ctx);
    CheckStack("on_shutdown", nullptr);
    const WithinEvent within("on_shutdown");
    if (self->on_shutdown) self->on_shutdown();
    World::Update([&] {
      for (void* each : self->ends_) {
        if (static_cast<End*>(each)->state.closed == 0)
          Found(6, "on_shutdown came before the on_closed of a connection");
      }
      if (++self->over > 1) Found(7, "on_shutdown came twice");
    });
  };
  host.on_timer = [](void* ctx, uint64_t timer) {
    auto* self = static_cast<Transport*>(ctx);
    CheckStack("on_timer", nullptr);
    const WithinEvent within("on_timer");
    if (self->over != 0) Found(7, "on_timer came after on_shutdown");
    if (self->on_timer) self->on_timer(timer);
  };
}

// ---- Waiting -------------------------------------------------------------------------------------------------------

void AwaitClosed(End* end, const char* which) {
  World::Await(6, std::string("on_closed of ") + which, [&] { return end->state.closed != 0; });
}

void AwaitArrived(End* end, uint64_t count, const char* which) {
  auto arrived = [&] { return end->state.arrived >= count; };
  const std::string what = std::string("all frames for ") + which;
  Watching(3, "waiting for " + what);
  if (World::Comes(arrived)) return Checked(3);
  if (End::AnyWithinFrame()) {
    Found(5, "a frame was announced, and its on_frame did not come");
  } else {
    Found(3, what + " did not come");
  }
  throw ScenarioOver();
}

void AwaitCompleted(End* end, const char* which) {
  World::Await(4, std::string("on_sent of all frames of ") + which,
               [&] { return end->state.completed >= end->state.taken; });
}

}  // namespace gradferry::check
