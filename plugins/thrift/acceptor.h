// The listening socket. No error of accept ends it: where the process is out of file descriptors it gives up a spare
// one to take the caller in and send it away, and otherwise it pauses for a moment.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/local_socket.h"
#include "plugins/thrift/loop.h"
#include "plugins/thrift/shared.h"

namespace gradferry::thrift {

class Acceptor final : public Loop::Watcher {
 public:
  // On the loop's thread.
  using Accepted = std::function<void(FileDescriptor)>;

  // local: what keeps the path of a local socket, else null.
  Acceptor(Shared* shared, Loop* loop, FileDescriptor listener, std::unique_ptr<LocalSocket> local, Accepted accepted);

  // Any thread, once.
  Status Start();
  // Likewise. Then ended is called, on the loop's thread, and may destroy this.
  void Close(std::function<void()> ended);

  void OnReady(uint32_t events) override;

 private:
  // Whether there may be more.
  bool AcceptOne();
  void SendAwayOne();
  void Pause();

  Shared* const shared_;
  Loop* const loop_;
  FileDescriptor listener_;
  std::unique_ptr<LocalSocket> local_;
  const Accepted accepted_;

  // Of the loop's thread.
  FileDescriptor spare_;
  Loop::Clock::time_point complained_;
  bool paused_ = false;
  Loop::Timer resume_;
};

}  // namespace gradferry::thrift
