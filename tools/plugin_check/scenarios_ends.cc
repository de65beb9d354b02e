// Scenarios: refusals, ends in every state, several transports, what is left behind, time.
#include <dirent.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <thread>
#include <vector>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {
namespace {

using std::chrono::milliseconds;

struct Pair {
  Transport* server;
  Transport* client;
  End* end;    // dialled
  End* other;  // accepted
};

Pair Connected() {
  Pair pair{};
  pair.server = Transport::New();
  pair.server->Listen();
  pair.client = Transport::New();
  pair.end = pair.client->Dial(pair.server->address());
  pair.other = pair.server->AwaitAccepted();
  return pair;
}

void Finish(const Pair& pair) {
  pair.client->Finish();
  pair.server->Finish();
}

int32_t CodeOf(End* end) {
  return World::Get([&] { return end->state.code; });
}

// The end that heard of the other's.
void MustBeLost(End* end, const char* which) {
  AwaitClosed(end, which);
  if (CodeOf(end) == GF_OK) Found(6, std::string(which) + " was ended by the other side, and on_closed has no error");
}

void MustBeOurs(End* end, const char* which) {
  AwaitClosed(end, which);
  const int32_t code = CodeOf(end);
  if (code != GF_OK)
    Found(6, std::string(which) + " was closed by its host, and on_closed has code " + std::to_string(code));
}

void Burst(End* end, int frames) {
  for (int i = 0; i < frames; ++i) end->Send({40, {500000, 0, 9}, static_cast<uint64_t>(i)});
}

size_t EntriesOf(const char* folder) {
  size_t count = 0;
  if (DIR* dir = opendir(folder)) {
    while (readdir(dir) != nullptr) ++count;
    closedir(dir);
  }
  return count;
}

}  // namespace

void CheckRefusals() {
  Watching(6, "refusing a connection in on_accept");
  Transport* server = Transport::New();
  std::atomic<int> asked{0};
  server->on_accept = [&](End&) { return asked.fetch_add(1) != 0; };
  server->Listen();
  Transport* client = Transport::New();
  int32_t code = GF_OK;
  std::string text;
  End* refused = client->TryDial(server->address(), &code, &text);
  if (refused != nullptr) MustBeLost(refused, "a connection that was refused");
  End* end = client->Dial(server->address());
  End* other = server->AwaitAccepted();
  Watching(5, "refusing a frame in on_descriptor");
  other->on_descriptor = [](End&) { return GF_RESOURCE_EXHAUSTED; };
  Burst(end, 5);
  AwaitClosed(other, "a connection whose frame was refused");
  if (CodeOf(other) == GF_OK) Found(5, "a frame was refused, and on_closed has no error");
  if (World::Get([&] { return other->state.announced; }) != 2)
    Found(5, "a frame was announced after one that was refused");
  MustBeLost(end, "the sender of a frame that was refused");
  client->Finish();
  server->Finish();
}

void CheckCloses() {
  Watching(7, "close right after connect");
  Pair pair = Connected();
  int32_t code = GF_OK;
  std::string text;
  for (int i = 0; i < 8; ++i) {
    if (End* end = pair.client->TryDial(pair.server->address(), &code, &text)) {
      if (i % 2 == 1) end->Send({40, {100}, 1});
      end->Close();
      end->Close();
      MustBeOurs(end, "a connection closed right after connect");
    }
  }
  Watching(7, "close with sends in flight");
  Burst(pair.end, 20);
  pair.end->Close();
  if (pair.end->Send({40, {}, 1}) == GF_OK) Checked(7);  // it may be taken, and is then completed with an error
  pair.end->Close();
  MustBeOurs(pair.end, "a connection closed with sends in flight");
  MustBeLost(pair.other, "a connection closed by the peer");
  Finish(pair);

  Watching(7, "close from both sides at once");
  for (int i = 0; i < 5; ++i) {
    pair = Connected();
    Burst(pair.end, 3);
    Burst(pair.other, 3);
    std::thread thread([&] { pair.other->Close(); });
    pair.end->Close();
    thread.join();
    AwaitClosed(pair.end, "a connection closed from both sides");
    AwaitClosed(pair.other, "a connection closed from both sides");
    Finish(pair);
  }
}

void CheckNobody() {
  Watching(6, "connecting to nobody");
  Transport* gone = Transport::New();
  gone->Listen();
  gone->Finish();
  Transport* client = Transport::New();
  int32_t code = GF_OK;
  std::string text;
  for (int i = 0; i < 3; ++i) {
    End* end = client->TryDial(gone->address(), &code, &text);
    if (end == nullptr) {
      if (code != GF_UNAVAILABLE) Found(12, "connect to nobody failed with code " + std::to_string(code) + ": " + text);
      continue;
    }
    if (i > 0) Burst(end, 2);
    if (i > 1) end->Close();
    AwaitClosed(end, "a connection to nobody");
    if (i < 2 && CodeOf(end) != GF_UNAVAILABLE) {
      Found(6, "a connection to nobody ended with code " + std::to_string(CodeOf(end)) + ", not GF_UNAVAILABLE");
    }
  }
  client->Finish();
}

void CheckShutdown() {
  Watching(7, "shutdown of a transport that did nothing");
  Transport* idle = Transport::New();
  idle->Shutdown();
  idle->Shutdown();
  idle->AwaitOver();
  idle->Destroy();

  Watching(7, "shutdown with connections and frames in flight");
  Pair pair = Connected();
  End* second = pair.client->Dial(pair.server->address());
  Burst(pair.end, 20);
  Burst(pair.other, 20);
  Burst(second, 1);
  pair.server->Shutdown();
  pair.server->Shutdown();
  int32_t code = GF_OK;
  std::string text;
  if (pair.server->TryDial(pair.server->address(), &code, &text) != nullptr)
    Found(7, "connect succeeded after shutdown");
  if (pair.server->Listen("", &text) == GF_OK) Found(7, "listen succeeded after shutdown");
  pair.server->AwaitOver();
  pair.server->Shutdown();
  MustBeOurs(pair.other, "a connection of a transport that was shut down");
  MustBeLost(pair.end, "a connection whose peer was shut down");
  pair.server->Destroy();
  pair.client->Finish();

  Watching(7, "shutdown from several threads");
  pair = Connected();
  Burst(pair.end, 5);
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) threads.emplace_back([&] { pair.client->Shutdown(); });
  for (std::thread& thread : threads) thread.join();
  pair.client->AwaitOver();
  // Some time for what should not come.
  std::this_thread::sleep_for(milliseconds(50));
  pair.client->Destroy();
  pair.server->Finish();
}

void CheckSideBySide() {
  Watching(10, "four transports in one process");
  std::vector<Transport*> all;
  for (int i = 0; i < 4; ++i) {
    all.push_back(Transport::New());
    all.back()->on_accept = [](End& end) { return end.echo = true; };
    all.back()->Listen();
    for (int k = 0; k < i; ++k) {
      if (all[static_cast<size_t>(k)]->address() == all.back()->address())
        Found(10, "two transports listen at one address");
    }
  }
  std::vector<End*> ends;
  for (Transport* from : all) {
    for (Transport* to : all) ends.push_back(from->Dial(to->address()));  // itself, too
  }
  for (End* end : ends) end->Send({40, {100, 0, 70000}, 3});
  for (End* end : ends) {
    World::Await(10, "an echo by one of four transports", [&] { return end->state.arrived >= 1; });
  }
  // The end of one does not touch the others.
  all[0]->Finish();
  for (size_t i = 0; i < ends.size(); ++i) {
    if (i / 4 == 0 || i % 4 == 0) continue;
    ends[i]->Send({40, {5}, 4});
    World::Await(10, "an echo after another transport's end", [&] { return ends[i]->state.arrived >= 2; });
  }
  for (size_t i = 1; i < all.size(); ++i) all[i]->Finish();
}

void CheckLeaks() {
  Watching(14, "creating and destroying transports");
  size_t files = 0;
  size_t threads = 0;
  constexpr int kWarmUp = 2;
  constexpr int kRounds = 6;
  for (int i = 0; i < kWarmUp + kRounds; ++i) {
    if (i == kWarmUp) {
      files = EntriesOf("/proc/self/fd");
      threads = EntriesOf("/proc/self/task");
    }
    Pair pair = Connected();
    Burst(pair.end, 2);
    AwaitArrived(pair.other, 2, "the accepting end");
    Finish(pair);
  }
  auto grown = [&](const char* folder, size_t before) { return EntriesOf(folder) >= before + kRounds; };
  if (grown("/proc/self/fd", files)) Found(14, "every transport leaves files open behind it");
  if (grown("/proc/self/task", threads)) Found(14, "every transport leaves a thread behind it");

  Watching(14, "opening and closing connections");
  Pair pair = Connected();
  files = EntriesOf("/proc/self/fd");
  constexpr int kConnections = 12;
  for (int i = 0; i < kConnections; ++i) {
    End* end = pair.client->Dial(pair.server->address());
    End* other = pair.server->AwaitAccepted(static_cast<size_t>(i) + 1);
    end->Close();
    AwaitClosed(end, "a connection");
    AwaitClosed(other, "a connection");
  }
  const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(World::patience);
  while (EntriesOf("/proc/self/fd") >= files + kConnections && std::chrono::steady_clock::now() < limit) {
    std::this_thread::sleep_for(milliseconds(10));
  }
  if (EntriesOf("/proc/self/fd") >= files + kConnections) Found(14, "every connection leaves a file open behind it");
  Checked(14, 3);
  Note(14, "threads and files are counted, memory is not");
  Finish(pair);
}

void CheckTime() {
  if ((Transport::descriptor().capabilities & GF_TRANSPORT_CAP_TIME) == 0)
    return DoesNotApply(13, "it does not own time");
  Watching(13, "timers");
  const gf_transport_vtable& table = Transport::vtable();
  Transport* transport = Transport::New();
  transport->Listen();
  auto now = [&] { return Call<uint64_t>("now", 0, [&] { return table.now(transport->self()); }); };
  auto set = [&](uint64_t timer, uint64_t at) {
    Call("timer_set", [&] { table.timer_set(transport->self(), timer, at); });
  };
  auto hold = [&](int32_t delta) { Call("hold", [&] { table.hold(transport->self(), delta); }); };
  std::array<uint64_t, 8> due{};
  std::array<std::atomic<int>, 8> came{};
  transport->on_timer = [&](uint64_t timer) {
    if (timer >= due.size()) return Found(13, "on_timer came for a timer that was not set");
    if (now() < due[timer]) Found(13, "on_timer came before its time");
    if (came[timer].fetch_add(1) != 0) Found(13, "on_timer came twice for one timer");
    World::Update([] {});
  };
  auto await = [&](size_t timer) { World::Await(13, "on_timer", [&] { return came[timer].load() != 0; }); };

  // Held, so that no time passes between now and timer_set where it is not the machine's.
  hold(1);
  for (uint64_t timer : {1, 2, 3}) due[timer] = now() + timer * 5000000;
  set(3, due[3]);
  set(1, due[1]);
  set(2, due[2]);
  Call("timer_cancel", [&] { table.timer_cancel(transport->self(), 2); });
  Call("timer_cancel", [&] { table.timer_cancel(transport->self(), 2); });
  Call("timer_cancel", [&] { table.timer_cancel(transport->self(), 99); });
  hold(-1);
  await(1);
  await(3);
  if (came[2] != 0) Found(13, "on_timer came after timer_cancel had returned");

  uint64_t last = now();
  for (int i = 0; i < 1000; ++i) {
    const uint64_t next = now();
    if (next < last) Found(13, "now went back");
    last = next;
  }
  // Does it stand still while it is held? Then it is not the machine's, and must go on standing still.
  hold(1);
  const uint64_t before = now();
  std::this_thread::sleep_for(milliseconds(20));
  const bool own = now() == before;
  if (own) {
    due[4] = before + 1;
    set(4, due[4]);
    due[5] = before + 3600ull * 1000000000;
    set(5, due[5]);
    hold(1);
    hold(-1);
    std::this_thread::sleep_for(milliseconds(100));
    if (came[4] != 0 || now() != before) Found(13, "time went on while the host held it");
  }
  hold(-1);
  if (own) {
    await(4);
    await(5);  // an hour, at once
  }
  Note(13, own ? "its time is its own" : "its time is the machine's");
  due[6] = now() + 3600ull * 1000000000;
  if (!own) set(6, due[6]);
  transport->Finish();
  if (!own && came[6] != 0) Found(13, "on_timer came for a timer of a transport that was shut down");
  Checked(13, 6);
}

}  // namespace gradferry::check
