// One connection: a socket, and the host's token. Created by Instance, for an address that is dialled or a socket that
// was accepted.
//
// Life. It connects (dialled), shakes hands (TLS), is taken by the host (accepted), is open, and ends, once, on its
// loop's thread, which then delivers all that is still owed to the host, and on_closed last. Why it ended is what came
// first: Close (GF_OK) or an error.
//
// Sending. A frame goes to the socket on the thread of whoever sends it, as far as the socket takes it; the rest
// follows when the socket is ready, on the thread of whoever holds the connection. on_sent comes on that
// thread in any case: for a large frame at once, for small ones with the next event or within a millisecond, so that a
// call need not wake a second thread. What a thread sends while it hands over frames that it has read, by whichever
// connection, is gathered and goes together when it has handed over all of them, or after kGatherTime: answers to many
// requests, and the several messages of a backward pass, in one call of the system.
//
// Threads. Send, Close, PeerJson, Drive and WakeDriver: any. The rest: of whoever holds the connection, which is the
// loop's thread, while it does something for it, or the one in Drive, so that events come one at a time. The loop asks
// a driver to leave, and waits until it has, but does not disturb it for what it does itself anyway.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "plugins/thrift/address.h"
#include "plugins/thrift/file_descriptor.h"
#include "plugins/thrift/frame_reader.h"
#include "plugins/thrift/gateway.h"
#include "plugins/thrift/loop.h"
#include "plugins/thrift/outbox.h"
#include "plugins/thrift/shared.h"
#include "plugins/thrift/spin.h"
#include "plugins/thrift/status.h"
#include "plugins/thrift/stream.h"

namespace gradferry::thrift {

enum class Origin { kDialled, kAccepted };

class Connection final : public std::enable_shared_from_this<Connection>,
                         public Loop::Watcher,
                         public Loop::Deferred,
                         private FrameReader::Sink {
 public:
  class Owner {
   public:
    virtual Status OpenStream(Scheme scheme, Origin origin, int fd, std::unique_ptr<Stream>* out) = 0;
    // Once, after the connection's last event.
    virtual void OnEnded(Connection* connection) = 0;

   protected:
    ~Owner() = default;
  };

  Connection(Shared* shared, Loop* loop, Owner* owner, Origin origin, Address address);

  Shared* shared() const { return shared_; }

  // Either of these, once. Dial: any thread. Adopt: on the loop; peer: the other side, for texts.
  void Dial(void* token);
  void Adopt(FileDescriptor fd, std::string peer);

  Status Send(const gf_transport_frame& frame, void* op);
  void Close();
  // What transport.h's peer tells.
  std::string PeerJson() const;
  // transport.h's drive and wake.
  void Drive(uint64_t until, int32_t (*done)(void* arg), void* arg);
  void WakeDriver();

  void OnReady(uint32_t events) override;
  void RunDeferred() override;

 private:
  enum class Phase { kIdle, kConnecting, kHandshaking, kOpen, kEnded };

  enum class Holder { kNobody, kLoop, kDriver };
  // While it lives the loop's thread holds the connection.
  class Turn {
   public:
    explicit Turn(Connection* connection);
    ~Turn();
    Turn(const Turn&) = delete;
    Turn& operator=(const Turn&) = delete;

   private:
    const std::shared_ptr<Connection> connection_;
  };
  // What this thread sends is gathered while one of these lives.
  class Gathering;
  bool BeginDriving(int wake_fd);
  void EndDriving();
  bool WriteOn();
  void Sleep(uint64_t until, int wake_fd, bool blocked);

  void Connect();
  void OnConnected();
  void OpenStream();
  void ShakeHands();
  void Open();
  void SetDeadline(int64_t milliseconds, Status reason);
  void CancelDeadline();
  void CountUnproven(bool unproven);

  uint32_t Interest() const;
  void Flush();
  void FlushAndReport();
  void FlushGathered();
  void OnBlocked();
  void ScheduleSent();
  void DeliverSent();

  void SeeTo(uint32_t events);
  // Whether there may be more to read, though the socket does not say so.
  bool Receive();
  bool Read();
  void ReceiveAll();   // the loop
  void PostReceive();  // any thread
  Status OnDescriptor(const gf_transport_frame& frame, gf_transport_segment* segments) override;
  void OnWholeFrame(uint64_t bytes) override;
  uint64_t MaxMessage() override;
  Status OnMessage(std::string_view message) override;
  Status Deliver(const std::string& header, const std::vector<std::string_view>& segments);
  Status GiveToClient(const gf_transport_frame& frame, void* op);
  void SendAnswer(std::string answer);
  void Introduced();

  void Break(const std::string& why);
  void Refuse(Status status);
  enum class Farewell { kNone, kLinger };
  void End(Status reason, Farewell farewell);
  void ReportSent(void* op, const Status& status);

  Shared* const shared_;
  Loop* const loop_;
  Owner* const owner_;
  const Origin origin_;
  const Address address_;  // of the peer when dialled, else ours

  // Of the holder's thread.
  Phase phase_ = Phase::kIdle;
  void* token_ = nullptr;   // set before the first event
  bool discarded_ = false;  // the host does not want it: no events
  bool introduced_ = false;
  bool unproven_ = false;  // counted as such
  FrameReader reader_{this};
  uint64_t counted_copies_ = 0;
  bool has_deadline_ = false;
  Loop::Timer deadline_;
  std::vector<Outbox::Sent> reporting_;
  uint64_t received_ = 0;  // frames
  Spin spin_;              // of drivers
  bool ending_ = false;    // the driver has found that it ends; the loop does it

  std::atomic<bool> closing_{false};  // the host has closed it

  mutable std::mutex mutex_;  // guards what follows; the socket is written to under it, nobody else is called
  std::string peer_;          // for texts; set until it is open
  FileDescriptor fd_;
  std::unique_ptr<Stream> stream_;  // set until it is open, and read by the holder without the lock
  bool open_ = false;               // frames may be written
  bool blocked_ = false;            // the socket is full
  bool deferred_ = false;           // the loop knows that something has been sent
  bool deferred_now_ = false;       // and was woken
  std::string write_error_;         // nothing can be written any more
  bool ended_ = false;
  Status end_;
  Outbox outbox_;
  std::unique_ptr<Gateway> gateway_;  // the peer is a stock client; set by the loop's thread, which reads it without
  Holder holder_ = Holder::kNobody;
  bool reclaimed_ = false;  // the loop waits for the driver to leave
  int driver_wake_ = -1;    // an eventfd of the driver's
  std::condition_variable driver_left_;
};

}  // namespace gradferry::thrift
