#include "plugins/tensorpipe/instance.h"

#include <algorithm>
#include <chrono>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>
#include <vector>

#include "plugins/tensorpipe/address.h"
#include "plugins/tensorpipe/precheck.h"

namespace gradferry::tp {
namespace {

gf_transport_conn* HandleOf(Connection* connection) { return reinterpret_cast<gf_transport_conn*>(connection); }

// Bytes that TensorPipe does not understand abort the process.
Status CheckReach(const Address& address, const Options& options) {
  if (address.IsLoopback() || options.trusted_network) return {};
  return {GF_FAILED_PRECONDITION,
          "listening at " + address.text +
              " reaches beyond this machine, where whoever connects can abort this process: set "
              "transport.tensorpipe.trusted_network = true if all that can reach it are trusted"};
}

bool Has(const std::vector<std::string>& words, const std::string& word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// What must be the same on both ends: TensorPipe's own channels.
std::vector<std::string> SameOnBothEnds(std::vector<std::string> channels) {
  channels.erase(std::remove(channels.begin(), channels.end(), "cma"), channels.end());
  return channels;
}

Status Closing() { return {GF_CLOSED, "the transport is shut down"}; }

}  // namespace

Status Instance::Create(const gf_transport_host* host, std::string_view json, std::unique_ptr<Instance>* out) {
  Options options;
  if (Status status = ParseOptions(json, &options); !status.ok()) return status;
  // The lanes of mpt listen from the start.
  const bool listens = Has(options.channels, "mpt");
  if (Address address; listens) {
    if (Status status = ParseAddress(options.address, AddressUse::kListen, &address); !status.ok()) return status;
    if (Status status = CheckReach(address, options); !status.ok()) return status;
  }
  Stack stack;
  if (Status status = BuildStack(options, &stack); !status.ok()) return status;
  std::unique_ptr<Instance> instance(new Instance(host, std::move(options), std::move(stack)));
  const Stack& built = instance->stack_;
  for (const std::string& name : built.missing) {
    instance->shared_.Log(LogLevel::kWarning, name + " does not work on this machine; going on without it");
  }
  instance->shared_.Log(LogLevel::kInfo, "transports " + Join(built.transports, ", ") + "; channels " +
                                             Join(built.channels, ", ") + (instance->shared_.cma ? ", cma" : ""));
  *out = std::move(instance);
  return {};
}

Instance::Instance(const gf_transport_host* host, Options options, Stack stack)
    : options_(std::move(options)), shared_(host), stack_(std::move(stack)) {
  // Which transport a connection gets is decided by both ends, and told to none.
  if (stack_.HasTransport("shm")) shared_.max_segment = kMaxSegmentOverShm;
  if (stack_.transports != std::vector<std::string>{"uv"}) shared_.plain_path = "tensorpipe";
  shared_.cma = Has(options_.channels, "cma");
  if (shared_.cma) shared_.copies = std::make_unique<EventQueue>();
}

Instance::~Instance() {
  Shutdown();
  {
    std::unique_lock<std::mutex> lock(mutex_);
    over_changed_.wait(lock, [this] { return over_; });
  }
  // TensorPipe may still hold a thread of the host in a call whose own part is done. It leaves us within microseconds.
  while (shared_.calls != 0) std::this_thread::sleep_for(std::chrono::microseconds(50));
  if (shared_.copies != nullptr) shared_.copies->Stop();
  shared_.events.Stop();
  stack_.context->join();
}

// ---- Listening ---------------------------------------------------------------------------------------------------

Status Instance::Listen(std::string_view text, std::string* actual) {
  Address address;
  if (text.empty()) text = options_.address;
  if (Status status = ParseAddress(text, AddressUse::kListen, &address); !status.ok()) return status;
  if (!stack_.HasTransport(address.scheme)) {
    return {GF_INVALID_ARGUMENT, "cannot listen at " + address.text + ": transport.tensorpipe.transports has only " +
                                     Join(stack_.transports, ", ")};
  }
  if (Status status = CheckReach(address, options_); !status.ok()) return status;
  // Whoever is reached by TCP may share the machine or an InfiniBand network with us as well.
  std::vector<std::string> further;
  for (const std::string& name : stack_.transports) {
    if (address.scheme == "uv" && name != "uv") further.push_back(name);
  }
  std::shared_ptr<Acceptor> acceptor;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return Closing();
    if (listening_) return {GF_FAILED_PRECONDITION, "the transport listens already"};
    listening_ = true;
    ++alive_;
    Acceptor::Events events;
    events.accepted = [this](std::shared_ptr<::tensorpipe::Pipe> pipe) { OnAccepted(std::move(pipe)); };
    events.moved = [this](const std::string& url) { OnMoved(url); };
    events.ended = [this] { Release(); };
    acceptor = acceptor_ = std::make_shared<Acceptor>(&shared_, stack_.context.get(), std::move(events));
  }
  std::string url;
  if (Status status = acceptor->Start(address, further, &url); !status.ok()) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      acceptor_ = nullptr;
      listening_ = false;
    }
    Release();
    return status;
  }
  *actual = AddressText(url, options_.channels);
  return {};
}

// Within an event.
void Instance::OnAccepted(std::shared_ptr<::tensorpipe::Pipe> pipe) {
  std::string address;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (acceptor_ != nullptr) address = acceptor_->url();
  }
  const uint64_t number = ++shared_.counters.accepted;
  const auto connection = Add(pipe, Connection::Origin::kAccepted, "accepted peer " + std::to_string(number), address);
  if (connection == nullptr) return pipe->close();
  void* token = shared_.host->on_accept(shared_.host->ctx, HandleOf(connection.get()));
  if (token != nullptr) {
    connection->Start(token);
  } else {
    connection->Discard();
  }
}

void Instance::OnMoved(const std::string& url) {
  const std::string address = AddressText(url, options_.channels);
  shared_.host->on_address(shared_.host->ctx, address.data(), address.size());
}

// ---- Connecting --------------------------------------------------------------------------------------------------

Status Instance::Connect(std::string_view text, void* token, gf_transport_conn** out) {
  Address address;
  if (Status status = ParseAddress(text, AddressUse::kConnect, &address); !status.ok()) return status;
  if (Status status = CheckPeer(address); !status.ok()) return status;
  if (Status status = CheckRoute(address); !status.ok()) return status;
  if (Status status = CheckFileDescriptors(); !status.ok()) return status;
  const auto connection =
      Add(stack_.context->connect(address.Url()), Connection::Origin::kDialled, address.text, address.Url());
  if (connection == nullptr) return Closing();
  ++shared_.counters.dialled;
  *out = HandleOf(connection.get());
  connection->Start(token);
  return {};
}

Status Instance::CheckPeer(const Address& address) const {
  if (!stack_.HasTransport(address.scheme)) {
    return {GF_INVALID_ARGUMENT, "cannot connect to " + address.text + ": transport.tensorpipe.transports has only " +
                                     Join(stack_.transports, ", ")};
  }
  if (!address.has_channels || SameOnBothEnds(address.channels) == SameOnBothEnds(options_.channels)) return {};
  return {GF_FAILED_PRECONDITION,
          "the worker at " + address.text + " has transport.tensorpipe.channels = " + Join(address.channels, ", ") +
              ", this one has " + Join(options_.channels, ", ") + "; but for cma, all workers need the same"};
}

// ---- Life --------------------------------------------------------------------------------------------------------

// Null when the transport shuts down.
std::shared_ptr<Connection> Instance::Add(std::shared_ptr<::tensorpipe::Pipe> pipe, Connection::Origin origin,
                                          const std::string& peer, const std::string& address) {
  auto connection = std::make_shared<Connection>(&shared_, std::move(pipe), origin, peer, address,
                                                 [this](Connection* ended) { OnEnded(ended); });
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
  std::shared_ptr<Acceptor> acceptor;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (closing_) return;
    closing_ = true;
    acceptor = acceptor_;
    for (const auto& entry : connections_) connections.push_back(entry.second);
  }
  // The connections first: when the listener goes, those that it is still setting up break.
  for (const auto& connection : connections) connection->Close();
  if (acceptor != nullptr) acceptor->Close();
  Release();
}

void Instance::Release() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--alive_ > 0) return;
  }
  shared_.events.Post([this] {
    shared_.host->on_shutdown(shared_.host->ctx);
    const std::lock_guard<std::mutex> lock(mutex_);
    over_ = true;
    over_changed_.notify_all();
  });
}

std::string Instance::StatsJson() {
  const Counters& counters = shared_.counters;
  std::vector<std::string> channels = stack_.channels;
  if (shared_.cma) channels.push_back("cma");
  std::sort(channels.begin(), channels.end());
  const nlohmann::json json = {
      {"frames_sent", counters.frames_sent.load()},
      {"bytes_sent", counters.bytes_sent.load()},
      {"frames_received", counters.frames_received.load()},
      {"bytes_received", counters.bytes_received.load()},
      {"connections", counters.connections.load()},
      {"connections_dialled", counters.dialled.load()},
      {"connections_accepted", counters.accepted.load()},
      {"listener_restarts", counters.listener_restarts.load()},
      {"transports", stack_.transports},
      {"channels", channels},
  };
  return json.dump();
}

}  // namespace gradferry::tp
