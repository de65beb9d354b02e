// Address texts: "unix:///path", "tcp://127.0.0.1:4321", "tls://[::1]:0". IPs are numeric, since looking a name up
// would have to wait for the network.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cstddef>
#include <string>
#include <string_view>

#include "plugins/thrift/status.h"

namespace gradferry::thrift {

enum class Scheme { kUnix, kTcp, kTls };

struct Address {
  std::string text;  // as it was given, for messages
  Scheme scheme = Scheme::kUnix;
  std::string path;  // for kUnix; empty: the default
  // For the others.
  bool v6 = false;
  in6_addr ip{};  // of IPv4 the first four bytes
  int port = 0;

  bool is_unix() const { return scheme == Scheme::kUnix; }
  // Whether only this machine can connect.
  bool IsLoopback() const;
  // 0.0.0.0 or [::].
  bool IsAnyInterface() const;
};

enum class AddressUse { kListen, kConnect };

// An impossible address is GF_INVALID_ARGUMENT, with the text in it.
Status ParseAddress(std::string_view text, AddressUse use, Address* out);

// Sets address->ip from text, "10.0.0.1" or "fe80::1".
Status ParseIp(std::string_view text, Address* address);

// What AddressText stays below: the longest is a socket's path of 107 bytes.
constexpr size_t kMaxAddressText = 160;
std::string AddressText(const Address& address);

// As the socket calls take it.
struct SocketAddress {
  sockaddr_storage storage{};
  socklen_t length = 0;

  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
  int family() const { return storage.ss_family; }
};
SocketAddress ToSocketAddress(const Address& address);

// "10.0.0.2:4711", for people.
std::string Describe(const SocketAddress& address);

}  // namespace gradferry::thrift
