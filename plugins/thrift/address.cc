#include "plugins/thrift/address.h"

#include <arpa/inet.h>

#include <algorithm>
#include <charconv>
#include <cstring>

namespace gradferry::thrift {
namespace {

constexpr size_t kMaxPath = sizeof(sockaddr_un::sun_path) - 1;

Status Invalid(std::string_view text, const std::string& why) {
  return {GF_INVALID_ARGUMENT, "the address \"" + std::string(text) + "\" " + why};
}

bool ParsePort(std::string_view text, int* port) {
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, *port);
  return error == std::errc() && stop == end && *port >= 0 && *port <= 65535;
}

// The four bytes of an IPv4 address, or of one mapped into IPv6; null for other IPv6 addresses.
const unsigned char* V4Bytes(const Address& address) {
  const unsigned char* bytes = address.ip.s6_addr;
  if (!address.v6) return bytes;
  return IN6_IS_ADDR_V4MAPPED(&address.ip) ? bytes + 12 : nullptr;
}

// "1.2.3.4:5", "[::1]:5".
Status ParseHostAndPort(std::string_view rest, AddressUse use, Address* out) {
  const std::string& text = out->text;
  const size_t colon = rest.rfind(':');
  const bool bracketed = !rest.empty() && rest.front() == '[';
  if (colon == std::string_view::npos || (bracketed && colon < rest.rfind(']'))) {
    return Invalid(text, "lacks a port (0 lets the system pick one)");
  }
  std::string_view host = rest.substr(0, colon);
  if (bracketed) {
    if (host.size() < 2 || host.back() != ']') return Invalid(text, "lacks a ']' before the port");
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return Invalid(text, "needs brackets around its IPv6 address");
  }
  if (!ParseIp(host, out).ok() || out->v6 != bracketed) {
    return Invalid(text, "needs a numeric IP (IPv6 in brackets); names are not looked up");
  }
  if (!ParsePort(rest.substr(colon + 1), &out->port)) return Invalid(text, "needs a port from 0 to 65535");
  if (use == AddressUse::kConnect && out->port == 0) return Invalid(text, "names no port to connect to");
  if (use == AddressUse::kConnect && out->IsAnyInterface()) return Invalid(text, "is not the address of a machine");
  const unsigned char* v4 = V4Bytes(*out);
  if (v4 != nullptr ? v4[0] >= 224 : out->ip.s6_addr[0] == 0xFF) {
    return Invalid(text, "is not the address of one machine");
  }
  return {};
}

Status ParsePath(std::string_view rest, AddressUse use, Address* out) {
  const std::string& text = out->text;
  if (rest.empty() && use == AddressUse::kConnect) return Invalid(text, "names no socket to connect to");
  if (!rest.empty() && rest.front() != '/') return Invalid(text, "needs an absolute path: unix:///path");
  if (rest.find('\0') != std::string_view::npos) return Invalid(text, "has a NUL in its path");
  if (rest.size() > kMaxPath) {
    return Invalid(text, "has a path of " + std::to_string(rest.size()) + " bytes; a socket's has at most " +
                             std::to_string(kMaxPath));
  }
  out->path = std::string(rest);
  return {};
}

}  // namespace

bool Address::IsLoopback() const {
  if (is_unix()) return true;
  if (const unsigned char* v4 = V4Bytes(*this)) return v4[0] == 127;
  return IN6_IS_ADDR_LOOPBACK(&ip);
}

bool Address::IsAnyInterface() const {
  if (is_unix()) return false;
  if (const unsigned char* v4 = V4Bytes(*this)) return std::all_of(v4, v4 + 4, [](unsigned char b) { return b == 0; });
  return IN6_IS_ADDR_UNSPECIFIED(&ip);
}

Status ParseAddress(std::string_view text, AddressUse use, Address* out) {
  Address address;
  address.text = std::string(text);
  const size_t separator = text.find("://");
  const std::string_view scheme = text.substr(0, separator);
  const std::string_view rest = separator == std::string_view::npos ? "" : text.substr(separator + 3);
  Status status;
  if (separator != std::string_view::npos && scheme == "unix") {
    status = ParsePath(rest, use, &address);
  } else if (separator != std::string_view::npos && (scheme == "tcp" || scheme == "tls")) {
    address.scheme = scheme == "tcp" ? Scheme::kTcp : Scheme::kTls;
    status = ParseHostAndPort(rest, use, &address);
  } else {
    status = Invalid(text, "is not of the form unix:///PATH, tcp://IP:PORT or tls://IP:PORT");
  }
  if (status.ok()) *out = std::move(address);
  return status;
}

Status ParseIp(std::string_view text, Address* address) {
  const std::string bare(text);
  address->v6 = bare.find(':') != std::string::npos;
  address->ip = {};
  if (bare.find('\0') == std::string::npos &&
      inet_pton(address->v6 ? AF_INET6 : AF_INET, bare.c_str(), &address->ip) == 1) {
    return {};
  }
  return {GF_INVALID_ARGUMENT, "\"" + bare + "\" is not a numeric IP"};
}

std::string AddressText(const Address& address) {
  if (address.is_unix()) return "unix://" + address.path;
  return (address.scheme == Scheme::kTcp ? "tcp://" : "tls://") + Describe(ToSocketAddress(address));
}

SocketAddress ToSocketAddress(const Address& address) {
  SocketAddress out;
  if (address.is_unix()) {
    auto* un = reinterpret_cast<sockaddr_un*>(&out.storage);
    un->sun_family = AF_UNIX;
    std::memcpy(un->sun_path, address.path.c_str(), address.path.size() + 1);
    out.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address.path.size() + 1);
  } else if (address.v6) {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&out.storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_addr = address.ip;
    in6->sin6_port = htons(static_cast<uint16_t>(address.port));
    out.length = sizeof(*in6);
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&out.storage);
    in->sin_family = AF_INET;
    std::memcpy(&in->sin_addr, &address.ip, sizeof(in->sin_addr));
    in->sin_port = htons(static_cast<uint16_t>(address.port));
    out.length = sizeof(*in);
  }
  return out;
}

std::string Describe(const SocketAddress& address) {
  char text[INET6_ADDRSTRLEN] = "";
  if (address.family() == AF_INET) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(&address.storage);
    inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
    return std::string(text) + ":" + std::to_string(ntohs(in->sin_port));
  }
  if (address.family() == AF_INET6) {
    const auto* in6 = reinterpret_cast<const sockaddr_in6*>(&address.storage);
    inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
    return "[" + std::string(text) + "]:" + std::to_string(ntohs(in6->sin6_port));
  }
  return "a local socket";
}

}  // namespace gradferry::thrift
