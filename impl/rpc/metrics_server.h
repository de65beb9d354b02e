// Serves a worker's metrics by HTTP: GET /metrics and nothing else, for Prometheus and `gradferry top`. One thread, a
// few connections, each with a limit on its request's bytes and on its time; whatever comes in, the answer is a text or
// the end of the connection. Listens on loopback unless told that it may go beyond.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "impl/base/status.h"

namespace gradferry {

class MetricsServer {
 public:
  // address is "IP:port" or "[IPv6]:port"; port 0 is any. text is called on the server's thread for each request that
  // asks for it, and no more once the server is destroyed.
  static Result<std::unique_ptr<MetricsServer>> Open(const std::string& address, bool beyond_loopback,
                                                     std::function<std::string()> text);
  ~MetricsServer();
  MetricsServer(const MetricsServer&) = delete;

  // Where it listens, with the actual port.
  const std::string& address() const { return address_; }

 private:
  MetricsServer(int listener, int wake, std::string address, std::function<std::string()> text);
  void Run();

  const int listener_;
  const int wake_;  // an eventfd: readable when it is to end
  const std::string address_;
  const std::function<std::string()> text_;
  std::thread thread_;
};

}  // namespace gradferry
