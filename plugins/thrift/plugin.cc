// The boundary: the entry symbol, the descriptor and the vtable of transport.h. Nothing else happens here. Called by
// the host; no exception leaves.
#include <cstring>
#include <memory>
#include <string>
#include <string_view>

#include "gradferry/gradferry.h"
#include "gradferry/transport.h"
#include "plugins/thrift/address.h"
#include "plugins/thrift/connection.h"
#include "plugins/thrift/instance.h"
#include "plugins/thrift/options.h"
#include "plugins/thrift/shared.h"
#include "plugins/thrift/status.h"
#include "plugins/thrift/wire.h"

GF_TRANSPORT_NOTE;

namespace gradferry::thrift {
namespace {

// What the host has under way of a large segment, in two pieces. It keeps other frames waiting for less than a
// millisecond, and costs no throughput.
constexpr uint64_t kChunk = 2 * 1024 * 1024;

Instance* From(gf_transport* transport) { return reinterpret_cast<Instance*>(transport); }
Connection* From(gf_transport_conn* conn) { return reinterpret_cast<Connection*>(conn); }

std::string_view View(const char* text, size_t length) {
  return length == 0 ? std::string_view() : std::string_view(text, length);
}

// Runs body, which returns a Status, and reports how it went.
template <class Body>
int32_t Reporting(gf_transport_error* error, const char* doing, Body body) {
  Status status;
  try {
    status = body();
  } catch (...) {
    status = FromException(doing);
  }
  if (!status.ok()) Fill(error, status);
  return status.code;
}

int32_t Create(const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
               gf_transport_error* error) {
  return Reporting(error, "creating a transport", [&]() -> Status {
    if (host->struct_size < offsetof(gf_transport_host, on_timer)) {
      return {GF_FAILED_PRECONDITION, "the host's table is too short"};
    }
    std::unique_ptr<Instance> instance;
    Status status = Instance::Create(host, View(options, length), &instance);
    if (status.ok()) *out = reinterpret_cast<gf_transport*>(instance.release());
    return status;
  });
}

void Destroy(gf_transport* transport) { delete From(transport); }

int32_t Listen(gf_transport* transport, const char* address, size_t address_length, char* buffer, size_t capacity,
               size_t* length, gf_transport_error* error) {
  const CallGuard guard(From(transport)->shared());
  return Reporting(error, "listening", [&]() -> Status {
    // Before anything starts, since afterwards nobody would know where it listens.
    if (capacity < kMaxAddressText) {
      *length = kMaxAddressText;
      return {GF_OUT_OF_RANGE, "the buffer for the address must hold " + std::to_string(kMaxAddressText) + " bytes"};
    }
    std::string actual;
    Status status = From(transport)->Listen(View(address, address_length), &actual);
    if (!status.ok()) return status;
    std::memcpy(buffer, actual.data(), actual.size());
    *length = actual.size();
    return {};
  });
}

int32_t Connect(gf_transport* transport, const char* address, size_t address_length, void* token,
                gf_transport_conn** out, gf_transport_error* error) {
  const CallGuard guard(From(transport)->shared());
  return Reporting(error, "connecting",
                   [&] { return From(transport)->Connect(View(address, address_length), token, out); });
}

int32_t Send(gf_transport_conn* conn, const gf_transport_frame* frame, void* op, gf_transport_error* error) {
  const CallGuard guard(From(conn)->shared());
  // on_closed may come meanwhile on another thread.
  const std::shared_ptr<Connection> connection = From(conn)->shared_from_this();
  return Reporting(error, "sending", [&] { return connection->Send(*frame, op); });
}

void Close(gf_transport_conn* conn) {
  const CallGuard guard(From(conn)->shared());
  const std::shared_ptr<Connection> connection = From(conn)->shared_from_this();
  Reporting(nullptr, "closing", [&]() -> Status {
    connection->Close();
    return {};
  });
}

void Shutdown(gf_transport* transport) {
  const CallGuard guard(From(transport)->shared());
  Reporting(nullptr, "shutting down", [&]() -> Status {
    From(transport)->Shutdown();
    return {};
  });
}

// Copies a text out by the two-call pattern.
Status CopyOut(const std::string& text, char* buffer, size_t capacity, size_t* length) {
  *length = text.size();
  if (buffer == nullptr) return {};
  if (capacity <= text.size()) return {GF_OUT_OF_RANGE, ""};
  std::memcpy(buffer, text.c_str(), text.size() + 1);
  return {};
}

int32_t Stats(gf_transport* transport, char* buffer, size_t capacity, size_t* length) {
  const CallGuard guard(From(transport)->shared());
  return Reporting(nullptr, "counting",
                   [&] { return CopyOut(From(transport)->StatsJson(), buffer, capacity, length); });
}

int32_t Peer(gf_transport_conn* conn, char* buffer, size_t capacity, size_t* length) {
  const CallGuard guard(From(conn)->shared());
  const std::shared_ptr<Connection> connection = From(conn)->shared_from_this();
  return Reporting(nullptr, "describing a peer",
                   [&] { return CopyOut(connection->PeerJson(), buffer, capacity, length); });
}

void Drive(gf_transport_conn* conn, uint64_t until, int32_t (*done)(void* arg), void* arg) {
  const CallGuard guard(From(conn)->shared());
  const std::shared_ptr<Connection> connection = From(conn)->shared_from_this();
  Reporting(nullptr, "driving", [&]() -> Status {
    connection->Drive(until, done, arg);
    return {};
  });
}

void Wake(gf_transport_conn* conn) {
  const CallGuard guard(From(conn)->shared());
  From(conn)->WakeDriver();
}

const gf_transport_vtable kVtable = {
    sizeof(gf_transport_vtable),
    0,
    Create,
    Destroy,
    Listen,
    Connect,
    Send,
    Close,
    Shutdown,
    Stats,
    /*now=*/nullptr,
    nullptr,
    nullptr,
    nullptr,
    Peer,
    Drive,
    Wake,
};

const gf_transport_descriptor kDescriptor = {
    sizeof(gf_transport_descriptor),
    GF_TRANSPORT_EPOCH,
    GF_TRANSPORT_MINOR,
    /*capabilities=*/0,
    "thrift",
    "0.1.0",
    "Gradferry",
    kOptionsSchema,
    kMaxHeader,
    &kVtable,
    kChunk,
};

}  // namespace
}  // namespace gradferry::thrift

extern "C" __attribute__((visibility("default"))) const gf_transport_descriptor* gf_transport_entry_v0(
    const gf_transport_entry_args* args, gf_transport_error* error) {
  if (args->host_epoch == GF_TRANSPORT_EPOCH) return &gradferry::thrift::kDescriptor;
  gradferry::thrift::Fill(error, {GF_FAILED_PRECONDITION, "the thrift transport serves hosts of epoch " +
                                                              std::to_string(GF_TRANSPORT_EPOCH) + ", not " +
                                                              std::to_string(args->host_epoch)});
  return nullptr;
}
