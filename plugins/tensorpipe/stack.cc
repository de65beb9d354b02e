#include "plugins/tensorpipe/stack.h"

#include <pthread.h>
#include <signal.h>
#include <tensorpipe/tensorpipe.h>

#include <algorithm>
#include <exception>
#include <map>
#include <utility>

#include "plugins/support/short_slices.h"
#include "plugins/tensorpipe/address.h"
#include "plugins/tensorpipe/precheck.h"

namespace gradferry::tp {
namespace {

namespace pipe = ::tensorpipe;

using TransportContext = std::shared_ptr<pipe::transport::Context>;
using ChannelContext = std::shared_ptr<pipe::channel::Context>;

// The higher wins, so the order must be the same on every worker. PyTorch's, with xth in front.
const std::map<std::string, int64_t> kPriorities = {{"shm", 200},  {"ibv", 100},  {"uv", 0},
                                                    {"xth", 1300}, {"mpt", 1100}, {"basic", 1000}};

// Both ends must have as many.
constexpr int kMptLanes = 4;

// Threads inherit the mask of the one that starts them, and libuv writes to sockets in a way that raises SIGPIPE when
// the peer is gone: its default is the end of the process.
class SigpipeBlocked {
 public:
  SigpipeBlocked() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, &before_);
  }
  ~SigpipeBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  SigpipeBlocked(const SigpipeBlocked&) = delete;
  SigpipeBlocked& operator=(const SigpipeBlocked&) = delete;

 private:
  sigset_t before_;
};

TransportContext MakeTransport(const std::string& name) {
  if (name == "uv") return pipe::transport::uv::create();
#if TENSORPIPE_HAS_SHM_TRANSPORT
  if (name == "shm") return pipe::transport::shm::create();
#endif
#if TENSORPIPE_HAS_IBV_TRANSPORT
  if (name == "ibv") return pipe::transport::ibv::create();
#endif
  return nullptr;
}

// Each lane has a listener of its own, on the interface where the transport listens by default.
ChannelContext MakeMpt(const std::string& default_address) {
  Address address;
  if (!ParseAddress(default_address, AddressUse::kListen, &address).ok() || address.is_shm()) return nullptr;
  address.port = 0;
  ListenClaim claim;
  if (!claim.Take(address).ok()) return nullptr;
  const std::string lane = address.Url().substr(address.scheme.size() + 3);
  std::vector<TransportContext> contexts;
  std::vector<std::shared_ptr<pipe::transport::Listener>> listeners;
  for (int i = 0; i < kMptLanes; ++i) {
    contexts.push_back(pipe::transport::uv::create());
    listeners.push_back(contexts.back()->listen(lane));
  }
  return pipe::channel::mpt::create(std::move(contexts), std::move(listeners));
}

ChannelContext MakeChannel(const std::string& name, const Options& options) {
  if (name == "basic") return pipe::channel::basic::create();
  if (name == "xth") return pipe::channel::xth::create();
  if (name == "mpt") return MakeMpt(options.address);
  return nullptr;
}

// The part of TensorPipe that a name stands for, or null when it does not work here. Looking for hardware may throw.
template <class Make>
auto IfViable(Make make) -> decltype(make()) {
  try {
    auto made = make();
    return made != nullptr && made->isViable() ? made : nullptr;
  } catch (const std::exception&) {
    return nullptr;
  }
}

}  // namespace

bool Stack::HasTransport(const std::string& name) const {
  return std::find(transports.begin(), transports.end(), name) != transports.end();
}

Status BuildStack(const Options& options, Stack* out) {
  const SigpipeBlocked blocked;
  const plugins::ShortSlices slices;  // of TensorPipe's threads
  Stack stack;
  stack.context = std::make_shared<pipe::Context>();
  for (const std::string& name : options.transports) {
    if (auto made = IfViable([&] { return MakeTransport(name); })) {
      stack.context->registerTransport(kPriorities.at(name), name, std::move(made));
      stack.transports.push_back(name);
    } else {
      stack.missing.push_back(name);
    }
  }
  for (const std::string& name : options.channels) {
    if (name == "cma") continue;  // ours: see cma.h
    if (auto made = IfViable([&] { return MakeChannel(name, options); })) {
      stack.context->registerChannel(kPriorities.at(name), name, std::move(made));
      stack.channels.push_back(name);
    } else {
      stack.missing.push_back(name);
    }
  }
  if (stack.transports.empty()) {
    return {GF_FAILED_PRECONDITION,
            "none of transport.tensorpipe.transports (" + Join(options.transports, ", ") + ") works on this machine"};
  }
  *out = std::move(stack);
  return {};
}

}  // namespace gradferry::tp
