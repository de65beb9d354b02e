// Scenario: threads that wait lend themselves to connections (GF-TRN-15). They are never joined, so that one that does
// not return is a finding and no hang.
#include <atomic>
#include <chrono>
#include <memory>
#include <thread>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr uint64_t kNever = UINT64_MAX;

uint64_t Now() { return static_cast<uint64_t>(Clock::now().time_since_epoch().count()); }

template <class Condition>
bool Becomes(Condition condition) {
  const auto limit = Clock::now() + std::chrono::duration<double>(World::patience);
  while (!condition()) {
    if (Clock::now() > limit) return false;
    std::this_thread::sleep_for(milliseconds(1));
  }
  return true;
}

// Ends the scenario when it does not.
template <class Condition>
void MustBecome(const std::string& what, Condition condition) {
  Watching(15, "waiting: " + what);
  Checked(15);
  if (Becomes(condition)) return;
  Found(15, what + " within " + std::to_string(static_cast<int>(World::patience)) + " s");
  throw ScenarioOver();
}

bool Ended(End* end) {
  return World::Get([&] { return end->state.closed != 0; });
}

uint64_t Arrived(End* end) {
  return World::Get([&] { return end->state.arrived; });
}

// A thread that drives an end, again and again as drive may return early, until it has enough or the end has ended.
struct Driver {
  std::atomic<bool> enough{false};
  std::atomic<uint64_t> asked{0};
  std::atomic<uint64_t> returned{0};
  std::atomic<bool> over{false};
};

std::shared_ptr<Driver> StartDriver(End* end) {
  auto driver = std::make_shared<Driver>();
  std::thread([driver, end] {
    while (!driver->enough && !Ended(end)) {
      end->Drive(kNever, [&] {
        ++driver->asked;
        return driver->enough.load();
      });
      ++driver->returned;
      std::this_thread::yield();
    }
    driver->over = true;
  }).detach();
  return driver;
}

void Stop(End* end, const std::shared_ptr<Driver>& driver) {
  driver->enough = true;
  end->Wake();
  MustBecome("drive did not ask done again after wake, and return", [&] { return driver->over.load(); });
}

void Run(const std::string& failure, const std::function<void()>& body) {
  auto over = std::make_shared<std::atomic<bool>>(false);
  std::thread([over, body] {
    body();
    *over = true;
  }).detach();
  MustBecome(failure, [&] { return over->load(); });
}

struct Pair {
  Transport* server = Transport::New();
  Transport* client = Transport::New();
  End* end = nullptr;    // dialled
  End* other = nullptr;  // accepted
};

Pair Connected(bool echo = false) {
  Pair pair;
  pair.server->on_accept = [echo](End& end) {
    end.echo = echo;
    return true;
  };
  pair.server->Listen();
  pair.end = pair.client->Dial(pair.server->address());
  pair.other = pair.server->AwaitAccepted();
  return pair;
}

void Finish(const Pair& pair) {
  pair.client->Finish();
  pair.server->Finish();
}

// Each answer ends the wait for it, on whichever thread it comes; the host calls functions within it.
void CheckAnswers() {
  constexpr uint64_t kQuestions = 300;
  const Pair pair = Connected(true);
  End* end = pair.end;
  auto here = std::make_shared<std::atomic<uint64_t>>(0);
  auto driving = std::make_shared<std::atomic<std::thread::id>>();
  end->on_frame = [=](End& each) {
    if (std::this_thread::get_id() == *driving) ++*here;
    each.Peer();
    each.Wake();
    pair.client->Stats();
  };
  Run("drive did not return when done was true from the start", [end] { end->Drive(kNever, [] { return true; }); });
  Run("drive did not return when what was waited for had come", [=] {
    *driving = std::this_thread::get_id();
    for (uint64_t i = 1; i <= kQuestions; ++i) {
      end->Send({40, {i % 50 == 0 ? 1000000 : i}, i});
      while (Arrived(end) < i && !Ended(end)) {
        end->Drive(kNever, [&] { return Arrived(end) >= i; });
        std::this_thread::yield();
      }
    }
  });
  AwaitCompleted(end, "a connection that is driven");
  Note(15, std::to_string(*here) + " of " + std::to_string(kQuestions) + " answers came on the thread that waited");
  Finish(pair);
}

void CheckLettingGo() {
  const Pair pair = Connected();
  for (int i = 0; i < 20; ++i) {
    const auto driver = StartDriver(pair.end);
    MustBecome("drive did not ask done", [&] { return driver->asked != 0; });
    if (i % 4 == 0) std::this_thread::sleep_for(milliseconds(20));  // until it sleeps, perhaps
    Stop(pair.end, driver);
  }
  pair.end->Wake();  // nobody
  End* end = pair.end;
  Run("drive did not return when its time was over", [end] {
    const uint64_t until = Now() + 30000000;
    while (Now() < until) end->Drive(until, [] { return false; });
    end->Drive(until, [] { return false; });
  });
  // A second thread. Which of the two drives is the plugin's choice, and either may return early.
  for (int i = 0; i < 5; ++i) {
    const auto first = StartDriver(end);
    MustBecome("drive did not ask done", [&] { return first->asked != 0; });
    const uint64_t before = first->returned;
    auto second = std::make_shared<Driver>();
    std::thread([=] {
      end->Drive(kNever, [&] { return second->enough.load(); });
      second->over = true;
    }).detach();
    MustBecome("with two threads in drive, neither returned",
               [&] { return second->over || first->returned != before; });
    second->enough = true;
    Stop(end, first);
    Stop(end, second);
  }
  Finish(pair);
}

// Both ends are driven, and large frames go both ways, more than the network holds at a time.
void CheckTraffic() {
  const Pair pair = Connected();
  const auto first = StartDriver(pair.end);
  const auto second = StartDriver(pair.other);
  constexpr uint64_t kFrames = 30;
  std::thread answers([&] {
    for (uint64_t i = 0; i < kFrames; ++i) pair.other->Send({40, {900000, 0, i}, i});
  });
  for (uint64_t i = 0; i < kFrames; ++i) pair.end->Send({40, {900000, 0, i}, 100 + i});
  answers.join();
  AwaitArrived(pair.other, kFrames, "an accepting end that is driven");
  AwaitArrived(pair.end, kFrames, "a dialling end that is driven");
  AwaitCompleted(pair.end, "a dialling end that is driven");
  AwaitCompleted(pair.other, "an accepting end that is driven");
  Stop(pair.end, first);
  Stop(pair.other, second);
  Finish(pair);
}

void AwaitEnd(End* end, const std::shared_ptr<Driver>& driver, const std::string& ended) {
  MustBecome("on_closed did not come to a connection that is driven, " + ended, [&] { return Ended(end); });
  MustBecome("drive did not return, " + ended, [&] { return driver->over.load(); });
}

// The driver comes again while on_closed is delivered.
std::shared_ptr<Driver> StartDriverToTheEnd(End* end) {
  auto driver = std::make_shared<std::shared_ptr<Driver>>();
  end->on_closed = [driver](End&) {
    const uint64_t before = (*driver)->returned;
    if (!(*driver)->over) Becomes([&] { return (*driver)->returned > before + 1; });
  };
  *driver = StartDriver(end);
  MustBecome("drive did not ask done", [&] { return (*driver)->asked != 0; });
  return *driver;
}

void CheckEnds() {
  const struct {
    const char* name;
    void (*end)(const Pair&);
  } ends[] = {
      {"closed by another thread", [](const Pair& pair) { pair.end->Close(); }},
      {"closed by the peer", [](const Pair& pair) { pair.other->Close(); }},
      {"when its transport was shut down", [](const Pair& pair) { pair.client->Shutdown(); }},
      {"when the peer's transport was shut down", [](const Pair& pair) { pair.server->Shutdown(); }},
      {"closed within an event",
       [](const Pair& pair) {
         pair.other->Send({40, {5}, 1});
       }},
      {"closed with frames on their way",
       [](const Pair& pair) {
         for (uint64_t i = 0; i < 10; ++i) pair.end->Send({40, {500000}, i});
         pair.end->Close();
       }},
  };
  for (const auto& each : ends) {
    const Pair pair = Connected();
    pair.end->on_frame = [](End& end) { end.Close(); };
    const auto driver = StartDriverToTheEnd(pair.end);
    std::this_thread::sleep_for(milliseconds(5));
    each.end(pair);
    AwaitEnd(pair.end, driver, each.name);
    Finish(pair);
  }
}

// A connection that is not open yet, and one that never is.
void CheckNotOpen() {
  const Pair pair = Connected();
  Transport* gone = Transport::New();
  gone->Listen();
  gone->Finish();
  for (const bool there : {true, false}) {
    int32_t code = GF_OK;
    std::string text;
    End* end = pair.client->TryDial(there ? pair.server->address() : gone->address(), &code, &text);
    if (end == nullptr) continue;
    const auto driver = StartDriver(end);
    if (there) end->Close();
    AwaitEnd(end, driver, there ? "closed right after connect" : "with nobody there");
  }
  Finish(pair);
}

}  // namespace

void CheckDrive() {
  const gf_transport_vtable& table = Transport::vtable();
  if (table.drive == nullptr && table.wake == nullptr) return DoesNotApply(15, "it has no drive");
  if (table.drive == nullptr || table.wake == nullptr) return;  // the descriptor's scenario says so
  CheckAnswers();
  CheckLettingGo();
  CheckTraffic();
  CheckEnds();
  CheckNotOpen();
}

}  // namespace gradferry::check
