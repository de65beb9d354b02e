// One transport of the host (gf_transport): its threads of I/O, the acceptor and the connections. Called by plugin.cc.
//
// The instance counts what is alive in it: itself until Shutdown, the acceptor until it has ended, each connection
// until on_closed has returned. Whoever ends the last one posts on_shutdown, which is then the last event.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "plugins/thrift/acceptor.h"
#include "plugins/thrift/connection.h"
#include "plugins/thrift/loop.h"
#include "plugins/thrift/shared.h"
#include "plugins/thrift/status.h"
#include "plugins/thrift/tls_context.h"

namespace gradferry::thrift {

class Instance final : private Connection::Owner {
 public:
  static Status Create(const gf_transport_host* host, std::string_view options, std::unique_ptr<Instance>* out);

  // Shuts down if need be and waits until all is over. Not on a thread of the transport.
  ~Instance();

  Shared* shared() { return &shared_; }

  // The default address when it is empty. actual is at most kMaxAddressText long.
  Status Listen(std::string_view address, std::string* actual);
  // The handle is there before the first event can be.
  Status Connect(std::string_view address, void* token, gf_transport_conn** out);
  void Shutdown();
  std::string StatsJson();

 private:
  Instance(const gf_transport_host* host, Options options);

  Status CheckReach(const Address& address, AddressUse use) const;
  Status OpenStream(Scheme scheme, Origin origin, int fd, std::unique_ptr<Stream>* out) override;
  void OnAccepted(const Address& at, FileDescriptor fd);
  std::shared_ptr<Connection> Add(Loop* loop, Origin origin, const Address& address);
  Loop* NextLoop();
  void OnEnded(Connection* connection) override;
  void Release();

  Shared shared_;
  std::unique_ptr<TlsContext> tls_;  // null when there is no certificate

  std::mutex mutex_;  // guards what follows; nothing is called while it is held
  std::condition_variable over_changed_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::unique_ptr<Acceptor> acceptor_;
  size_t next_loop_ = 0;
  bool listening_ = false;
  bool closing_ = false;
  bool over_ = false;  // on_shutdown has returned
  size_t alive_ = 1;

  // Last, so that they end before what their jobs use.
  std::vector<std::unique_ptr<Loop>> loops_;
};

}  // namespace gradferry::thrift
