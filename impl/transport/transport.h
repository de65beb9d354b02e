// The host's side of transport.h: a Transport wraps one plugin instance, turns its C events into a listener's virtual
// functions, and checks what it can of the rules (exactly-once completion, nothing after on_closed). Called by
// impl/rpc only. It knows frames, not what they mean.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "gradferry/transport.h"
#include "impl/base/clock.h"
#include "impl/base/status.h"

namespace gradferry {

using Segment = gf_transport_segment;

// A frame on its way out: the header, and segments whose memory `owner` keeps alive until the transport is done.
struct OutFrame {
  std::string header;
  std::vector<Segment> segments;
  std::shared_ptr<void> owner;
};

class Connection;

// What happens on one connection. Events come one at a time, on the transport's threads, never on the stack of a call
// into the transport. Must not block.
class ConnectionEvents {
 public:
  virtual ~ConnectionEvents() = default;
  // A frame arrives. Fills segments[i].data for each segment of non-zero length (their lengths are set), or refuses:
  // then the connection is closed, and the status is logged and comes back in OnClosed.
  virtual Status OnDescriptor(std::string_view header, std::vector<Segment>& segments) = 0;
  // The frame announced last is whole (OK) or lost.
  virtual void OnFrame(Status status) = 0;
  // The last event. The Connection is unusable afterwards.
  virtual void OnClosed(Status status) = 0;
};

// What a transport knows of the other side of a connection (the vtable's `peer`).
struct PeerInfo {
  std::string address;                                 // empty: not known
  std::optional<std::vector<std::string>> identities;  // names of workers that it has proof of; none: it proves nothing
  bool encrypted = false;
  std::string path;  // how large segments travel; empty: there is no choice
};

// One connection. Any thread. Send and Close after OnClosed are harmless (Send fails with kPeerLost).
class Connection {
 public:
  virtual ~Connection() = default;
  // Sends a frame in order. The frame's memory is released when the transport is done with it. A failure to send later
  // shows as OnClosed.
  virtual Status Send(OutFrame frame) = 0;
  virtual void Close() = 0;
  // The name of the transport that it is of.
  virtual std::string transport() const { return ""; }
  // How many bytes of large segments that transport wants at a time; 0: the host chooses.
  virtual uint64_t chunk() const { return 0; }
  // Complete from the first OnDescriptor on. An error when the transport says something that is no such information:
  // then nobody is to be trusted by it.
  virtual Result<PeerInfo> Peer() { return PeerInfo(); }
  // Lends this thread to the connection, where the transport has use for it: events come on it until done() or `until`
  // (ns of std::chrono::steady_clock; kNever). It may return early, and does so at once where it makes no difference.
  virtual void Drive(int64_t until, const std::function<bool()>& done) {
    (void)until;
    (void)done;
  }
  // Whoever drives asks done() again.
  virtual void WakeDriver() {}
};

class TransportEvents {
 public:
  virtual ~TransportEvents() = default;
  // A peer has connected: returns who gets its events, or null to refuse. The connection lives until OnClosed.
  virtual std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection> connection) = 0;
  // The listener has moved.
  virtual void OnAddress(std::string address) = 0;
};

class Transport {
 public:
  virtual ~Transport() = default;  // Shutdown must have completed. Not on a transport's thread.
  virtual const std::string& name() const = 0;
  virtual uint64_t max_header() const = 0;
  // The transport's own clock when it owns time, else null. Lives as long as the Transport; no timer of it fires once
  // Shutdown has returned.
  virtual Clock* clock() = 0;
  // Starts to listen; returns the address by which peers connect.
  virtual Result<std::string> Listen(const std::string& address) = 0;
  virtual Result<std::shared_ptr<Connection>> Connect(const std::string& address,
                                                      std::shared_ptr<ConnectionEvents> events) = 0;
  // Ends all connections and waits until every event has been delivered. Idempotent. Not on a transport's thread.
  virtual void Shutdown() = 0;
  // The plugin's counters as a JSON object.
  virtual std::string StatsJson() = 0;
};

// Where plugins are looked for.
struct PluginSearch {
  std::string explicit_path;         // transport.plugin: a file; when set, nothing else is tried
  std::vector<std::string> folders;  // transport.plugin_path of the configuration, in order
};

// A plugin as found on disk (gf_build_info).
struct PluginInfo {
  std::string name;
  std::string path;
};

// Loads the plugin `name` (once per process and file; never unloaded), checks note, epoch, descriptor and vtable, and
// creates a transport with `options` (the JSON object of [transport.<name>]). Search order: the explicit path; the
// folders; GRADFERRY_PLUGIN_PATH (':'-separated); beside the file that holds this code, and its gradferry/plugins; the
// system's /usr/local/lib/gradferry/plugins and /usr/lib/gradferry/plugins. A failure lists every place tried with the
// reason. events must live until the Transport is destroyed. judge, when there is one, sees the plugin's options_schema
// first; what it refuses is not made.
using OptionsJudge = std::function<Status(const std::string& name, const std::string& schema)>;
Result<std::unique_ptr<Transport>> OpenTransport(const std::string& name, const PluginSearch& search,
                                                 const std::string& options, TransportEvents* events,
                                                 const OptionsJudge& judge = nullptr);

// The plugins that OpenTransport would find, without loading them.
std::vector<PluginInfo> FindPlugins(const PluginSearch& search);

}  // namespace gradferry
