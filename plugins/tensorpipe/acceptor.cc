#include "plugins/tensorpipe/acceptor.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "plugins/tensorpipe/precheck.h"

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

using std::chrono::milliseconds;

// The dead listener lets go of its port within a moment. Peers shall not be without us for more than 100 ms.
constexpr int kAttemptsAtOldAddress = 15;
constexpr milliseconds kBetweenAttempts{5};
// No new port either: files or the interface are gone, which takes longer to mend.
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
    RelistenLater(0);
  }
}

void Acceptor::RelistenLater(int attempt) {
  const milliseconds pause = attempt <= kAttemptsAtOldAddress ? kBetweenAttempts : kBetweenLaterAttempts;
  const auto due = std::chrono::steady_clock::now() + (attempt == 0 ? milliseconds(0) : pause);
  shared_->events.PostAt(due, [self = shared_from_this(), attempt] { self->Relisten(attempt); });
}

// On the dispatcher.
void Acceptor::Relisten(int attempt) {
  if (closed()) return events_.ended();
  Address wanted = address_;
  if (attempt >= kAttemptsAtOldAddress) {
    wanted.port = 0;
    wanted.name.clear();
    wanted.text = wanted.Url();
  }
  const std::string before = address_.Url();
  const Status status = Listen(wanted);
  if (!status.ok()) {
    // Once; what follows is more of the same.
    if (attempt == kAttemptsAtOldAddress) shared_->Log(LogLevel::kError, "cannot listen again: " + status.text);
    return RelistenLater(attempt + 1);
  }
  if (address_.Url() == before) return shared_->Log(LogLevel::kInfo, "listening at " + before + " again");
  shared_->Log(LogLevel::kWarning, "listening at " + address_.Url() + " now, for " + before + " is taken");
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
