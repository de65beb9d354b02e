#include "plugins/tensorpipe/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "plugins/tensorpipe/options.h"

namespace gradferry::tp {
namespace {

// An abstract socket's name: sun_path less the NUL in front.
constexpr size_t kMaxShmName = sizeof(sockaddr_un::sun_path) - 1;

Status Invalid(std::string_view text, const std::string& why) {
  return {GF_INVALID_ARGUMENT, "the address \"" + std::string(text) + "\" " + why};
}

bool ParsePort(std::string_view text, int* port) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *port);
  return error == std::errc() && stop == end && *port >= 0 && *port <= 65535;
}

struct Ip {
  bool v6 = false;
  std::array<unsigned char, 16> bytes{};
};

// A scope ("fe80::1%eth0") is left to TensorPipe.
bool ParseIp(const std::string& text, Ip* out) {
  out->v6 = text.find(':') != std::string::npos;
  const std::string bare = out->v6 ? text.substr(0, text.find('%')) : text;
  return inet_pton(out->v6 ? AF_INET6 : AF_INET, bare.c_str(), out->bytes.data()) == 1;
}

// The four bytes of an IPv4 address, or of one mapped into IPv6; null for other IPv6 addresses.
const unsigned char* V4Bytes(const Ip& ip) {
  if (!ip.v6) return ip.bytes.data();
  static constexpr std::array<unsigned char, 12> kMapped = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF};
  return std::equal(kMapped.begin(), kMapped.end(), ip.bytes.begin()) ? ip.bytes.data() + 12 : nullptr;
}

bool IsZero(const Ip& ip) {
  const unsigned char* v4 = V4Bytes(ip);
  const unsigned char* first = v4 != nullptr ? v4 : ip.bytes.data();
  return std::all_of(first, first + (v4 != nullptr ? 4 : 16), [](unsigned char byte) { return byte == 0; });
}

bool IsMulticast(const Ip& ip) {
  const unsigned char* v4 = V4Bytes(ip);
  return v4 != nullptr ? v4[0] >= 224 : ip.bytes[0] == 0xFF;
}

// "1.2.3.4:5", "[::1]:5", and for listening also without a port.
Status ParseHostAndPort(std::string_view text, std::string_view rest, AddressUse use, Address* out) {
  std::string_view port;
  bool has_port = false;
  if (!rest.empty() && rest.front() == '[') {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return Invalid(text, "lacks a ']'");
    out->host = std::string(rest.substr(1, close - 1));
    rest.remove_prefix(close + 1);
    has_port = !rest.empty();
    if (has_port && rest.front() != ':') return Invalid(text, "has something else than a port after ']'");
    port = has_port ? rest.substr(1) : rest;
  } else {
    const size_t colon = rest.find(':');
    out->host = std::string(rest.substr(0, colon));
    has_port = colon != std::string_view::npos;
    if (has_port) port = rest.substr(colon + 1);
  }
  Ip ip;
  if (!ParseIp(out->host, &ip)) {
    return Invalid(text, "needs a numeric IP (IPv6 in brackets), for TensorPipe resolves no names");
  }
  if (has_port && !ParsePort(port, &out->port)) return Invalid(text, "needs a port from 0 to 65535");
  if (use == AddressUse::kConnect && out->port == 0) return Invalid(text, "names no port to connect to");
  if (IsZero(ip)) return Invalid(text, "names no interface, but peers connect back to the address itself");
  if (IsMulticast(ip)) return Invalid(text, "is not the address of one machine");
  return {};
}

Status ParseName(std::string_view text, std::string_view rest, AddressUse use, Address* out) {
  if (rest.size() > kMaxShmName) return Invalid(text, "is too long for a socket's name");
  if (rest.find('\0') != std::string_view::npos) return Invalid(text, "has a NUL in its name");
  if (use == AddressUse::kConnect && rest.empty()) return Invalid(text, "names no socket to connect to");
  out->name = std::string(rest);
  return {};
}

std::vector<std::string> SplitAtCommas(std::string_view text) {
  std::vector<std::string> words;
  for (;;) {
    const size_t comma = text.find(',');
    words.emplace_back(text.substr(0, comma));
    if (comma == std::string_view::npos) return words;
    text.remove_prefix(comma + 1);
  }
}

}  // namespace

bool Address::IsLoopback() const {
  if (is_shm()) return true;
  Ip ip;
  if (!ParseIp(host, &ip)) return false;
  if (const unsigned char* v4 = V4Bytes(ip)) return v4[0] == 127;
  return std::equal(in6addr_loopback.s6_addr, in6addr_loopback.s6_addr + 16, ip.bytes.begin());
}

std::string Address::Url() const {
  if (is_shm()) return scheme + "://" + name;
  const bool v6 = host.find(':') != std::string::npos;
  return scheme + "://" + (v6 ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

Status ParseAddress(std::string_view text, AddressUse use, Address* out) {
  Address address;
  address.text = std::string(text);
  std::string_view rest = text;
  if (const size_t hash = rest.find('#'); hash != std::string_view::npos) {
    address.has_channels = true;
    address.channels = SplitAtCommas(rest.substr(hash + 1));
    std::sort(address.channels.begin(), address.channels.end());
    rest = rest.substr(0, hash);
  }
  const size_t colon = rest.find("://");
  if (colon == std::string_view::npos) return Invalid(text, "lacks its transport: uv://, shm:// or ibv://");
  address.scheme = std::string(rest.substr(0, colon));
  rest.remove_prefix(colon + 3);
  if (address.scheme != "uv" && address.scheme != "shm" && address.scheme != "ibv") {
    return Invalid(text, "has an unknown transport; there are uv://, shm:// and ibv://");
  }
  const Status status =
      address.is_shm() ? ParseName(text, rest, use, &address) : ParseHostAndPort(text, rest, use, &address);
  if (status.ok()) *out = std::move(address);
  return status;
}

std::string AddressText(const std::string& url, const std::vector<std::string>& channels) {
  return url + "#" + Join(channels, ",");
}

}  // namespace gradferry::tp
