// The accepted connections whose other side has not introduced itself yet. There are at most so many: the oldest goes
// when one more comes, so that whoever speaks at once gets in however many stand there in silence. Any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>

namespace gradferry {

class ServerLink;

class PendingConnections {
 public:
  explicit PendingConnections(size_t most) : most_(most) {}

  // Returns the one that has to go, which is forgotten here; null when there is room.
  std::shared_ptr<ServerLink> Add(std::shared_ptr<ServerLink> link);
  // It has introduced itself, or has ended.
  void Remove(const ServerLink* link);
  size_t size() const;

 private:
  const size_t most_;
  mutable std::mutex mutex_;                       // guards links_; a leaf
  std::deque<std::shared_ptr<ServerLink>> links_;  // the oldest first; until their ends
};

}  // namespace gradferry
