// See live.h.
#include "tests/support/c_abi/live.h"

#include <chrono>
#include <exception>
#include <utility>

namespace gf {

bool Eventually(const std::function<bool()>& condition, int64_t timeout) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::nanoseconds(timeout);
  while (!condition()) {
    if (std::chrono::steady_clock::now() >= until) return condition();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return true;
}

std::map<std::string, int64_t> LiveObjects() {
  static const std::map<std::string, uint32_t> kKinds = {
      {"handles", GF_LIVE_HANDLES},
      {"errors", GF_LIVE_ERRORS},
      {"tensors", GF_LIVE_TENSORS},
      {"lists", GF_LIVE_LISTS},
      {"operators", GF_LIVE_OPERATORS},
      {"configs", GF_LIVE_CONFIGS},
      {"queues", GF_LIVE_QUEUES},
      {"futures", GF_LIVE_FUTURES},
      {"requests", GF_LIVE_REQUESTS},
      {"workers", GF_LIVE_WORKERS},
      {"contexts", GF_LIVE_CONTEXTS},
      {"optimizers", GF_LIVE_OPTIMIZERS},
      {"autograd contexts", GF_LIVE_AUTOGRAD_CONTEXTS},
      {"send functions", GF_LIVE_SEND_FUNCTIONS},
      {"recv functions", GF_LIVE_RECV_FUNCTIONS},
      {"passes", GF_LIVE_PASSES},
      {"calls", GF_LIVE_CALLS},
      {"connections", GF_LIVE_CONNECTIONS},
  };
  std::map<std::string, int64_t> counts;
  for (const auto& [name, kind] : kKinds) counts[name] = gf_live_objects(kind);
  return counts;
}

bool NothingUnderWay() {
  for (uint32_t kind :
       {GF_LIVE_CALLS, GF_LIVE_PASSES, GF_LIVE_AUTOGRAD_CONTEXTS, GF_LIVE_SEND_FUNCTIONS, GF_LIVE_RECV_FUNCTIONS}) {
    if (gf_live_objects(kind) != 0) return false;
  }
  return true;
}

void Threads::Start(std::function<void()> body) {
  threads_.emplace_back([body = std::move(body)] {
    try {
      body();
    } catch (const std::exception& exception) {
      ADD_FAILURE() << "in a thread: " << exception.what();
    }
  });
}

void Threads::Join() {
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

std::string LeftBehind(const std::map<std::string, int64_t>& before, int64_t timeout) {
  if (Eventually([&] { return LiveObjects() == before; }, timeout)) return "";
  std::string text;
  for (const auto& [name, count] : LiveObjects()) {
    if (count == before.at(name)) continue;
    text += name + ": " + std::to_string(count) + " instead of " + std::to_string(before.at(name)) + "; ";
  }
  return text;
}

}  // namespace gf
