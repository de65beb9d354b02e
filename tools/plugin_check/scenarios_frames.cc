// Scenarios: frames to and fro, from every event, and while the other side stands still.
#include <atomic>
#include <functional>
#include <thread>
#include <vector>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {

void CheckEcho() {
  Transport* server = Transport::New();
  server->on_accept = [](End& end) { return end.echo = true; };
  server->Listen();
  Transport* client = Transport::New();
  End* end = client->Dial(server->address());
  const std::vector<Shape> shapes = ManyShapes(Transport::descriptor().max_header);
  uint64_t arrived = 0;
  // One by one, so that the one that fails can be named; then all at once.
  for (const Shape& shape : shapes) {
    Watching(5, "sending a frame with a header of " + std::to_string(shape.header) + " bytes and " +
                    std::to_string(shape.segments.size()) + " segments");
    if (end->Send(shape) != GF_OK) Found(12, "send refused a frame within the limits");
    AwaitArrived(end, ++arrived, "the dialling end, one by one");
  }
  for (const Shape& shape : shapes) arrived += end->Send(shape) == GF_OK ? 1 : 0;
  AwaitArrived(end, arrived, "the dialling end, sent at once");
  AwaitCompleted(end, "the dialling end");
  if (World::Get([&] { return end->state.failed; }) != 0)
    Found(4, "on_sent reported an error for a frame that arrived");
  client->Finish();
  server->Finish();
}

void CheckOrder() {
  Transport* server = Transport::New();
  server->Listen();
  Transport* client = Transport::New();
  End* end = client->Dial(server->address());
  End* other = server->AwaitAccepted();
  // Both ways at the same time, from two threads each; large ones among small ones.
  constexpr int kFrames = 300;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([=] {
      End* from = t % 2 == 0 ? end : other;
      for (int i = 0; i < kFrames; ++i) {
        Shape shape{40, {}, static_cast<uint64_t>(t * kFrames + i)};
        if (i % 3 == 0) shape.segments = {static_cast<uint64_t>(i)};
        if (i % 50 == 0) shape.segments = {300000, 0, 70000};
        if (from->Send(shape) != GF_OK) Found(4, "send failed on a connection that stands");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  AwaitArrived(other, 2 * kFrames, "the accepting end");
  AwaitArrived(end, 2 * kFrames, "the dialling end");
  AwaitCompleted(end, "the dialling end");
  AwaitCompleted(other, "the accepting end");
  client->Finish();
  server->Finish();
}

namespace {

// Calls everything that may be called within an event: on this thread and on another one.
class Reentry {
 public:
  Reentry(Transport* self, std::string listener) : self_(self), listener_(std::move(listener)) {}

  void Enter(End* end, const char* event) {
    const int turn = turns_.fetch_add(1);
    if (turn >= 40) return;
    CallAll(end, turn);
    std::thread([=] {
      const WithinEvent within(std::string(event) + " by another thread");
      CallAll(end, turn);
    }).join();
    Checked(2);
  }

 private:
  void CallAll(End* end, int turn) {
    self_->Stats();
    if (end != nullptr) {
      end->Peer();
      end->Send({40, {3}, 77});
      if (turn % 8 == 7) end->Close();
    }
    int32_t code = GF_OK;
    std::string text;
    if (End* dialled = self_->TryDial(listener_, &code, &text)) dialled->Close();
    self_->Listen("no address at all", &text);
    if (turn % 16 == 15) self_->Shutdown();
  }

  Transport* const self_;
  const std::string listener_;
  std::atomic<int> turns_{0};
};

}  // namespace

void CheckReentry() {
  Watching(2, "calling every function within every event");
  Transport* target = Transport::New();
  target->Listen();
  Transport* server = Transport::New();
  Transport* client = Transport::New();
  auto by_server = std::make_shared<Reentry>(server, target->address());
  auto by_client = std::make_shared<Reentry>(client, target->address());
  auto hook = [](End& end, const std::shared_ptr<Reentry>& reentry) {
    end.on_descriptor = [=](End& each) {
      reentry->Enter(&each, "on_descriptor");
      return GF_OK;
    };
    end.on_frame = [=](End& each) { reentry->Enter(&each, "on_frame"); };
    end.on_sent = [=](End& each) { reentry->Enter(&each, "on_sent"); };
    end.on_closed = [=](End& each) { reentry->Enter(&each, "on_closed"); };
  };
  server->on_accept = [=](End& end) {
    hook(end, by_server);
    by_server->Enter(&end, "on_accept");
    return true;
  };
  server->on_shutdown = [=] { by_server->Enter(nullptr, "on_shutdown"); };
  server->Listen();
  int32_t code = GF_OK;
  std::string text;
  for (int i = 0; i < 3; ++i) {
    End* end = client->TryDial(server->address(), &code, &text, [&](End& each) { hook(each, by_client); });
    if (end == nullptr) continue;  // one of the events has shut down the client
    end->Send({40, {}, 1});
    end->Send({40, {9}, 2});
  }
  client->AwaitOver();
  server->Shutdown();
  server->AwaitOver();
  client->Destroy();
  server->Destroy();
  target->Finish();
}

void CheckStalledPeer() {
  Watching(1, "calling functions while the peer's host keeps its event");
  Transport* server = Transport::New();
  struct Gate {
    std::atomic<bool> entered{false};
    std::atomic<bool> open{false};
  };
  auto gate = std::make_shared<Gate>();
  server->on_accept = [gate](End& end) {
    end.on_descriptor = [gate](End&) {
      gate->entered = true;
      while (!gate->open) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      return GF_OK;
    };
    return true;
  };
  server->Listen();
  Transport* client = Transport::New();
  End* end = client->Dial(server->address());
  server->AwaitAccepted();
  end->Send({40, {1000}, 1});
  const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(World::patience);
  while (!gate->entered && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  if (!gate->entered) Found(5, "a frame was not announced");
  // Far more than buffers hold.
  for (int i = 0; i < 24; ++i) end->Send({40, {2000000, 3}, static_cast<uint64_t>(i)});
  for (int i = 0; i < 500; ++i) end->Send({40, {}, static_cast<uint64_t>(i)});
  server->Stats();
  client->Stats();
  int32_t code = GF_OK;
  std::string text;
  End* second = client->TryDial(server->address(), &code, &text);
  if (second != nullptr) second->Send({40, {100000}, 5});
  if (second != nullptr) second->Close();
  end->Close();
  client->Shutdown();
  server->Shutdown();
  gate->open = true;
  client->AwaitOver();
  server->AwaitOver();
  client->Destroy();
  server->Destroy();
}

}  // namespace gradferry::check
