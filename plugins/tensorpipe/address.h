// Address texts: "uv://127.0.0.1:4321#basic,cma". The part before '#' is TensorPipe's; behind it stand the channels
// that the listening side is configured with, so that the connecting side can compare before it connects. All parsing
// is done here, for TensorPipe throws at a bad address, and aborts at some.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "plugins/tensorpipe/status.h"

namespace gradferry::tp {

struct Address {
  std::string text;    // as it was given, for messages
  std::string scheme;  // "uv", "shm" or "ibv"
  std::string host;    // numeric IP, for uv and ibv
  int port = 0;
  std::string name;  // for shm
  bool has_channels = false;
  std::vector<std::string> channels;

  bool is_shm() const { return scheme == "shm"; }
  // Whether only this machine can connect.
  bool IsLoopback() const;
  // As TensorPipe takes it: without channels.
  std::string Url() const;
};

enum class AddressUse { kListen, kConnect };

// A host name, a missing or impossible port, an address that cannot be connected back to: GF_INVALID_ARGUMENT.
Status ParseAddress(std::string_view text, AddressUse use, Address* out);

// What AddressText stays below: the longest is a socket's name of 107 bytes with all four channels.
constexpr size_t kMaxAddressText = 160;

// The text that peers get: TensorPipe's url with the channels.
std::string AddressText(const std::string& url, const std::vector<std::string>& channels);

}  // namespace gradferry::tp
