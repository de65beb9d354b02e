// See group.h.
#include "tests/support/c_abi/group.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>

#include "tests/support/c_abi/ways.h"

namespace gf {

std::string UniqueName() {
  static std::atomic<int> count{0};
  return "test-" + std::to_string(getpid()) + "-" + std::to_string(++count);
}

Config WorkerConfig(const std::string& transport, const std::string& network, const std::string& name, int id,
                    const Settings& more) {
  const Config config = NewConfig();
  Set(config, "worker.name", name);
  Set(config, "worker.id", std::to_string(id));
  UseWay(config, transport, name);
  if (transport == "sim") Set(config, "transport.sim.network", network);
  for (const auto& [key, value] : more) Set(config, key, value);
  return config;
}

std::string Address(gf_worker* worker) { return Text(gf_worker_address, worker); }

void AddPeer(gf_worker* worker, int id, const std::string& name, const std::string& address) {
  gf_peer peer{};
  peer.struct_size = sizeof(peer);
  peer.id = id;
  peer.name = name.data();
  peer.name_length = name.size();
  peer.address = address.data();
  peer.address_length = address.size();
  Call(gf_worker_add_peer, worker, &peer);
}

Group::Group(const std::string& transport, std::vector<std::string> names, const Settings& settings)
    : network_(UniqueName()), names_(std::move(names)) {
  for (size_t i = 0; i < names_.size(); ++i) {
    workers_.push_back(OpenWorker(WorkerConfig(transport, network_, names_[i], static_cast<int>(i), settings)));
  }
  for (const Worker& worker : workers_) {
    for (size_t i = 0; i < names_.size(); ++i) {
      if (worker.get() != workers_[i].get()) AddPeer(worker, static_cast<int>(i), names_[i], Address(workers_[i]));
    }
  }
}

Group::~Group() {
  try {
    Close();
  } catch (const std::exception& exception) {
    ADD_FAILURE() << "the group could not be closed: " << exception.what();
    Abort();
  }
}

gf_worker* Group::operator[](const std::string& name) const {
  const auto it = std::find(names_.begin(), names_.end(), name);
  return workers_.at(static_cast<size_t>(it - names_.begin()));
}

Server& Group::server(size_t index, int threads) {
  auto& server = servers_[index];
  if (!server) server = std::make_unique<Server>(workers_.at(index), threads);
  return *server;
}

void Group::Close() {
  std::vector<Future> ends;
  for (const Worker& worker : workers_) {
    Future end;
    Call(gf_worker_close_start, worker, kPatience, end.out());
    ends.push_back(std::move(end));
  }
  for (const Future& end : ends) Await(end, 2 * kPatience);
  servers_.clear();
  workers_.clear();
}

void Group::Abort() {
  for (const Worker& worker : workers_) gf_worker_abort(worker, nullptr);
  servers_.clear();
  workers_.clear();
}

}  // namespace gf
