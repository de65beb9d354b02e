// Listens, hands out accepted pipes, and comes back when TensorPipe's listener dies, which one bad connection makes it
// do: first at the same address, then, when somebody else has taken the port meanwhile, at a new one.
#pragma once

#include <tensorpipe/core/context.h>
#include <tensorpipe/core/listener.h>
#include <tensorpipe/core/pipe.h>

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plugins/tensorpipe/address.h"
#include "plugins/tensorpipe/shared.h"
#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

class Acceptor : public std::enable_shared_from_this<Acceptor> {
 public:
  struct Events {
    std::function<void(std::shared_ptr<::tensorpipe::Pipe>)> accepted;
    // The address, without channels, is another now.
    std::function<void(const std::string&)> moved;
    // The last one; after Close.
    std::function<void()> ended;
  };

  // context lives until ended has been called.
  Acceptor(Shared* shared, ::tensorpipe::Context* context, Events events);

  // Listens at the address and, for peers that share more than its transport with us, on the further transports too.
  // Returns the URL. Once; when it fails there are no events.
  Status Start(const Address& address, const std::vector<std::string>& further, std::string* url);

  // Any thread. Idempotent.
  void Close();

  // Where it listens, without channels.
  std::string url() const;

 private:
  using Clock = std::chrono::steady_clock;

  Status Listen(const Address& address);
  void Accept(const std::shared_ptr<::tensorpipe::Listener>& listener);
  void OnAccept(const ::tensorpipe::Error& error, std::shared_ptr<::tensorpipe::Pipe> pipe);
  void RelistenAt(Clock::time_point due, Clock::time_point died);
  void Relisten(Clock::time_point died);
  void Replace(std::shared_ptr<::tensorpipe::Listener> listener);
  bool closed() const;

  Shared* const shared_;
  ::tensorpipe::Context* const context_;
  const Events events_;

  // Set by Start, then changed on the dispatcher only.
  Address address_;
  std::vector<std::string> further_;
  bool complained_ = false;  // that it cannot listen again

  mutable std::mutex mutex_;  // guards what follows; nothing is called while it is held
  std::shared_ptr<::tensorpipe::Listener> listener_;
  bool closed_ = false;
  std::string url_;
};

}  // namespace gradferry::tp
