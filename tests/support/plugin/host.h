// What the tests of a transport plugin's insides share: a host that drives the plugin, which is linked in, through its
// table, as the real one does, and checks on every event of every test the rules of transport.h that it can see: no
// event on the stack of a call, one at a time per connection, exactly one end for everything, memory left alone once it
// is given back.
#pragma once

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gradferry/gradferry.h"
#include "gradferry/transport.h"

extern "C" const gf_transport_descriptor* gf_transport_entry_v0(const gf_transport_entry_args* args,
                                                                gf_transport_error* error);

namespace gradferry::plugin_testing {

// Longer than anything takes that works.
constexpr std::chrono::seconds kPatience{60};

struct Result {
  int32_t code = GF_OK;
  std::string text;
};

inline std::ostream& operator<<(std::ostream& out, const Result& result) {
  return out << result.code << " " << result.text;
}

inline const gf_transport_descriptor* Descriptor() {
  gf_transport_entry_args args{sizeof(gf_transport_entry_args), GF_TRANSPORT_EPOCH, GF_TRANSPORT_MINOR, 0};
  gf_transport_error error{sizeof(gf_transport_error), 0, 0, {}};
  return gf_transport_entry_v0(&args, &error);
}

// How many calls into the plugin are on this thread's stack.
inline thread_local int calls_on_stack = 0;

// Whether this thread is in drive.
inline thread_local bool driving = false;

struct InCall {
  InCall() { ++calls_on_stack; }
  ~InCall() { --calls_on_stack; }
};

// Deterministic bytes.
inline std::string Bytes(size_t length, uint64_t seed) {
  std::string bytes(length, '\0');
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (char& byte : bytes) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    byte = static_cast<char>(state >> 56);
  }
  return bytes;
}

struct Frame {
  std::string header;
  std::vector<std::string> segments;

  bool operator==(const Frame& other) const { return header == other.header && segments == other.segments; }
};

struct Outgoing {
  Frame frame;
  std::vector<gf_transport_segment> segments;
  std::thread::id sender = std::this_thread::get_id();
  size_t number = 0;
  int completions = 0;
  int32_t code = GF_OK;
  std::string text;
};

class Host;

// One connection as the host sees it. Its fields, the hooks as well, are guarded by the host's mutex.
struct Peer {
  Host* host = nullptr;
  std::mutex calls;  // guards conn, which is null once it has ended, and is held while the plugin is called with it
  gf_transport_conn* conn = nullptr;
  bool driven = false;  // guarded by calls
  std::condition_variable driver_left;
  std::atomic<int> events_running{0};

  std::list<Outgoing> outgoing;  // owns the memory of what is sent
  std::vector<Outgoing*> sent;   // in the order of on_sent
  size_t sent_ok = 0;
  std::vector<Frame> frames;         // received whole
  std::vector<int32_t> frame_codes;  // of on_frame
  std::optional<Frame> incoming;     // announced, not ended
  int closed = 0;
  int32_t closed_code = GF_OK;
  std::string closed_text;

  std::function<int32_t(Peer&)> on_descriptor;
  std::function<void(Peer&)> on_frame;
  std::function<void(Peer&)> on_sent;
};

class Host {
 public:
  explicit Host(const std::string& options = "{}") {
    table_.struct_size = sizeof(table_);
    table_.ctx = this;
    table_.now = [](void*) -> uint64_t {
      return static_cast<uint64_t>(std::chrono::steady_clock::now().time_since_epoch().count());
    };
    table_.log = [](void* ctx, uint32_t level, const char* text, size_t length) {
      static_cast<Host*>(ctx)->OnLog(level, std::string(text, length));
    };
    table_.on_accept = [](void* ctx, gf_transport_conn* conn) { return static_cast<Host*>(ctx)->OnAccept(conn); };
    table_.on_address = [](void* ctx, const char* address, size_t length) {
      static_cast<Host*>(ctx)->OnAddress(std::string(address, length));
    };
    table_.on_descriptor = [](void* ctx, void* token, const gf_transport_frame* frame, gf_transport_segment* segments) {
      return static_cast<Host*>(ctx)->OnDescriptor(static_cast<Peer*>(token), frame, segments);
    };
    table_.on_frame = [](void* ctx, void* token, int32_t code) {
      static_cast<Host*>(ctx)->OnFrame(static_cast<Peer*>(token), code);
    };
    table_.on_sent = [](void* ctx, void* token, void* op, const gf_transport_error* error) {
      static_cast<Host*>(ctx)->OnSent(static_cast<Peer*>(token), static_cast<Outgoing*>(op), error);
    };
    table_.on_closed = [](void* ctx, void* token, const gf_transport_error* error) {
      static_cast<Host*>(ctx)->OnClosed(static_cast<Peer*>(token), error);
    };
    table_.on_shutdown = [](void* ctx) { static_cast<Host*>(ctx)->OnShutdown(); };
    gf_transport_error error{sizeof(error), 0, 0, {}};
    const InCall in_call;
    created_.code = vtable_->create(&table_, options.data(), options.size(), &transport_, &error);
    created_.text = std::string(error.text, error.length);
  }

  ~Host() { Finish(); }

  const Result& created() const { return created_; }
  const gf_transport_vtable* vtable() const { return vtable_; }

  Result Listen(const std::string& address = "") {
    char buffer[256];
    size_t length = 0;
    gf_transport_error error{sizeof(error), 0, 0, {}};
    const InCall in_call;
    const int32_t code =
        vtable_->listen(transport_, address.data(), address.size(), buffer, sizeof(buffer), &length, &error);
    if (code == GF_OK) {
      const std::lock_guard<std::mutex> lock(mutex_);
      address_ = std::string(buffer, length);
    }
    return {code, std::string(error.text, error.length)};
  }

  std::string address() {
    const std::lock_guard<std::mutex> lock(mutex_);
    return address_;
  }

  Result TryConnect(const std::string& address, Peer** out) {
    Peer* peer = NewPeer();
    gf_transport_error error{sizeof(error), 0, 0, {}};
    int32_t code;
    {
      // on_closed, which may come before this returns, waits until it has.
      const std::lock_guard<std::mutex> lock(peer->calls);
      const InCall in_call;
      code = vtable_->connect(transport_, address.data(), address.size(), peer, &peer->conn, &error);
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (code != GF_OK) peer->closed = 1;  // there shall be no events
    *out = peer;
    return {code, std::string(error.text, error.length)};
  }

  Peer* Connect(const std::string& address) {
    Peer* peer = nullptr;
    const Result result = TryConnect(address, &peer);
    EXPECT_EQ(result.code, GF_OK) << result.text;
    return peer;
  }

  // Waits for the number'th accepted connection.
  Peer* Accepted(size_t number = 0) {
    Peer* found = nullptr;
    EXPECT_TRUE(Wait([&] {
      if (accepted_.size() <= number) return false;
      found = accepted_[number];
      return true;
    }));
    return found;
  }

  Result Send(Peer* peer, Frame frame) {
    Outgoing* op;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      peer->outgoing.emplace_back();
      op = &peer->outgoing.back();
      op->number = next_number_++;
    }
    op->frame = std::move(frame);
    for (std::string& bytes : op->frame.segments) op->segments.push_back({bytes.data(), bytes.size()});
    return SendRaw(peer, op, op->segments.data());
  }

  Result SendRaw(Peer* peer, Outgoing* op, const gf_transport_segment* segments) {
    gf_transport_frame raw{};
    raw.struct_size = sizeof(raw);
    raw.segment_count = static_cast<uint32_t>(op->frame.segments.size());
    raw.header = op->frame.header.data();
    raw.header_length = op->frame.header.size();
    raw.segments = segments;
    gf_transport_error error{sizeof(error), 0, 0, {}};
    int32_t code = GF_CLOSED;
    {
      const std::lock_guard<std::mutex> lock(peer->calls);
      const InCall in_call;
      if (peer->conn != nullptr) code = vtable_->send(peer->conn, &raw, op, &error);
    }
    if (code != GF_OK) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (op->completions != 0) Violation("on_sent for a send that failed");
      op->completions = 1;
    }
    return {code, std::string(error.text, error.length)};
  }

  void Close(Peer* peer) {
    const std::lock_guard<std::mutex> lock(peer->calls);
    const InCall in_call;
    if (peer->conn != nullptr) vtable_->close(peer->conn);
  }

  // Lends this thread to the connection, as the real host does: on_closed waits until it is back.
  void Drive(Peer* peer, uint64_t until, std::function<bool()> done) {
    gf_transport_conn* conn;
    {
      const std::lock_guard<std::mutex> lock(peer->calls);
      if (peer->conn == nullptr || peer->driven) return;
      peer->driven = true;
      conn = peer->conn;
    }
    driving = true;
    const auto ask = [](void* arg) -> int32_t { return (*static_cast<std::function<bool()>*>(arg))() ? 1 : 0; };
    vtable_->drive(conn, until, ask, &done);
    driving = false;
    {
      const std::lock_guard<std::mutex> lock(peer->calls);
      peer->driven = false;
    }
    peer->driver_left.notify_all();
  }

  void Wake(Peer* peer) {
    const std::lock_guard<std::mutex> lock(peer->calls);
    const InCall in_call;
    if (peer->conn != nullptr) vtable_->wake(peer->conn);
  }

  uint64_t Now() const { return table_.now(nullptr); }

  void Shutdown() {
    const InCall in_call;
    vtable_->shutdown(transport_);
  }

  // What the plugin knows of the other side; null when the connection has ended.
  nlohmann::json Facts(Peer* peer) {
    const std::lock_guard<std::mutex> lock(peer->calls);
    const InCall in_call;
    if (peer->conn == nullptr) return nullptr;
    size_t length = 0;
    EXPECT_EQ(vtable_->peer(peer->conn, nullptr, 0, &length), GF_OK);
    std::string text(length + 512, '\0');
    EXPECT_EQ(vtable_->peer(peer->conn, text.data(), text.size(), &length), GF_OK);
    text.resize(length);
    return nlohmann::json::parse(text);
  }

  nlohmann::json Stats() {
    const InCall in_call;
    size_t length = 0;
    EXPECT_EQ(vtable_->stats(transport_, nullptr, 0, &length), GF_OK);
    // The numbers may have grown by the second call.
    std::string text(length + 64, '\0');
    EXPECT_EQ(vtable_->stats(transport_, text.data(), text.size(), &length), GF_OK);
    text.resize(length);
    return nlohmann::json::parse(text);
  }

  template <class Condition>
  bool Wait(Condition condition, std::chrono::milliseconds patience = kPatience) {
    std::unique_lock<std::mutex> lock(mutex_);
    return changed_.wait_for(lock, patience, condition);
  }

  bool WaitAccepted(size_t count, std::chrono::milliseconds patience) {
    return Wait([&] { return accepted_.size() >= count; }, patience);
  }

  bool WaitFrames(Peer* peer, size_t count) {
    return Wait([&] { return peer->frames.size() >= count; });
  }
  bool WaitSent(Peer* peer, size_t count) {
    return Wait([&] { return peer->sent.size() >= count; });
  }
  bool WaitClosed(Peer* peer) {
    return Wait([&] { return peer->closed > 0; });
  }

  // A hook of a peer's.
  template <class Hook, class Function>
  void Set(Hook& hook, Function function) {
    const std::lock_guard<std::mutex> lock(mutex_);
    hook = std::move(function);
  }

  bool WaitLog(const std::string& text, size_t times) {
    return Wait([&] { return CountLog(text) >= times; });
  }
  bool WaitAddressOtherThan(const std::string& address) {
    return Wait([&] { return address_ != address; });
  }

  // Under the lock.
  size_t CountLog(const std::string& text) const {
    return static_cast<size_t>(std::count_if(
        logs_.begin(), logs_.end(), [&](const std::string& line) { return line.find(text) != std::string::npos; }));
  }

  template <class Body>
  auto Locked(Body body) {
    const std::lock_guard<std::mutex> lock(mutex_);
    return body();
  }

  std::vector<std::string> logs() {
    return Locked([&] { return logs_; });
  }

  // Ends the transport and checks what must hold at the end of every test.
  void Finish() {
    if (transport_ == nullptr) return;
    Shutdown();
    EXPECT_TRUE(Wait([&] { return shutdowns_ > 0; })) << "on_shutdown did not come";
    vtable_->destroy(transport_);
    transport_ = nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    EXPECT_EQ(shutdowns_, 1);
    for (const auto& peer : peers_) {
      if (peer->host == nullptr) continue;  // refused
      EXPECT_EQ(peer->closed, 1);
      EXPECT_FALSE(peer->incoming.has_value()) << "an announced frame did not end";
      // Which of two threads was first nobody can say.
      std::map<std::thread::id, size_t> last;
      for (const Outgoing* op : peer->sent) {
        EXPECT_GE(op->number, last[op->sender]) << "on_sent out of order";
        last[op->sender] = op->number;
      }
      for (const Outgoing& op : peer->outgoing) EXPECT_EQ(op.completions, 1) << "send " << op.number;
    }
    EXPECT_TRUE(violations_.empty()) << violations_.front();
  }

  // Set before anything happens.
  std::function<void(Peer&)> prepare;      // on a new accepted connection, before it is answered
  std::function<bool(Peer&)> take_accept;  // whether on_accept takes it
  std::function<void()> on_shutdown;

 private:
  // Runs an event with the checks that hold for all of them.
  class Event {
   public:
    Event(Host* host, Peer* peer) : peer_(peer) {
      const std::lock_guard<std::mutex> lock(host->mutex_);
      if (calls_on_stack > 0) host->Violation("an event on the stack of a call");
      if (host->shutdowns_ > 0) host->Violation("an event after on_shutdown");
      if (peer == nullptr) return;
      if (peer->closed > 0) host->Violation("an event after on_closed");
      if (++peer->events_running != 1) host->Violation("two events of a connection at a time");
    }
    ~Event() {
      if (peer_ != nullptr) --peer_->events_running;
    }

   private:
    Peer* const peer_;
  };

  Peer* NewPeer() {
    const std::lock_guard<std::mutex> lock(mutex_);
    peers_.push_back(std::make_unique<Peer>());
    peers_.back()->host = this;
    return peers_.back().get();
  }

  void Violation(const std::string& what) { violations_.push_back(what); }

  void OnLog(uint32_t, const std::string& text) {
    const std::lock_guard<std::mutex> lock(mutex_);
    logs_.push_back(text);
    changed_.notify_all();
  }

  void* OnAccept(gf_transport_conn* conn) {
    const Event event(this, nullptr);
    Peer* peer = NewPeer();
    peer->conn = conn;
    if (prepare) prepare(*peer);
    const bool take = !take_accept || take_accept(*peer);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (take) accepted_.push_back(peer);
    if (!take) peer->host = nullptr;
    changed_.notify_all();
    return take ? peer : nullptr;
  }

  void OnAddress(const std::string& address) {
    const Event event(this, nullptr);
    const std::lock_guard<std::mutex> lock(mutex_);
    address_ = address;
    changed_.notify_all();
  }

  int32_t OnDescriptor(Peer* peer, const gf_transport_frame* frame, gf_transport_segment* segments) {
    const Event event(this, peer);
    Frame incoming;
    incoming.header.assign(static_cast<const char*>(frame->header), frame->header_length);
    for (uint32_t i = 0; i < frame->segment_count; ++i) {
      EXPECT_EQ(frame->segments[i].data, nullptr);
      incoming.segments.emplace_back(frame->segments[i].length, '\0');
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (peer->incoming) Violation("a frame announced before the last one ended");
      peer->incoming = std::move(incoming);
      for (uint32_t i = 0; i < frame->segment_count; ++i) {
        if (frame->segments[i].length > 0) segments[i].data = peer->incoming->segments[i].data();
      }
    }
    if (const auto hook = Locked([&] { return peer->on_descriptor; })) {
      const int32_t code = hook(*peer);
      if (code == -1) {  // for a host that forgets its memory
        for (uint32_t i = 0; i < frame->segment_count; ++i) segments[i].data = nullptr;
        return GF_OK;
      }
      if (code != GF_OK) Locked([&] { peer->incoming.reset(); });
      return code;
    }
    return GF_OK;
  }

  void OnFrame(Peer* peer, int32_t code) {
    const Event event(this, peer);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!peer->incoming) {
        Violation("on_frame without on_descriptor");
        return;
      }
      peer->frame_codes.push_back(code);
      if (code == GF_OK) peer->frames.push_back(std::move(*peer->incoming));
      peer->incoming.reset();
      changed_.notify_all();
    }
    if (const auto hook = Locked([&] { return peer->on_frame; })) hook(*peer);
  }

  void OnSent(Peer* peer, Outgoing* op, const gf_transport_error* error) {
    const Event event(this, peer);
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      ++op->completions;
      op->code = error == nullptr ? GF_OK : error->code;
      if (error != nullptr) op->text.assign(error->text, error->length);
      if (error != nullptr && error->code == GF_OK) Violation("an error without a code");
#if !defined(__SANITIZE_THREAD__)
      // Whoever still reads the memory now reads rubbish. The thread sanitizer would take this for a race: what orders
      // it after a copy that the other end has made (xth, cma) is a message over a socket.
      for (std::string& bytes : op->frame.segments) std::fill(bytes.begin(), bytes.end(), '\x5A');
#endif
      peer->sent.push_back(op);
      if (error == nullptr) ++peer->sent_ok;
      changed_.notify_all();
    }
    if (const auto hook = Locked([&] { return peer->on_sent; })) hook(*peer);
  }

  void OnClosed(Peer* peer, const gf_transport_error* error) {
    const Event event(this, peer);
    if (driving) Violation("on_closed on the stack of drive");
    {
      std::unique_lock<std::mutex> lock(peer->calls);
      peer->driver_left.wait(lock, [&] { return !peer->driven; });
      peer->conn = nullptr;
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    peer->closed_code = error->code;
    peer->closed_text.assign(error->text, error->length);
    ++peer->closed;
    changed_.notify_all();
  }

  void OnShutdown() {
    const Event event(this, nullptr);
    if (on_shutdown) on_shutdown();
    const std::lock_guard<std::mutex> lock(mutex_);
    ++shutdowns_;
    changed_.notify_all();
  }

  const gf_transport_vtable* const vtable_ = Descriptor()->vtable;
  gf_transport_host table_{};
  gf_transport* transport_ = nullptr;
  Result created_;

  std::mutex mutex_;  // guards what follows and the peers; the plugin is not called while it is held
  std::condition_variable changed_;
  std::vector<std::unique_ptr<Peer>> peers_;
  std::vector<Peer*> accepted_;
  std::string address_;
  std::vector<std::string> logs_;
  std::vector<std::string> violations_;
  size_t next_number_ = 0;
  int shutdowns_ = 0;
};

// Two transports with a connection between them.
struct Pair {
  explicit Pair(const std::string& options = "{}") : server(options), client(options) {
    EXPECT_EQ(server.created().code, GF_OK) << server.created().text;
    const Result listened = server.Listen();
    EXPECT_EQ(listened.code, GF_OK) << listened.text;
    out = client.Connect(server.address());
    in = server.Accepted();
  }

  Host server;
  Host client;
  Peer* out = nullptr;  // the client's end
  Peer* in = nullptr;   // the server's end
};

inline int Port(const std::string& address) {
  const size_t end = address.find('#');
  const size_t colon = address.rfind(':', end);
  return std::stoi(address.substr(colon + 1, end - colon - 1));
}

// A plain TCP socket of the tests, closed at the end.
class RawSocket {
 public:
  RawSocket() : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  }
  ~RawSocket() { close(fd_); }
  int fd() const { return fd_; }

  bool Bind(int port) {
    const sockaddr_in where = Loopback(port);
    return bind(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0;
  }
  bool Listen() { return listen(fd_, 8) == 0; }
  bool Connect(int port) {
    const sockaddr_in where = Loopback(port);
    return connect(fd_, reinterpret_cast<const sockaddr*>(&where), sizeof(where)) == 0;
  }
  int port() const {
    sockaddr_in where{};
    socklen_t length = sizeof(where);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&where), &length);
    return ntohs(where.sin_port);
  }

 private:
  static sockaddr_in Loopback(int port) {
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(static_cast<uint16_t>(port));
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return where;
  }
  const int fd_;
};

// An address where nobody listens: its port was ours a moment ago.
inline std::string NobodysAddress() {
  RawSocket socket;
  EXPECT_TRUE(socket.Bind(0));
  return "uv://127.0.0.1:" + std::to_string(socket.port());
}

}  // namespace gradferry::plugin_testing
