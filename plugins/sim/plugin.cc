// The plugin's table and entry: C functions over Transport and Connection. What they may throw for want of memory stays
// in here.
#include <cstdint>
#include <new>
#include <string>

#include "gradferry/transport.h"
#include "plugins/sim/connection.h"
#include "plugins/sim/errors.h"
#include "plugins/sim/options.h"
#include "plugins/sim/transport.h"

GF_TRANSPORT_NOTE;

namespace gradferry::sim {
namespace {

Transport* Of(gf_transport* transport) { return reinterpret_cast<Transport*>(transport); }
Connection* Of(gf_transport_conn* conn) { return reinterpret_cast<Connection*>(conn); }

template <class Fn>
int32_t Caught(gf_transport_error* error, Fn&& fn) noexcept {
  try {
    return fn();
  } catch (const std::bad_alloc&) {
    return Fail(error, GF_RESOURCE_EXHAUSTED, "no memory is left");
  } catch (...) {
    return Fail(error, GF_INTERNAL, "an unexpected exception");
  }
}

template <class Fn>
void Quietly(Fn&& fn) noexcept {
  try {
    fn();
  } catch (...) {
    // For want of memory; these functions have no way to say so.
  }
}

int32_t Create(const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
               gf_transport_error* error) {
  return Caught(error, [&] {
    Transport* transport = nullptr;
    const int32_t code = Transport::Create(host, options, length, &transport, error);
    if (code == GF_OK) *out = reinterpret_cast<gf_transport*>(transport);
    return code;
  });
}

void Destroy(gf_transport* transport) { Transport::Destroy(Of(transport)); }

int32_t Listen(gf_transport* transport, const char* address, size_t address_length, char* buffer, size_t capacity,
               size_t* length, gf_transport_error* error) {
  return Caught(error, [&] {
    return Of(transport)->Listen(std::string(address, address_length), buffer, capacity, length, error);
  });
}

int32_t Connect(gf_transport* transport, const char* address, size_t address_length, void* token,
                gf_transport_conn** out, gf_transport_error* error) {
  return Caught(error, [&] {
    Connection* connection = nullptr;
    const int32_t code = Of(transport)->Connect(std::string(address, address_length), token, &connection, error);
    if (code == GF_OK) *out = reinterpret_cast<gf_transport_conn*>(connection);
    return code;
  });
}

int32_t Send(gf_transport_conn* conn, const gf_transport_frame* frame, void* op, gf_transport_error* error) {
  return Caught(error, [&] { return Of(conn)->Send(frame, op, error); });
}

void Close(gf_transport_conn* conn) {
  Quietly([&] { Of(conn)->Close(); });
}

void Shutdown(gf_transport* transport) {
  Quietly([&] { Of(transport)->Shutdown(); });
}

int32_t Stats(gf_transport* transport, char* buffer, size_t capacity, size_t* length) {
  return Caught(nullptr, [&] { return Of(transport)->Stats(buffer, capacity, length); });
}

uint64_t Now(gf_transport* transport) { return Of(transport)->Now(); }

void TimerSet(gf_transport* transport, uint64_t timer, uint64_t at) {
  Quietly([&] { Of(transport)->SetTimer(timer, at); });
}

void TimerCancel(gf_transport* transport, uint64_t timer) {
  Quietly([&] { Of(transport)->CancelTimer(timer); });
}

void Hold(gf_transport* transport, int32_t delta) {
  Quietly([&] { Of(transport)->Hold(delta); });
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
    Now,
    TimerSet,
    TimerCancel,
    Hold,
    /*peer=*/nullptr,
    /*drive=*/nullptr,
    nullptr,
};

const gf_transport_descriptor kDescriptor = {
    sizeof(gf_transport_descriptor),
    GF_TRANSPORT_EPOCH,
    GF_TRANSPORT_MINOR,
    GF_TRANSPORT_CAP_TIME | GF_TRANSPORT_CAP_SAME_PROCESS,
    "sim",
    "0.1.0",
    "Gradferry",
    kOptionsSchema,
    kMaxHeader,
    &kVtable,
    /*chunk=*/0,
};

}  // namespace
}  // namespace gradferry::sim

extern "C" __attribute__((visibility("default"))) const gf_transport_descriptor* gf_transport_entry_v0(
    const gf_transport_entry_args* args, gf_transport_error* error) {
  using namespace gradferry::sim;
  if (args->host_epoch == GF_TRANSPORT_EPOCH) return &kDescriptor;
  Fail(error, GF_UNSUPPORTED,
       "the host has transport epoch " + std::to_string(args->host_epoch) + ", this plugin has " +
           std::to_string(GF_TRANSPORT_EPOCH));
  return nullptr;
}
