// The transports of a worker as one Transport: it listens on each, and connects by the first of its own that the other
// side has. Made by OpenTransports; impl/rpc sees a Transport and need not know how many there are.
//
// The address of a worker with several is the list `name=address name=address`. A bare address belongs to the first of
// whoever reads it, so workers with one and the same transport need no names.
//
// Only a worker with one transport can live in simulated time: two clocks do not fit into one worker.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "impl/base/status.h"
#include "impl/transport/transport.h"

namespace gradferry {

// One entry of transport.name, with the JSON object of its section.
struct TransportSpec {
  std::string name;
  std::string options;
};

struct NamedAddress {
  std::string transport;  // empty: none was written
  std::string address;
};

// Takes a list apart; what stands before the first name is one bare address. Blanks in an address are kept, unless a
// name follows them. Never fails: what is no list is one bare address.
std::vector<NamedAddress> ParseAddresses(std::string_view text);
std::string FormatAddresses(const std::vector<NamedAddress>& addresses);

// The address with its transport's name, for readers whose first transport may be another one.
std::string WithTransportName(const std::string& transport, const std::string& address);

// Opens each as OpenTransport does. One that cannot be opened is an error, never a reason to go on without it. specs is
// not empty.
Result<std::unique_ptr<Transport>> OpenTransports(const std::vector<TransportSpec>& specs, const PluginSearch& search,
                                                  TransportEvents* events, const OptionsJudge& judge = nullptr);

}  // namespace gradferry
