#include "plugins/thrift/instance.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "plugins/thrift/address.h"
#include "plugins/thrift/plain_stream.h"
#include "plugins/thrift/sockets.h"
#include "plugins/thrift/tls_stream.h"

namespace gradferry::thrift {
namespace {

// Connections in the middle of their TLS handshake.
constexpr int kMostUnproven = 256;

gf_transport_conn* HandleOf(Connection* connection) { return reinterpret_cast<gf_transport_conn*>(connection); }

Status Closing() { return {GF_CLOSED, "the transport is shut down"}; }

// What peers are told instead of 0.0.0.0.
Status Advertise(const std::string& advertise, Address* address) {
  if (!address->IsAnyInterface()) return {};
  if (advertise.empty()) {
    return {GF_FAILED_PRECONDITION, "listening at " + address->text +
                                        " reaches all interfaces, but peers need one address: set "
                                        "transport.thrift.advertise to the IP by which they reach this machine"};
  }
  Address told = *address;
  if (Status status = ParseIp(advertise, &told); !status.ok() || told.IsAnyInterface()) {
    return {GF_INVALID_ARGUMENT,
            "transport.thrift.advertise must be the IP of this machine, not \"" + advertise + "\""};
  }
  *address = told;
  return {};
}

}  // namespace

Status Instance::Create(const gf_transport_host* host, std::string_view json, std::unique_ptr<Instance>* out) {
  Options options;
  if (Status status = ParseOptions(json, &options); !status.ok()) return status;
  std::unique_ptr<Instance> instance(new Instance(host, std::move(options)));
  // Until its threads run there is nothing to be shut down.
  instance->over_ = instance->closing_ = true;
  const Options& settings = instance->shared_.options;
  if (!settings.ca.empty() || !settings.certificate.empty() || !settings.key.empty()) {
    if (Status status = TlsContext::Create(instance->shared_, &instance->tls_); !status.ok()) return status;
  }
  for (int64_t i = 0; i < instance->shared_.options.threads; ++i) {
    std::unique_ptr<Loop> loop;
    if (Status status = Loop::Start(&loop); !status.ok()) return status;
    instance->loops_.push_back(std::move(loop));
  }
  instance->over_ = instance->closing_ = false;
  *out = std::move(instance);
  return {};
}

Instance::Instance(const gf_transport_host* host, Options options) : shared_(host, std::move(options)) {}

Instance::~Instance() {
  Shutdown();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    over_changed_.wait(lock, [this] { return over_; });
  }
  // A thread of the host may still be on its way out of a call whose work is done.
  while (shared_.calls != 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
}

// ---- Listening ---------------------------------------------------------------------------------------------------

Status Instance::CheckReach(const Address& address, AddressUse use) const {
  if (address.scheme == Scheme::kTls && tls_ == nullptr) {
    return {GF_FAILED_PRECONDITION, address.text + " needs certificates: set transport.thrift.ca, certificate and key"};
  }
  if (address.scheme != Scheme::kTcp || address.IsLoopback() || shared_.options.insecure) return {};
  return {GF_FAILED_PRECONDITION,
          std::string(use == AddressUse::kListen ? "listening at " : "connecting to ") + address.text +
              " sends everything unencrypted over the network, to whoever answers: use tls:// instead, or set "
              "transport.thrift.insecure = true if nobody else is on it"};
}

Status Instance::Listen(std::string_view text, std::string* actual) {
  Address address;
  if (text.empty()) text = shared_.options.address;
  if (Status status = ParseAddress(text, AddressUse::kListen, &address); !status.ok()) return status;
  if (Status status = CheckReach(address, AddressUse::kListen); !status.ok()) return status;
  Address told = address;
  if (Status status = Advertise(shared_.options.advertise, &told); !status.ok()) return status;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return Closing();
    if (listening_) return {GF_FAILED_PRECONDITION, "the transport listens already"};
    listening_ = true;
  }
  FileDescriptor listener;
  std::unique_ptr<LocalSocket> local;
  Status status;
  if (address.is_unix()) {
    local = std::make_unique<LocalSocket>();
    status = local->Listen(&address, &listener);
    told = address;
  } else {
    status = ListenTcp(&address, &listener);
    told.port = address.port;
  }
  Loop* loop = loops_.front().get();
  auto acceptor =
      std::make_unique<Acceptor>(&shared_, loop, std::move(listener), std::move(local),
                                 [this, address](FileDescriptor fd) { OnAccepted(address, std::move(fd)); });
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (status.ok() && closing_) status = Closing();
    if (status.ok()) status = acceptor->Start();
    if (!status.ok()) {
      listening_ = false;
      return status;
    }
    acceptor_ = std::move(acceptor);
    ++alive_;
  }
  *actual = AddressText(told);
  return {};
}

// On the acceptor's loop.
void Instance::OnAccepted(const Address& at, FileDescriptor fd) {
  const std::string peer = PeerText(fd.get());
  if (at.is_unix()) {
    if (Status status = CheckPeerUser(fd.get()); !status.ok()) {
      ++shared_.counters.refused;
      return shared_.Log(LogLevel::kWarning, "refused a connection: " + status.text);
    }
  }
  // The host has a limit of its own, and hears of them when they have shown a certificate.
  if (at.scheme == Scheme::kTls && shared_.unproven >= kMostUnproven) {
    ++shared_.counters.refused;
    return shared_.Log(LogLevel::kDebug,
                       "refused a connection from " + peer + ": too many have not proved who they are");
  }
  Loop* loop = NextLoop();
  const auto connection = Add(loop, Origin::kAccepted, at);
  if (connection == nullptr) return;
  ++shared_.counters.accepted;
  if (loop->OnThisThread()) return connection->Adopt(std::move(fd), peer);
  const auto carried = std::make_shared<FileDescriptor>(std::move(fd));
  loop->Post([connection, carried, peer] { connection->Adopt(std::move(*carried), peer); });
}

// ---- Connecting --------------------------------------------------------------------------------------------------

Status Instance::Connect(std::string_view text, void* token, gf_transport_conn** out) {
  Address address;
  if (Status status = ParseAddress(text, AddressUse::kConnect, &address); !status.ok()) return status;
  if (Status status = CheckReach(address, AddressUse::kConnect); !status.ok()) return status;
  const auto connection = Add(NextLoop(), Origin::kDialled, address);
  if (connection == nullptr) return Closing();
  ++shared_.counters.dialled;
  *out = HandleOf(connection.get());
  connection->Dial(token);
  return {};
}

Status Instance::OpenStream(Scheme scheme, Origin origin, int fd, std::unique_ptr<Stream>* out) {
  if (scheme == Scheme::kTls) {
    const auto role = origin == Origin::kDialled ? TlsStream::Role::kClient : TlsStream::Role::kServer;
    return TlsStream::Create(tls_.get(), role, fd, out);
  }
  *out = std::make_unique<PlainStream>(fd);
  return {};
}

// ---- Life --------------------------------------------------------------------------------------------------------

Loop* Instance::NextLoop() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return loops_[next_loop_++ % loops_.size()].get();
}

// Null when the transport shuts down.
std::shared_ptr<Connection> Instance::Add(Loop* loop, Origin origin, const Address& address) {
  auto connection =
      std::make_shared<Connection>(&shared_, loop, static_cast<Connection::Owner*>(this), origin, address);
  const std::lock_guard<std::mutex> lock(mutex_);
  if (closing_) return nullptr;
  ++alive_;
  connections_.emplace(connection.get(), connection);
  ++shared_.counters.connections;
  return connection;
}

void Instance::OnEnded(Connection* connection) {
  std::shared_ptr<Connection> last;  // destroyed after the lock is released
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = connections_.find(connection);
    last = std::move(found->second);
    connections_.erase(found);
  }
  --shared_.counters.connections;
  Release();
}

void Instance::Shutdown() {
  std::vector<std::shared_ptr<Connection>> connections;
  Acceptor* acceptor;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return;
    closing_ = true;
    acceptor = acceptor_.get();
    for (const auto& entry : connections_) connections.push_back(entry.second);
  }
  if (acceptor != nullptr) acceptor->Close([this] { Release(); });
  for (const auto& connection : connections) connection->Close();
  Release();
}

void Instance::Release() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--alive_ > 0) return;
  }
  loops_.front()->Post([this] {
    shared_.host->on_shutdown(shared_.host->ctx);
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
    over_changed_.notify_all();
  });
}

std::string Instance::StatsJson() {
  const Counters& counters = shared_.counters;
  const nlohmann::json json = {
      {"frames_sent", counters.frames_sent.load()},         {"bytes_sent", counters.bytes_sent.load()},
      {"frames_received", counters.frames_received.load()}, {"bytes_received", counters.bytes_received.load()},
      {"bytes_copied", counters.bytes_copied.load()},       {"connections", counters.connections.load()},
      {"connections_dialled", counters.dialled.load()},     {"connections_accepted", counters.accepted.load()},
      {"connections_refused", counters.refused.load()},
  };
  return json.dump();
}

}  // namespace gradferry::thrift
