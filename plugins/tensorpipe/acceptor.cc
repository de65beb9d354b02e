#include "plugins/tensorpipe/acceptor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "plugins/tensorpipe/precheck.h"

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

using std::chrono::milliseconds;

// The dead listener lets go of its port within a moment, and so long peers find us where we were. But they shall not be
// without us for more than 100 ms.
constexpr milliseconds kAtOldAddress{60};
constexpr milliseconds kBetweenAttempts{5};
// Files or the interface are gone, which takes longer to mend.
constexpr milliseconds kBetweenLaterAttempts{100};

}  // namespace

Acceptor::Acceptor(Shared* shared, pipe::Context* context, Events events)
    : shared_(shared), context_(context), events_(std::move(events)) {}

Status Acceptor::Start(const Address& address, const std::vector<std::string>& further, std::string* url) {
  further_ = further;
  if (Status status = Listen(address); !status.ok()) return status;
  *url = address_.Url();
  return {};
}

void Acceptor::Close() {
  std::shared_ptr<pipe::Listener> listener;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) return;
    closed_ = true;
    listener = listener_;
  }
  // The pending accept fails then. Is there none, because a new listener is due, that job finds us closed.
  if (listener != nullptr) listener->close();
}

// Opens a listener and begins to accept. Sets address_ to where it really is. Waits for TensorPipe's thread, though not
// for the network.
Status Acceptor::Listen(const Address& address) {
  ListenClaim claim;
  if (Status status = claim.Take(address); !status.ok()) return status;
  if (Status status = CheckFileDescriptors(); !status.ok()) return status;
  std::vector<std::string> urls = {address.Url()};
  for (const std::string& transport : further_) {
    Address beside = address;
    beside.scheme = transport;
    beside.port = 0;
    urls.push_back(beside.Url());
  }
  try {
    std::shared_ptr<pipe::Listener> listener = context_->listen(urls);
    Address actual;
    if (!ParseAddress(listener->url(address.scheme), AddressUse::kConnect, &actual).ok()) {
      // On TensorPipe's own thread it asks for the address before it has bound to it.
      return {GF_FAILED_PRECONDITION, "cannot listen at " + address.text + " within an event"};
    }
    address_ = actual;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      url_ = actual.Url();
    }
    Replace(listener);
    Accept(listener);
    return {};
  } catch (const std::exception&) {
    return FromException("listening at " + address.text);
  }
}

void Acceptor::Accept(const std::shared_ptr<pipe::Listener>& listener) {
  listener->accept([self = shared_from_this()](const pipe::Error& error, std::shared_ptr<pipe::Pipe> pipe) {
    self->OnAccept(error, std::move(pipe));
  });
}

void Acceptor::OnAccept(const pipe::Error& error, std::shared_ptr<pipe::Pipe> pipe) {
  if (!error) {
    std::shared_ptr<pipe::Listener> listener;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      listener = listener_;
    }
    Accept(listener);
    shared_->events.Deliver([self = shared_from_this(), pipe = std::move(pipe)] { self->events_.accepted(pipe); });
  } else if (closed()) {
    shared_->events.Deliver([self = shared_from_this()] { self->events_.ended(); });
  } else {
    ++shared_->counters.listener_restarts;
    shared_->Log(LogLevel::kWarning, "the listener died of a bad connection (" + Describe(error) + "); reopening it");
    RelistenAt(Clock::now(), Clock::now());
  }
}

void Acceptor::RelistenAt(Clock::time_point due, Clock::time_point died) {
  shared_->events.PostAt(due, [self = shared_from_this(), died] { self->Relisten(died); });
}

// On the dispatcher.
void Acceptor::Relisten(Clock::time_point died) {
  if (closed()) return events_.ended();
  const std::string before = address_.Url();
  const bool late = Clock::now() - died >= kAtOldAddress;
  Status status = Listen(address_);
  // Files may be missing as well; a new port needs as many.
  if (late && !status.ok() && status.code != GF_RESOURCE_EXHAUSTED) {
    Address other = address_;
    other.port = 0;
    other.name.clear();
    other.text = other.Url();
    status = Listen(other);
  }
  if (!status.ok()) {
    // Once; what follows is more of the same.
    if (late && !std::exchange(complained_, true)) {
      shared_->Log(LogLevel::kError, "cannot listen again: " + status.text);
    }
    return RelistenAt(Clock::now() + (late ? kBetweenLaterAttempts : kBetweenAttempts), died);
  }
  complained_ = false;
  const auto took = std::chrono::duration_cast<milliseconds>(Clock::now() - died);
  const std::string after = ", after " + std::to_string(took.count()) + " ms";
  if (address_.Url() == before) return shared_->Log(LogLevel::kInfo, "listening at " + before + " again" + after);
  shared_->Log(LogLevel::kWarning, "listening at " + address_.Url() + " now" + after + ", for " + before + " is taken");
  events_.moved(address_.Url());
}

// Makes this the listener and closes the old one, which is dead. When we are closed it is the new one that is closed,
// and its accept ends us.
void Acceptor::Replace(std::shared_ptr<pipe::Listener> listener) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    listener_.swap(listener);
    if (closed_) listener = listener_;
  }
  if (listener != nullptr) listener->close();
}

std::string Acceptor::url() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return url_;
}

bool Acceptor::closed() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return closed_;
}

}  // namespace gradferry::tp
