// See transport_set.h.
#include "impl/transport/transport_set.h"

#include <algorithm>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>

#include "impl/transport/search.h"

namespace gradferry {
namespace {

// The length of "name" when the text begins with "name=", else 0.
size_t NameLength(std::string_view text) {
  const size_t equals = text.find('=');
  return equals != std::string_view::npos && IsTransportName(text.substr(0, equals)) ? equals : 0;
}

std::string Names(const std::vector<NamedAddress>& addresses) {
  std::string names;
  for (const NamedAddress& a : addresses) names += StrCat(names.empty() ? "" : ", ", a.transport);
  return names;
}

// Whether a transport that owns time may be one of several: when its section says that its time is the machine's.
bool HasRealTime(const TransportSpec& spec) {
  const auto options = nlohmann::json::parse(spec.options, nullptr, /*allow_exceptions=*/false);
  return options.is_object() && options.value("time", nlohmann::json()) == "real";
}

class TransportSet final : public Transport {
 public:
  explicit TransportSet(TransportEvents* events) : events_(events) {}

  Status Open(const std::vector<TransportSpec>& specs, const PluginSearch& search, const OptionsJudge& judge) {
    if (specs.size() > 1 && !search.explicit_path.empty()) {
      return InvalidArgument(
          "transport.plugin is one file, and transport.name has several: say in transport.plugin_path where they are");
    }
    for (const TransportSpec& spec : specs) {
      auto member = std::make_unique<Member>(this, spec.name);
      GF_ASSIGN_OR_RETURN(member->transport, OpenTransport(spec.name, search, spec.options, member.get(), judge));
      if (specs.size() > 1 && member->transport->clock() != nullptr && !HasRealTime(spec)) {
        return InvalidArgument(StrCat("the transport ", spec.name, " owns time, so it must be the only one of ",
                                      "transport.name, unless transport.", spec.name, ".time is \"real\""));
      }
      name_ += StrCat(name_.empty() ? "" : " ", spec.name);
      members_.push_back(std::move(member));
    }
    return OkStatus();
  }

  const std::string& name() const override { return name_; }

  uint64_t max_header() const override {
    uint64_t least = UINT64_MAX;
    for (const auto& member : members_) least = std::min(least, member->transport->max_header());
    return least;
  }

  Clock* clock() override { return members_.size() == 1 ? members_[0]->transport->clock() : nullptr; }

  Result<std::string> Listen(const std::string& address) override {
    const auto wanted = ParseAddresses(address);
    for (const NamedAddress& w : wanted) GF_RETURN_IF_ERROR(CheckWanted(w));
    for (const auto& member : members_) {
      std::string where;
      for (const NamedAddress& w : wanted) {
        if (w.transport.empty() || w.transport == member->name) where = w.address;
      }
      GF_ASSIGN_OR_RETURN(std::string actual, member->transport->Listen(where));
      std::lock_guard lock(mutex_);
      // It may have moved already.
      if (member->address.empty()) member->address = std::move(actual);
    }
    std::lock_guard lock(mutex_);
    listening_ = true;
    return AddressLocked();
  }

  Result<std::shared_ptr<Connection>> Connect(const std::string& address,
                                              std::shared_ptr<ConnectionEvents> events) override {
    auto theirs = ParseAddresses(address);
    for (NamedAddress& t : theirs) {
      if (t.transport.empty()) t.transport = members_[0]->name;
    }
    for (const auto& member : members_) {
      for (const NamedAddress& t : theirs) {
        if (t.transport == member->name) return member->transport->Connect(t.address, std::move(events));
      }
    }
    std::string ours;
    for (const auto& member : members_) ours += StrCat(ours.empty() ? "" : ", ", member->name);
    return FailedPrecondition(StrCat("they have no transport in common: the former has ", ours, ", the latter has ",
                                     Names(theirs), " (transport.name)"));
  }

  void Shutdown() override {
    for (const auto& member : members_) member->transport->Shutdown();
  }

  std::string StatsJson() override {
    if (members_.size() == 1) return members_[0]->transport->StatsJson();
    nlohmann::json all = nlohmann::json::object();
    for (const auto& member : members_) {
      all[member->name] = nlohmann::json::parse(member->transport->StatsJson(), nullptr, /*allow_exceptions=*/false);
    }
    return all.dump();
  }

 private:
  // One of them. Its events carry no name, so each has a receiver of its own.
  struct Member final : TransportEvents {
    Member(TransportSet* owner, std::string its_name) : set(owner), name(std::move(its_name)) {}
    std::shared_ptr<ConnectionEvents> OnAccept(std::shared_ptr<Connection> connection) override {
      return set->events_->OnAccept(std::move(connection));
    }
    void OnAddress(std::string moved) override { set->Moved(*this, std::move(moved)); }

    TransportSet* const set;
    const std::string name;
    std::string address;                   // guarded by the set's mutex_; empty: it does not listen yet
    std::unique_ptr<Transport> transport;  // destroyed first: no event comes after
  };

  Status CheckWanted(const NamedAddress& wanted) const {
    if (wanted.transport.empty()) {
      if (members_.size() == 1) return OkStatus();
      return InvalidArgument(
          StrCat("worker.listen wants name=address for each transport, as there are several; got ", wanted.address));
    }
    for (const auto& member : members_) {
      if (member->name == wanted.transport) return OkStatus();
    }
    return InvalidArgument(
        StrCat("worker.listen names the transport ", wanted.transport, ", which transport.name has not"));
  }

  std::string AddressLocked() const {
    if (members_.size() == 1) return members_[0]->address;
    std::vector<NamedAddress> all;
    for (const auto& member : members_) all.push_back({member->name, member->address});
    return FormatAddresses(all);
  }

  // Two may move at once: one thread at a time tells, whoever comes meanwhile leaves its news to it.
  void Moved(Member& member, std::string address) {
    std::unique_lock lock(mutex_);
    member.address = std::move(address);
    if (!listening_) return;
    moved_ = true;
    if (std::exchange(telling_, true)) return;
    while (std::exchange(moved_, false)) {
      std::string all = AddressLocked();
      lock.unlock();
      events_->OnAddress(std::move(all));
      lock.lock();
    }
    telling_ = false;
  }

  TransportEvents* const events_;
  std::string name_;
  std::vector<std::unique_ptr<Member>> members_;  // in the order of preference

  std::mutex mutex_;  // guards the rest and the members' addresses; a leaf
  bool listening_ = false;
  bool moved_ = false;
  bool telling_ = false;
};

}  // namespace

std::vector<NamedAddress> ParseAddresses(std::string_view text) {
  std::vector<NamedAddress> addresses;
  while (!text.empty()) {
    const size_t name = NameLength(text);
    NamedAddress next;
    next.transport = std::string(text.substr(0, name));
    if (name > 0) text.remove_prefix(name + 1);
    size_t end = text.find(' ');
    while (end != std::string_view::npos && NameLength(text.substr(end + 1)) == 0) end = text.find(' ', end + 1);
    next.address = std::string(text.substr(0, end));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    addresses.push_back(std::move(next));
  }
  return addresses;
}

std::string FormatAddresses(const std::vector<NamedAddress>& addresses) {
  std::string text;
  for (const NamedAddress& a : addresses) {
    text += StrCat(text.empty() ? "" : " ", a.transport, a.transport.empty() ? "" : "=", a.address);
  }
  return text;
}

std::string WithTransportName(const std::string& transport, const std::string& address) {
  return NameLength(address) > 0 ? address : StrCat(transport, "=", address);
}

Result<std::unique_ptr<Transport>> OpenTransports(const std::vector<TransportSpec>& specs, const PluginSearch& search,
                                                  TransportEvents* events, const OptionsJudge& judge) {
  auto set = std::make_unique<TransportSet>(events);
  GF_RETURN_IF_ERROR(set->Open(specs, search, judge));
  return std::unique_ptr<Transport>(std::move(set));
}

}  // namespace gradferry
