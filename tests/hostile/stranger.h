// A peer that is none of ours: it has a transport and the wire, and says what a test tells it to, in any order and
// version. It dials workers and can be dialled by them.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "impl/transport/transport.h"
#include "impl/wire/frame.h"
#include "impl/wire/messages.h"

namespace gradferry {

// One connection of a stranger's. Any thread.
class StrangerConnection final : public ConnectionEvents {
 public:
  // The message in a frame of this version (Hello and HelloReply say theirs), sealed with the next number.
  void Say(const Message& message, uint16_t version = kProtocolVersion);
  // A header as given, sealed; and one that is sent as it is.
  void SendHeader(std::string header, const std::vector<std::string>& segments = {});
  void SendBytes(std::string bytes, const std::vector<std::string>& segments = {});
  void Close();

  // What comes next; none when the connection has ended first, or nothing came in time.
  struct Came {
    uint16_t version = 0;
    Message message;
  };
  std::optional<Came> Next();
  // The next message, when it is one of these.
  template <class M>
  std::optional<M> NextIs() {
    auto came = Next();
    if (!came || !std::holds_alternative<M>(came->message)) return std::nullopt;
    return std::get<M>(std::move(came->message));
  }
  // Waits for the end of the connection; false when it does not come in time.
  bool Ended();

  Status OnDescriptor(std::string_view header, std::vector<Segment>& segments) override;
  void OnFrame(Status status) override;
  void OnClosed(Status status) override;

 private:
  friend class Stranger;

  std::mutex mutex_;  // guards the rest
  std::condition_variable changed_;
  std::shared_ptr<Connection> connection_;
  uint64_t next_out_ = 0;
  std::deque<Came> came_;
  std::unique_ptr<FrameDecoder> decoder_;
  uint16_t version_ = 0;
  bool ended_ = false;
};

class Stranger final : public TransportEvents {
 public:
  // options: the JSON object of the transport's section. Throws when there is no such transport.
  Stranger(const std::string& transport, const std::string& options);
  ~Stranger() override;

  // Where it listens, from now on.
  std::string Listen();
  std::shared_ptr<StrangerConnection> Dial(const std::string& address);
  // The next connection that somebody makes with it; null when nobody does in time.
  std::shared_ptr<StrangerConnection> Accept();

  std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection> connection) override;
  void OnAddress(std::string) override {}

 private:
  std::mutex mutex_;  // guards accepted_
  std::condition_variable changed_;
  std::deque<std::shared_ptr<StrangerConnection>> accepted_;
  std::unique_ptr<Transport> transport_;
};

}  // namespace gradferry
