// What the tests of the simulated transport share: two nodes with a connection, and time that is held.
#pragma once

#include <memory>
#include <string>

#include "tests/unit/transport/transport_testing.h"

namespace gradferry::testing {

// Holds virtual time while it lives.
class HeldTime {
 public:
  explicit HeldTime(Clock& clock) : clock_(clock) { clock_.Hold(+1); }
  ~HeldTime() { clock_.Hold(-1); }

 private:
  Clock& clock_;
};

// A node that has dialled a listener of the same simulated network.
struct Pair {
  explicit Pair(const std::string& options, const std::string& server_options = "") : client(OpenNode("sim", options)) {
    // Deaths and partitions of the server's options must not come before the connection.
    const HeldTime held(clock());
    server = OpenListener("sim", server_options.empty() ? options : server_options);
    auto connection = client->transport->Connect(server->address, dialled_events);
    EXPECT_TRUE(connection.ok()) << connection.status().ToString();
    dialled = *connection;
  }
  Accepted accepted() { return server->host.AwaitAccepted(); }
  Clock& clock() { return *client->transport->clock(); }

  std::unique_ptr<Node> server;
  std::unique_ptr<Node> client;
  std::shared_ptr<Recorder> dialled_events = std::make_shared<Recorder>();
  std::shared_ptr<Connection> dialled;
};

}  // namespace gradferry::testing
