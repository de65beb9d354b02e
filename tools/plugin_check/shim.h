// The host that watches: it stands where Gradferry stands, keeps the host's side of the rules and looks at each event
// whether the plugin keeps its own. One Transport per transport of the plugin, one End per end of a connection; both
// stay in memory while the process lives, so that an event which comes too late still meets somebody.
//
// One lock for all that is recorded (World), never held while the plugin is called. Calls on one connection are made
// one at a time, under its own lock, as Gradferry does; but drive, which waits: on_closed waits for that.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "tools/plugin_check/child.h"
#include "tools/plugin_check/frames.h"
#include "tools/plugin_check/memory.h"

namespace gradferry::check {

class Transport;

// What goes through one connection, as both ends in this process know it.
struct Link {
  std::deque<Shape> to_server;  // sent and not arrived
  std::deque<Shape> to_client;
  bool remote = false;  // the other end is in another process and sends back what it gets
};

class End {
 public:
  explicit End(Transport* transport) : transport_(transport) {}

  // ---- For scenarios ----

  // The code of the plugin's send.
  int32_t Send(const Shape& shape);
  // A frame whose segment has a length and no memory.
  int32_t SendWithoutMemory();
  // The plugin's close, unless it has ended.
  void Close();
  // The plugin's drive, once, unless it has ended.
  void Drive(uint64_t until, const std::function<bool()>& done);
  void Wake();
  // What the plugin says of the peer; empty when it has no such function.
  std::string Peer();

  // Hooks run within events. They are set before the events can come.
  std::function<int32_t(End&)> on_descriptor;  // another code than GF_OK refuses
  std::function<void(End&)> on_frame;
  std::function<void(End&)> on_sent;
  std::function<void(End&)> on_closed;
  bool echo = false;  // sends back what arrives
  bool told = false;  // the first frame, which tells the accepting end who dialled, has come (accepting ends)

  // Guarded by World.
  struct State {
    uint64_t taken = 0;      // sends that returned GF_OK
    uint64_t completed = 0;  // on_sent
    uint64_t failed = 0;     // of them with an error
    uint64_t arrived = 0;    // frames without error, less the first
    uint64_t announced = 0;
    int closed = 0;
    int32_t code = 0;  // of on_closed
    std::string text;
  } state;

  // Whether a frame was announced to an end of this process, and has not ended.
  static bool AnyWithinFrame();

 private:
  friend class Transport;
  struct Op;
  struct Event;

  int32_t SendBytes(const char* header, size_t header_length,
                    const std::vector<std::pair<const char*, uint64_t>>& parts, const Shape& shape, bool is_first);
  void SendFirst();
  void Arrive(const gf_transport_frame& frame);
  void CheckAnnounced(const gf_transport_frame& frame, const std::string& header);
  std::deque<Shape>* Incoming() const;
  std::deque<Shape>* Outgoing() const;

  int32_t OnDescriptor(const gf_transport_frame* frame, gf_transport_segment* segments);
  void OnFrame(int32_t code);
  void OnSent(void* op, const gf_transport_error* error);
  void OnClosed(const gf_transport_error* error);

  Transport* const transport_;
  bool dialled_ = false;
  std::shared_ptr<Link> link_;

  std::mutex call_mutex_;  // one call at a time; guards what follows
  gf_transport_conn* conn_ = nullptr;
  bool ended_ = false;
  int drives_ = 0;  // under way
  std::condition_variable driver_left_;

  std::atomic<int> events_{0};  // that run now

  // Guarded by World.
  std::deque<std::shared_ptr<Op>> ops_;
  uint64_t last_op_ = 0;

  std::atomic<bool> announced_{false};  // a frame was taken and has not ended

  // Of the frame that arrives; events only.
  bool first_ = false;
  std::string header_;
  std::vector<Block> blocks_;
  std::vector<std::pair<char*, uint64_t>> segments_;
  bool known_ = false;  // shape_ is what must arrive
  Shape shape_;
};

class Transport {
 public:
  // The plugin of this process; descriptor lives for ever.
  static void SetPlugin(const gf_transport_descriptor* descriptor, std::string options, std::string address);
  static const gf_transport_descriptor& descriptor();
  static const gf_transport_vtable& vtable();

  // With the options of SetPlugin; ends the scenario when it fails.
  static Transport* New();
  // What create returned. out is null when it failed.
  static int32_t Create(const std::string& options, Transport** out, std::string* text);

  // At the address of SetPlugin; ends the scenario when it fails.
  void Listen();
  int32_t Listen(const std::string& address, std::string* text, size_t capacity = 1024);
  // Dials and sends the first frame. Ends the scenario when connect fails.
  End* Dial(const std::string& address, bool remote = false);
  // Null when connect failed with *code. What arrives on it is not compared with what was sent.
  End* TryDial(const std::string& address, int32_t* code, std::string* text,
               const std::function<void(End&)>& prepare = {});
  void Shutdown();
  void AwaitOver();
  // After AwaitOver.
  void Destroy();
  // Shutdown, AwaitOver, Destroy.
  void Finish();
  std::string Stats();

  gf_transport* self() const { return self_; }
  const std::string& address() const { return address_; }

  // Within on_accept, before anything else is done with the end. False refuses.
  std::function<bool(End&)> on_accept;
  std::function<void()> on_shutdown;
  std::function<void(uint64_t)> on_timer;

  // Guarded by World.
  std::vector<End*> accepted;
  std::vector<std::string> addresses;  // of on_address
  int over = 0;

  // The index-th accepted end, when its first frame has come.
  End* AwaitAccepted(size_t index = 0);

 private:
  friend class End;
  Transport();
  void FillHost();
  void* Accept(gf_transport_conn* conn);
  End* NewEnd();
  End* Find(void* token, const char* event);

  gf_transport_host* host_;
  gf_transport* self_ = nullptr;
  std::string address_;
  std::set<void*> ends_;  // guarded by World
  bool destroyed_ = false;
};

// The lock of what is recorded, and waiting for it to change.
class World {
 public:
  static std::mutex& mutex();
  template <class Change>
  static void Update(Change change) {
    const std::lock_guard<std::mutex> lock(mutex());
    change();
    changed().notify_all();
  }
  template <class Read>
  static auto Get(Read read) {
    const std::lock_guard<std::mutex> lock(mutex());
    return read();
  }
  // False when it does not come true in time.
  template <class Condition>
  static bool Comes(Condition condition) {
    std::unique_lock<std::mutex> lock(mutex());
    return changed().wait_for(lock, std::chrono::duration<double>(patience), condition);
  }
  // Ends the scenario with a finding of this rule when it does not come true in time.
  template <class Condition>
  static void Await(int rule, const std::string& what, Condition condition) {
    Watching(rule, "waiting for " + what);
    if (Comes(condition)) return Checked(rule);
    Found(rule, what + " did not come within " + std::to_string(static_cast<int>(patience)) + " s");
    throw ScenarioOver();
  }
  static double patience;

 private:
  static std::condition_variable& changed();
};

// Waits for an end's on_closed.
void AwaitClosed(End* end, const char* which);
void AwaitArrived(End* end, uint64_t count, const char* which);
void AwaitCompleted(End* end, const char* which);

// Checks an error that a function filled (GF-TRN-12).
void CheckError(const char* function, int32_t code, const gf_transport_error& error);

}  // namespace gradferry::check
