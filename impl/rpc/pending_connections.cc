// See pending_connections.h.
#include "impl/rpc/pending_connections.h"

#include <algorithm>
#include <utility>

#include "impl/rpc/server_link.h"

namespace gradferry {

std::shared_ptr<ServerLink> PendingConnections::Add(std::shared_ptr<ServerLink> link) {
  std::lock_guard lock(mutex_);
  links_.push_back(std::move(link));
  if (links_.size() <= most_) return nullptr;
  auto oldest = std::move(links_.front());
  links_.pop_front();
  return oldest;
}

void PendingConnections::Remove(const ServerLink* link) {
  std::shared_ptr<ServerLink> removed;  // let go of without the lock
  std::lock_guard lock(mutex_);
  const auto it = std::find_if(links_.begin(), links_.end(), [link](const auto& entry) { return entry.get() == link; });
  if (it == links_.end()) return;
  removed = std::move(*it);
  links_.erase(it);
}

size_t PendingConnections::size() const {
  std::lock_guard lock(mutex_);
  return links_.size();
}

}  // namespace gradferry
