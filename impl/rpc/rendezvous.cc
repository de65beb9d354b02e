// See rendezvous.h. The only file that knows c10d. The store must stay open as long as the worker: rank 0's TCPStore
// serves the others, who may join later.
#include "impl/rpc/rendezvous.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "impl/tensor/operators.h"

#ifdef __has_include
#if __has_include(<torch/csrc/distributed/c10d/TCPStore.hpp>)
#define GRADFERRY_HAS_C10D 1
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#endif
#endif

namespace gradferry {

#ifdef GRADFERRY_HAS_C10D

namespace {

std::chrono::milliseconds ToMilliseconds(int64_t ns) {
  constexpr int64_t kDay = int64_t{24} * 3600 * 1000;
  return std::chrono::milliseconds(std::clamp<int64_t>(ns / 1000000, 1, kDay));
}

class StoreRendezvous final : public Rendezvous {
 public:
  StoreRendezvous(c10::intrusive_ptr<c10d::Store> store, std::string where, int64_t rank, int64_t world_size,
                  std::chrono::milliseconds timeout)
      : store_(std::move(store)), where_(std::move(where)), rank_(rank), world_size_(world_size), timeout_(timeout) {}

  Result<std::vector<ConfigPeer>> Join(const std::string& group, const ConfigPeer& self) override {
    const auto until = std::chrono::steady_clock::now() + timeout_;
    std::vector<ConfigPeer> members;
    try {
      auto prefixed = c10::make_intrusive<c10d::PrefixStore>("gradferry/" + group, store_);
      const std::string text = self.name + "\n" + self.address;
      prefixed->set(std::to_string(rank_), std::vector<uint8_t>(text.begin(), text.end()));
      for (int64_t rank = 0; rank < world_size_; ++rank) {
        GF_ASSIGN_OR_RETURN(ConfigPeer member, Read(*prefixed, rank, until));
        for (const ConfigPeer& other : members) {
          if (other.name != member.name) continue;
          return Status(Code::kAlreadyExists, StrCat("ranks ", other.id, " and ", rank, " of group ", group,
                                                     " are both called ", member.name));
        }
        members.push_back(std::move(member));
      }
    } catch (...) {
      return StatusFromTorchException().Wrap(Code::kUnavailable, StrCat("joining the group by ", where_, " failed"));
    }
    return members;
  }

 private:
  Result<ConfigPeer> Read(c10d::Store& store, int64_t rank, std::chrono::steady_clock::time_point until) {
    const std::string key = std::to_string(rank);
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
    try {
      store.wait({key}, std::max(left, std::chrono::milliseconds(1)));
    } catch (...) {
      return StatusFromTorchException().Wrap(
          Code::kDeadlineExceeded, StrCat("rank ", rank, " of ", world_size_, " did not join by ", where_, " within ",
                                          timeout_.count(), " ms (group.join_timeout)"));
    }
    const std::vector<uint8_t> bytes = store.get(key);
    const std::string text(bytes.begin(), bytes.end());
    const size_t split = text.find('\n');
    if (split == std::string::npos) {
      return Status(Code::kDataLoss, StrCat("the entry of rank ", rank, " in ", where_, " is none of ours"));
    }
    return ConfigPeer{static_cast<int32_t>(rank), text.substr(0, split), text.substr(split + 1)};
  }

  const c10::intrusive_ptr<c10d::Store> store_;
  const std::string where_;
  const int64_t rank_;
  const int64_t world_size_;
  const std::chrono::milliseconds timeout_;
};

constexpr char kTcp[] = "tcp://";
constexpr char kFile[] = "file://";

bool StartsWith(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

Result<c10::intrusive_ptr<c10d::Store>> OpenTcp(const std::string& where, bool host, int64_t world_size,
                                                std::chrono::milliseconds timeout) {
  const std::string address = where.substr(sizeof(kTcp) - 1);
  const size_t colon = address.rfind(':');
  const std::string port_text = colon == std::string::npos ? "" : address.substr(colon + 1);
  char* end = nullptr;
  const long port = std::strtol(port_text.c_str(), &end, 10);
  if (port_text.empty() || *end != '\0' || port < 1 || port > 65535) {
    return InvalidArgument(StrCat("group.rendezvous: ", where, " is not tcp://HOST:PORT"));
  }
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(port);
  options.isServer = host;
  options.numWorkers = world_size;
  options.waitWorkers = false;
  options.timeout = timeout;
  return c10::intrusive_ptr<c10d::Store>(c10::make_intrusive<c10d::TCPStore>(address.substr(0, colon), options));
}

}  // namespace

Result<std::unique_ptr<Rendezvous>> Rendezvous::Open(const std::string& where, int64_t rank, int64_t world_size,
                                                     int64_t timeout) {
  const auto limit = ToMilliseconds(timeout);
  c10::intrusive_ptr<c10d::Store> store;
  try {
    if (StartsWith(where, kTcp)) {
      GF_ASSIGN_OR_RETURN(store, OpenTcp(where, rank == 0, world_size, limit));
    } else if (StartsWith(where, kFile)) {
      store = c10::make_intrusive<c10d::FileStore>(where.substr(sizeof(kFile) - 1), static_cast<int>(world_size));
    } else {
      return InvalidArgument(
          StrCat("group.rendezvous is \"", where, "\"; \"env\", tcp://HOST:PORT or file:///PATH are understood"));
    }
    store->setTimeout(limit);
  } catch (...) {
    return StatusFromTorchException().Wrap(Code::kUnavailable, StrCat("the rendezvous ", where, " cannot be reached"));
  }
  return std::unique_ptr<Rendezvous>(new StoreRendezvous(std::move(store), where, rank, world_size, limit));
}

#else

Result<std::unique_ptr<Rendezvous>> Rendezvous::Open(const std::string& where, int64_t, int64_t, int64_t) {
  return Status(Code::kUnimplemented,
                StrCat("group.rendezvous ", where, " needs a libtorch with c10d; this one has none: use group.peers"));
}

#endif

}  // namespace gradferry
