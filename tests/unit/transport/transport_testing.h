// What the transport tests share: hosts and connection ends that record what happens to them and let a test wait for
// it, and frames whose release can be seen. Waits end by the event or, when a transport is broken, by a long time
// limit.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "impl/base/live.h"
#include "impl/base/log.h"
#include "impl/transport/transport.h"

namespace gradferry::testing {

// A lock, a condition and a wait with a limit that only broken code reaches.
class Signal {
 public:
  template <class Change>
  void Update(Change change) {
    std::lock_guard lock(mutex_);
    change();
    wake_.notify_all();
  }
  template <class Condition>
  bool Await(Condition condition) {
    std::unique_lock lock(mutex_);
    return wake_.wait_for(lock, std::chrono::seconds(60), condition);
  }
  template <class Read>
  auto Get(Read read) {
    std::lock_guard lock(mutex_);
    return read();
  }

 private:
  std::mutex mutex_;
  std::condition_variable wake_;
};

struct Received {
  std::string header;
  std::vector<std::string> segments;
};

// One end of a connection: records its events. Hooks run before an event is recorded, on the transport's thread.
class Recorder : public ConnectionEvents {
 public:
  std::function<Status(std::string_view header)> on_descriptor;
  std::function<void(const Received&)> on_frame;

  Status OnDescriptor(std::string_view header, std::vector<Segment>& segments) override {
    EXPECT_EQ(closed_count_.load(), 0) << "a frame after OnClosed";
    arriving_ = Received{std::string(header), {}};
    if (on_descriptor) {
      if (Status status = on_descriptor(header); !status.ok()) return status;
    }
    arriving_.segments.resize(segments.size());
    for (size_t i = 0; i < segments.size(); ++i) {
      EXPECT_EQ(segments[i].data, nullptr);
      arriving_.segments[i].resize(segments[i].length);
      // The transport must not need memory for what is empty.
      if (segments[i].length != 0) segments[i].data = arriving_.segments[i].data();
    }
    return OkStatus();
  }

  void OnFrame(Status status) override {
    EXPECT_EQ(closed_count_.load(), 0) << "a frame after OnClosed";
    if (!status.ok()) return signal_.Update([&] { ++lost_; });
    if (on_frame) on_frame(arriving_);
    signal_.Update([&] { frames_.push_back(std::move(arriving_)); });
  }

  void OnClosed(Status status) override {
    ++closed_count_;
    signal_.Update([&] {
      closed_ = true;
      closed_status_ = std::move(status);
    });
  }

  // False when the frames did not come.
  bool AwaitFrames(size_t count) {
    return signal_.Await([&] { return frames_.size() >= count; });
  }
  std::vector<Received> Frames() {
    return signal_.Get([&] { return frames_; });
  }
  std::vector<std::string> Headers() {
    std::vector<std::string> headers;
    for (const Received& frame : Frames()) headers.push_back(frame.header);
    return headers;
  }
  // The status of OnClosed.
  Status AwaitClosed() {
    EXPECT_TRUE(signal_.Await([&] { return closed_; })) << "OnClosed did not come";
    return signal_.Get([&] { return closed_status_; });
  }
  bool closed() {
    return signal_.Get([&] { return closed_; });
  }
  int closed_count() const { return closed_count_; }
  int lost() {
    return signal_.Get([&] { return lost_; });
  }

 private:
  Received arriving_;  // events come one at a time
  std::atomic<int> closed_count_{0};
  Signal signal_;  // guards the rest
  std::vector<Received> frames_;
  int lost_ = 0;
  bool closed_ = false;
  Status closed_status_;
};

// An end that was accepted.
struct Accepted {
  std::shared_ptr<Connection> connection;
  std::shared_ptr<Recorder> events;
};

// Accepts all connections with Recorders, or as the hook says.
class Host : public TransportEvents {
 public:
  std::function<std::shared_ptr<Recorder>(const std::shared_ptr<Connection>&)> on_accept;

  std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection> connection) override {
    auto events = on_accept ? on_accept(connection) : std::make_shared<Recorder>();
    signal_.Update([&] {
      ++asked_;
      if (events) accepted_.push_back({connection, events});
    });
    return events;
  }
  void OnAddress(std::string address) override {
    signal_.Update([&] { address_ = std::move(address); });
  }

  // The index-th accepted connection.
  Accepted AwaitAccepted(size_t index = 0) {
    EXPECT_TRUE(signal_.Await([&] { return accepted_.size() > index; })) << "nobody connected";
    return signal_.Get([&] { return index < accepted_.size() ? accepted_[index] : Accepted{}; });
  }
  bool AwaitAsked(int count) {
    return signal_.Await([&] { return asked_ >= count; });
  }
  std::string address() {
    return signal_.Get([&] { return address_; });
  }

 private:
  Signal signal_;  // guards the rest
  std::vector<Accepted> accepted_;
  int asked_ = 0;
  std::string address_;
};

// A transport with its host.
struct Node {
  Host host;
  std::unique_ptr<Transport> transport;
  std::string address;

  ~Node() {
    if (transport) transport->Shutdown();
  }
};

inline std::unique_ptr<Node> OpenNode(const std::string& name, const std::string& options) {
  auto node = std::make_unique<Node>();
  auto transport = OpenTransport(name, PluginSearch(), options, &node->host);
  EXPECT_TRUE(transport.ok()) << transport.status().ToString();
  if (transport.ok()) node->transport = std::move(*transport);
  return node;
}

inline std::unique_ptr<Node> OpenListener(const std::string& name, const std::string& options,
                                          const std::string& address = "") {
  auto node = OpenNode(name, options);
  if (!node->transport) return node;
  auto actual = node->transport->Listen(address);
  EXPECT_TRUE(actual.ok()) << actual.status().ToString();
  if (actual.ok()) node->address = *actual;
  return node;
}

// Counts the frames whose memory has been released.
class Releases {
 public:
  std::shared_ptr<void> NewOwner(std::shared_ptr<void> memory) {
    return std::shared_ptr<void>(memory.get(), [this, memory](void*) { signal_.Update([&] { ++count_; }); });
  }
  bool Await(int count) {
    return signal_.Await([&] { return count_ >= count; });
  }
  int count() {
    return signal_.Get([&] { return count_; });
  }

 private:
  Signal signal_;
  int count_ = 0;
};

// A frame that owns its segments, and counts its release when there is something to count with.
inline OutFrame MakeFrame(const std::string& header, const std::vector<std::string>& segments = {},
                          Releases* releases = nullptr) {
  auto memory = std::make_shared<std::vector<std::string>>(segments);
  OutFrame frame;
  frame.header = header;
  for (std::string& segment : *memory) {
    frame.segments.push_back({segment.empty() ? nullptr : segment.data(), segment.size()});
  }
  frame.owner = releases ? releases->NewOwner(memory) : std::shared_ptr<void>(memory);
  return frame;
}

// Bytes of which each place has its own.
inline std::string Pattern(size_t length, unsigned seed = 1) {
  std::string bytes(length, '\0');
  uint32_t state = seed * 2654435761u + 1;
  for (char& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(state >> 24);
  }
  return bytes;
}

// What is logged while it lives.
class LogCapture {
 public:
  explicit LogCapture(LogLevel level = LogLevel::kWarning) {
    SetLog(&LogCapture::Take, reinterpret_cast<uintptr_t>(this), level);
  }
  ~LogCapture() { SetLog(nullptr, 0, LogLevel::kOff); }

  bool Await(const std::string& part) {
    return signal_.Await([&] { return text_.find(part) != std::string::npos; });
  }
  std::string text() {
    return signal_.Get([&] { return text_; });
  }

 private:
  static void Take(uintptr_t token, uint32_t, const char* message, size_t length) {
    auto* self = reinterpret_cast<LogCapture*>(token);
    self->signal_.Update([&] { self->text_.append(message, length).append("\n"); });
  }

  Signal signal_;
  std::string text_;
};

}  // namespace gradferry::testing
