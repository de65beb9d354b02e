// One transport of the host (gf_transport): TensorPipe's Context, the acceptor and the connections. Called by
// plugin.cc.
//
// The instance counts what is alive in it: itself until Shutdown, the acceptor until it has ended, each connection
// until on_closed has returned. Whoever ends the last one posts on_shutdown, which is then the last event.
//
// The Context is joined in the destructor only, which no thread of TensorPipe or of the dispatcher ever runs.
#pragma once

#include <tensorpipe/core/pipe.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>

#include "plugins/tensorpipe/acceptor.h"
#include "plugins/tensorpipe/connection.h"
#include "plugins/tensorpipe/options.h"
#include "plugins/tensorpipe/shared.h"
#include "plugins/tensorpipe/stack.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

class Instance {
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
  Instance(const gf_transport_host* host, Options options, Stack stack);

  Status CheckPeer(const Address& address) const;
  std::shared_ptr<Connection> Add(std::shared_ptr<::tensorpipe::Pipe> pipe, Connection::Origin origin,
                                  const std::string& peer, const std::string& address);
  void OnAccepted(std::shared_ptr<::tensorpipe::Pipe> pipe);
  void OnMoved(const std::string& url);
  void OnEnded(Connection* connection);
  void Release();

  const Options options_;
  Shared shared_;
  Stack stack_;

  std::mutex mutex_;  // guards what follows; nothing is called while it is held
  std::condition_variable over_changed_;
  std::unordered_map<Connection*, std::shared_ptr<Connection>> connections_;
  std::shared_ptr<Acceptor> acceptor_;
  bool listening_ = false;
  bool closing_ = false;
  bool over_ = false;  // on_shutdown has returned
  size_t alive_ = 1;
};

}  // namespace gradferry::tp
