// Scenarios with something outside this process: a peer in another one, which vanishes; strangers at the listener.
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <random>
#include <thread>

#include "gradferry/gradferry.h"
#include "tools/plugin_check/calls.h"
#include "tools/plugin_check/plugin.h"
#include "tools/plugin_check/scenarios.h"
#include "tools/plugin_check/shim.h"

namespace gradferry::check {
namespace {

// ---- A peer in another process ----

std::string ReadLine(int fd) {
  std::string line;
  for (char c; read(fd, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

void WriteLine(int fd, const std::string& line) {
  const std::string text = line + "\n";
  if (write(fd, text.data(), text.size()) < 0) Found(6, "the check cannot reach its own process");
}

[[noreturn]] void RunPeer(const Settings& settings, int in, int out) {
  WatchBlocks();
  std::string error;
  const gf_transport_entry entry = LoadEntry(settings.file, &error);
  const gf_transport_descriptor* descriptor = entry == nullptr ? nullptr : Enter(entry, &error);
  if (descriptor == nullptr) _exit(0);
  try {
    Transport::SetPlugin(descriptor, settings.options, settings.address);
    StartWatchdog(settings.call_limit);
    Transport* transport = Transport::New();
    transport->on_accept = [](End& end) { return end.echo = true; };
    transport->Listen();
    WriteLine(out, transport->address());
    for (std::string address; !(address = ReadLine(in)).empty();) {
      End* end = transport->Dial(address, true);
      for (uint64_t i = 0; i < 3; ++i) end->Send({40, {10, 300000}, i});
    }
    for (;;) pause();
  } catch (const ScenarioOver&) {
  }
  _exit(0);
}

// ---- Strangers ----

struct Target {
  sockaddr_storage address{};
  socklen_t length = 0;
  std::vector<int> types;
};

bool ParsePort(const std::string& text, in_port_t* port) {
  const unsigned long number = std::strtoul(text.c_str(), nullptr, 10);
  if (number == 0 || number > 65535) return false;
  *port = htons(static_cast<in_port_t>(number));
  return true;
}

// Where the IP of an address text begins and ends, for "x://1.2.3.4:5" and "x://[::1]:5".
bool FindIp(const std::string& text, size_t* begin, size_t* end, bool* v6) {
  const size_t bracket = text.find('[');
  *v6 = bracket != std::string::npos;
  if (*v6) {
    *begin = bracket + 1;
    *end = text.find(']', bracket);
    return *end != std::string::npos;
  }
  for (*begin = text.find_first_of("0123456789"); *begin != std::string::npos;
       *begin = text.find_first_of("0123456789", *end)) {
    *end = std::min(text.find_first_not_of("0123456789.", *begin), text.size());
    in_addr ip;
    if (inet_pton(AF_INET, text.substr(*begin, *end - *begin).c_str(), &ip) == 1) return true;
  }
  return false;
}

bool FindUnix(const std::string& text, Target* target) {
  auto* un = reinterpret_cast<sockaddr_un*>(&target->address);
  un->sun_family = AF_UNIX;
  target->types = {SOCK_STREAM, SOCK_SEQPACKET};
  size_t begin = text.find('@');
  const bool abstract = begin != std::string::npos;
  for (begin = abstract ? begin : text.find('/'); begin != std::string::npos; begin = text.find('/', begin + 1)) {
    const std::string name = text.substr(begin, text.find_first_of(" #?", begin) - begin);
    if (name.size() < 2 || name.size() >= sizeof(un->sun_path)) continue;
    std::memcpy(un->sun_path, name.c_str(), name.size() + 1);
    target->length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + name.size() + (abstract ? 0 : 1));
    if (abstract) un->sun_path[0] = '\0';
    struct stat facts;
    if (abstract || (stat(name.c_str(), &facts) == 0 && S_ISSOCK(facts.st_mode))) return true;
  }
  return false;
}

bool FindTarget(const std::string& text, Target* target) {
  size_t begin = 0;
  size_t end = 0;
  bool v6 = false;
  if (!FindIp(text, &begin, &end, &v6)) return FindUnix(text, target);
  const size_t colon = text.find(':', end);
  if (colon == std::string::npos) return false;
  target->types = {SOCK_STREAM};
  const std::string ip = text.substr(begin, end - begin);
  if (v6) {
    auto* in = reinterpret_cast<sockaddr_in6*>(&target->address);
    in->sin6_family = AF_INET6;
    target->length = sizeof(*in);
    return inet_pton(AF_INET6, ip.c_str(), &in->sin6_addr) == 1 && ParsePort(text.substr(colon + 1), &in->sin6_port);
  }
  auto* in = reinterpret_cast<sockaddr_in*>(&target->address);
  in->sin_family = AF_INET;
  target->length = sizeof(*in);
  return inet_pton(AF_INET, ip.c_str(), &in->sin_addr) == 1 && ParsePort(text.substr(colon + 1), &in->sin_port);
}

int ConnectRaw(const Target& target) {
  for (int type : target.types) {
    const int fd = socket(target.address.ss_family, type | SOCK_CLOEXEC, 0);
    if (connect(fd, reinterpret_cast<const sockaddr*>(&target.address), target.length) == 0) return fd;
    close(fd);
  }
  return -1;
}

struct Garbage {
  const char* name;
  std::string bytes;
};

std::vector<Garbage> AllGarbage() {
  std::mt19937 random(1);
  std::string noise(100000, '\0');
  for (char& byte : noise) byte = static_cast<char>(random());
  const std::string zeros(5000, '\0');
  return {
      {"nothing", ""},
      {"one byte", "x"},
      {"a length of 4 and four bytes", std::string("\4\0\0\0\0\0\0\0\xff\xff\xff\xff", 12)},
      {"a length of 2^62", std::string("\0\0\0\0\0\0\0\x40", 8)},
      {"a length of 2^31 - 1, big endian", std::string("\x7f\xff\xff\xff", 4) + "abcdefgh"},
      {"a length of 2^32 - 1", std::string("\xff\xff\xff\xff\0\0\0\0", 8) + "abcdefgh"},
      {"zeros", zeros},
      {"an HTTP request", "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"},
      {"the hello of TLS", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + noise.substr(0, 500)},
      {"noise", noise},
  };
}

// An honest connection: the listener may need a moment to come back, maybe elsewhere.
End* DialHonestly(Transport* client, Transport* server, const char* after) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::duration<double>(World::patience);
  do {
    const std::string address =
        World::Get([&] { return server->addresses.empty() ? server->address() : server->addresses.back(); });
    int32_t code = GF_OK;
    std::string text;
    End* end = client->TryDial(address, &code, &text);
    if (end != nullptr) {
      end->Send({40, {100}, 1});
      auto answered = [&] { return end->state.arrived >= 1; };
      auto settled = [&] { return answered() || end->state.closed != 0; };
      while (!World::Get(settled) && std::chrono::steady_clock::now() < limit) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
      if (World::Get(answered)) return end;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  } while (std::chrono::steady_clock::now() < limit);
  Found(8, std::string("nobody could connect any more after ") + after);
  throw ScenarioOver();
}

// Replaces the IP in an address.
std::string WithIp(const std::string& text, const std::string& ip) {
  size_t begin = 0;
  size_t end = 0;
  bool v6 = false;
  if (!FindIp(text, &begin, &end, &v6) || v6) return "";
  std::string out = text.substr(0, begin) + ip;
  if (end < text.size() && text[end] == ':') out += ":0";
  return out;
}

// The IP of an interface that others can reach; empty when there is none.
std::string OutsideIp() {
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return "";
  std::string found;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || each->ifa_addr->sa_family != AF_INET) continue;
    const in_addr ip = reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr;
    if ((ntohl(ip.s_addr) >> 24) != 127) found = inet_ntoa(ip);
  }
  freeifaddrs(list);
  return found;
}

bool TrustedOnly() { return (Transport::descriptor().capabilities & GF_TRANSPORT_CAP_TRUSTED_NETWORK_ONLY) != 0; }

}  // namespace

PeerProcess StartPeer(const Settings& settings) {
  int to[2];
  int from[2];
  if (pipe(to) != 0 || pipe(from) != 0) return {};
  PeerProcess peer;
  peer.pid = fork();
  if (peer.pid == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(to[1]);
    close(from[0]);
    RunPeer(settings, to[0], from[1]);
  }
  close(to[0]);
  close(from[1]);
  peer.to = to[1];
  peer.from = from[0];
  return peer;
}

std::vector<PeerProcess>& Peers() {
  static auto* const peers = new std::vector<PeerProcess>;
  return *peers;
}

void CheckOtherProcess() {
  if ((Transport::descriptor().capabilities & GF_TRANSPORT_CAP_SAME_PROCESS) != 0) return;
  auto kill_peer = [](size_t index) {
    kill(Peers()[index].pid, SIGKILL);
    int status = 0;
    waitpid(Peers()[index].pid, &status, 0);
  };
  auto must_be_lost = [](End* end, const char* which) {
    AwaitClosed(end, which);
    if (World::Get([&] { return end->state.code; }) == GF_OK) Found(6, std::string(which) + ": on_closed has no error");
  };
  std::vector<std::string> addresses;
  Watching(3, "waiting for a peer in another process to listen");
  for (const PeerProcess& peer : Peers()) addresses.push_back(ReadLine(peer.from));
  if (addresses[0].empty()) {
    Found(10, "the plugin could not be used in a second process");
    return;
  }

  Watching(5, "sending frames to another process");
  Transport* client = Transport::New();
  End* end = client->Dial(addresses[0], true);
  uint64_t count = 0;
  for (const Shape& shape : ManyShapes(Transport::descriptor().max_header)) count += end->Send(shape) == GF_OK ? 1 : 0;
  AwaitArrived(end, count, "the end whose peer is another process");
  kill_peer(0);
  must_be_lost(end, "a connection whose peer was killed");

  Watching(6, "a peer that is killed while frames are sent to it");
  end = client->Dial(addresses[1], true);
  for (uint64_t i = 0; i < 30; ++i) end->Send({40, {1000000, 5}, i});
  World::Await(3, "the first of many frames", [&] { return end->state.arrived >= 1; });
  kill_peer(1);
  must_be_lost(end, "a connection whose peer was killed");

  Watching(6, "a peer that has dialled and is killed");
  Transport* server = Transport::New();
  server->on_accept = [](End& each) { return each.echo = true; };
  server->Listen();
  WriteLine(Peers()[2].to, server->address());
  End* other = server->AwaitAccepted();
  AwaitArrived(other, 3, "the end that another process has dialled");
  kill_peer(2);
  must_be_lost(other, "an accepted connection whose peer was killed");
  client->Finish();
  server->Finish();
}

void CheckGarbage() {
  Watching(8, "strangers at the listener");
  Transport* server = Transport::New();
  server->on_accept = [](End& end) { return end.echo = true; };
  server->Listen();
  Transport* client = Transport::New();
  Target target;
  if (!FindTarget(server->address(), &target)) {
    Note(8, "its address is neither an IP with a port nor a Unix socket: not tested");
    return;
  }
  const bool harmless = TrustedOnly();
  End* before = harmless ? nullptr : DialHonestly(client, server, "nothing");
  std::vector<int> open;
  for (const Garbage& garbage : AllGarbage()) {
    if (harmless && !garbage.bytes.empty()) continue;
    Watching(8, std::string("a stranger sends ") + garbage.name);
    for (bool leave : {true, false}) {
      if (harmless && !leave) continue;
      const int fd = ConnectRaw(target);
      if (fd < 0) {
        if (!harmless) Found(8, std::string("the listener has gone before a stranger could send ") + garbage.name);
        continue;
      }
      // A stranger does not wait for somebody to read.
      if (!garbage.bytes.empty() &&
          send(fd, garbage.bytes.data(), garbage.bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        Checked(8);
      }
      if (leave) {
        close(fd);
      } else {
        open.push_back(fd);
      }
    }
    DialHonestly(client, server, (std::string("a stranger had sent ") + garbage.name).c_str());
    Checked(8);
  }
  if (before != nullptr) {
    before->Send({40, {7}, 9});
    World::Await(8, "a frame on a connection from before", [&] { return before->state.arrived >= 2; });
  }
  Note(8, harmless ? "for trusted networks only: strangers came and went, and sent nothing"
                   : "ten kinds of garbage, over raw sockets");
  client->Finish();
  server->Finish();
  for (int fd : open) close(fd);
}

void CheckReach() {
  if (!TrustedOnly()) return;
  Watching(8, "listening beyond loopback");
  Transport* server = Transport::New();
  server->Listen();
  for (const std::string& ip : {OutsideIp(), std::string("0.0.0.0")}) {
    const std::string address = ip.empty() ? "" : WithIp(server->address().substr(0, server->address().find('#')), ip);
    if (address.empty()) continue;
    Transport* other = Transport::New();
    std::string text;
    if (other->Listen(address, &text) == GF_OK)
      Found(8, "it listens at " + address + " without trusted_network = true");
    Checked(8);
    other->Finish();
  }
  server->Finish();
}

}  // namespace gradferry::check
