// One connection as the host sees it: keeps the memory of frames under way, calls the plugin only while its conn is
// valid, and passes events on, holding the plugin to the rules of transport.h that can be seen from here (each op
// completed once and in order, each frame ended once, nothing lost at the end). Made by PluginTransport, which finds it
// by its token for each event, so that an event for a connection that has ended meets nothing.
//
// Locks, in this order: call_mutex_, ops_mutex_. The plugin's send, close and peer run under call_mutex_. That is safe
// because none waits (GF-TRN-01), none calls back on its caller's stack, and events come with no lock of the
// plugin's held (GF-TRN-02): on_sent takes ops_mutex_ only, on_closed takes call_mutex_ only to mark the end. Nobody's
// callback and no frame's owner is run under either. drive waits, and so runs under no lock: on_closed waits for it
// instead, which is only ever on its way out then.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "impl/base/live.h"
#include "impl/base/status.h"
#include "impl/transport/plugin.h"
#include "impl/transport/transport.h"

namespace gradferry {

class PluginConnection final : public Connection {
 public:
  // events may be null for an accepted connection until SetEvents; conn may be null for a dialled one until Attach.
  PluginConnection(std::shared_ptr<const Plugin> plugin, std::shared_ptr<ConnectionEvents> events,
                   gf_transport_conn* conn);

  Status Send(OutFrame frame) override;
  void Close() override;
  std::string transport() const override { return plugin_->name; }
  uint64_t chunk() const override { return plugin_->chunk; }
  Result<PeerInfo> Peer() override;
  void Drive(int64_t until, const std::function<bool()>& done) override;
  void WakeDriver() override;

  // The plugin's conn, when connect has returned. Does nothing when the connection has ended meanwhile.
  void Attach(gf_transport_conn* conn);
  // Before the first event of an accepted connection.
  void SetEvents(std::shared_ptr<ConnectionEvents> events);
  // The host does not want this accepted connection. False when it has sent on it already: then the plugin still owns
  // memory, and the connection has to end as others do.
  bool Abandon();

  // Events. One at a time, as the plugin delivers them.
  int32_t OnDescriptor(const gf_transport_frame* frame, gf_transport_segment* segments);
  void OnFrame(int32_t code);
  void OnSent(void* op, const gf_transport_error* error);
  // The last event; error is null after our own close.
  void OnClosed(const gf_transport_error* error);
  // The same, when the plugin has shut down and said nothing.
  void OnNeverClosed();

 private:
  // A frame that the plugin has. The view stays put until the plugin is done, whatever part of it the plugin keeps.
  struct Op {
    uint64_t id = 0;
    OutFrame frame;
    gf_transport_frame view{};
  };

  Status CheckFrame(const OutFrame& frame) const;
  Status Lost() const;
  void* PushOp(std::unique_ptr<Op> op);
  std::unique_ptr<Op> TakeOp(uint64_t id);
  Status FillSegments(const gf_transport_frame* frame, gf_transport_segment* segments);
  void Finish(Status status);
  void Violation(const char* rule, const std::string& what) const;

  const std::shared_ptr<const Plugin> plugin_;
  const Live<LiveKind::kConnections> live_;

  std::mutex call_mutex_;  // guards conn_, ended_ and driven_; held while the plugin's send, close and peer run
  gf_transport_conn* conn_;
  bool ended_ = false;
  bool driven_ = false;  // a thread is in the plugin's drive
  std::condition_variable driver_left_;

  std::mutex ops_mutex_;  // guards ops_ and last_op_; a leaf
  std::deque<std::unique_ptr<Op>> ops_;
  uint64_t last_op_ = 0;

  // Used by events only, which come one at a time.
  std::shared_ptr<ConnectionEvents> events_;
  bool frame_announced_ = false;
  Status refusal_;  // why the host refused a frame, and so the connection
};

}  // namespace gradferry
