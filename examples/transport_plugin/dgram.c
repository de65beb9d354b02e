/* A transport plugin over Unix sockets of datagrams in sequence (SOCK_SEQPACKET), on one machine, for one user. It is
 * written from transport.h alone; docs/transport-plugins.md goes through it.
 *
 * A frame travels as one datagram with the head (struct head, lengths of the segments, header), then the segments'
 * bytes in datagrams of PIECE bytes. So the receiver knows the length of each beforehand; any other ends the
 * connection.
 *
 * One thread per transport does the work and delivers the events. It holds the transport's mutex, which guards all
 * there is, but while it waits and while it calls the host; functions of the table hold it for a moment. */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gradferry/gradferry.h"
#include "gradferry/transport.h"

GF_TRANSPORT_NOTE;

enum { PIECE = 64 * 1024, MAX_HEADER = 64 * 1024, MAX_SEGMENTS = 4096, MAX_CONNS = 512, TURN = 64 };
enum { MAX_HEAD = 16 + 8 * MAX_SEGMENTS + MAX_HEADER };

struct head {
  uint64_t header_length, segment_count;
};

struct body { /* the segments of a frame on its way */
  gf_transport_segment* list;
  uint64_t count, at, offset;
};

struct op { /* a frame to be sent */
  struct op* next;
  void* id;
  struct head* head; /* NULL when it has gone */
  size_t head_size;
  struct body body;
};

struct gf_transport_conn {
  gf_transport* transport;
  void* token;
  int fd, closing, receiving;
  struct op *first, **last;
  struct body in;   /* while receiving */
  struct head* got; /* room for a head */
};

struct gf_transport {
  const gf_transport_host* host;
  pthread_t thread;
  pthread_mutex_t mutex;
  int wake, listener, stopping;
  size_t count;
  gf_transport_conn* conns[MAX_CONNS];
};

static void lock(gf_transport* transport) { pthread_mutex_lock(&transport->mutex); }
static void unlock(gf_transport* transport) { pthread_mutex_unlock(&transport->mutex); }

static int32_t fail(gf_transport_error* error, int32_t code, const char* format, ...) {
  if (error == NULL) return code;
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error->text, sizeof error->text, format, arguments);
  va_end(arguments);
  error->code = code;
  error->length = (uint32_t)strlen(error->text);
  return code;
}

static void wake(gf_transport* transport) {
  const uint64_t one = 1;
  if (write(transport->wake, &one, sizeof one) < 0) return; /* it is full, so the thread is awake */
}

/* ---- The thread ---- */

/* The next piece of the body; its length is 0 when there is none. */
static gf_transport_segment next_piece(struct body* body) {
  for (; body->at < body->count; body->at++, body->offset = 0) {
    const gf_transport_segment* segment = &body->list[body->at];
    const uint64_t left = segment->length - body->offset;
    if (left > 0) return (gf_transport_segment){(char*)segment->data + body->offset, left < PIECE ? left : PIECE};
  }
  return (gf_transport_segment){NULL, 0};
}

/* 1 when the datagram went as a whole, 0 when the socket is not ready, -1 when the connection is over. */
static int moved(ssize_t result, uint64_t wanted) {
  if (result < 0 && (errno == EAGAIN || errno == EINTR || errno == ENOBUFS)) return 0;
  return result >= 0 && (uint64_t)result == wanted ? 1 : -1;
}

static void finish_send(gf_transport_conn* conn, const gf_transport_error* error) {
  gf_transport* transport = conn->transport;
  struct op* op = conn->first;
  conn->first = op->next;
  if (conn->first == NULL) conn->last = &conn->first;
  unlock(transport);
  transport->host->on_sent(transport->host->ctx, conn->token, op->id, error);
  lock(transport);
  free(op->head);
  free(op->body.list);
  free(op);
}

static int send_some(gf_transport_conn* conn) {
  for (int i = 0; i < TURN && conn->first != NULL && !conn->closing; i++) {
    struct op* op = conn->first;
    gf_transport_segment piece = next_piece(&op->body);
    if (op->head != NULL) piece = (gf_transport_segment){op->head, op->head_size};
    const int how = moved(send(conn->fd, piece.data, piece.length, MSG_DONTWAIT | MSG_NOSIGNAL), piece.length);
    if (how <= 0) return how;
    if (op->head == NULL) op->body.offset += piece.length;
    free(op->head);
    op->head = NULL;
    if (next_piece(&op->body).length == 0) finish_send(conn, NULL);
  }
  return 0;
}

static void end_frame(gf_transport_conn* conn, int32_t code) {
  gf_transport* transport = conn->transport;
  if (!conn->receiving) return;
  conn->receiving = 0;
  free(conn->in.list);
  unlock(transport);
  transport->host->on_frame(transport->host->ctx, conn->token, code);
  lock(transport);
}

/* A datagram that must be a head: the host says where the segments go. */
static int announce(gf_transport_conn* conn, uint64_t size) {
  gf_transport* transport = conn->transport;
  const struct head* head = conn->got;
  if (size < sizeof *head || head->segment_count > MAX_SEGMENTS || head->header_length < 1) return -1;
  if (size != sizeof *head + 8 * head->segment_count + head->header_length) return -1;
  const uint32_t count = (uint32_t)head->segment_count;
  const uint64_t* lengths = (const uint64_t*)(head + 1);
  gf_transport_segment* list = calloc(2 * (size_t)count + 1, sizeof *list); /* what arrives, and where it goes */
  if (list == NULL) return -1;
  for (uint32_t i = 0; i < 2 * count; i++) list[i].length = lengths[i % count];
  const gf_transport_frame frame = {sizeof frame, count, lengths + count, head->header_length, list};
  unlock(transport);
  const int32_t code = transport->host->on_descriptor(transport->host->ctx, conn->token, &frame, list + count);
  lock(transport);
  if (code != GF_OK) return free(list), -1;
  for (uint32_t i = 0; i < count; i++) list[i].data = list[count + i].data;
  conn->in = (struct body){list, count, 0, 0};
  conn->receiving = 1;
  return 0;
}

static int receive_some(gf_transport_conn* conn) {
  for (int i = 0; i < TURN && !conn->closing; i++) {
    gf_transport_segment piece = {conn->got, MAX_HEAD};
    if (conn->receiving) piece = next_piece(&conn->in);
    const ssize_t size = recv(conn->fd, piece.data, piece.length, MSG_DONTWAIT | MSG_TRUNC);
    const int how = size == 0 ? -1 : moved(size, conn->receiving || size < 0 ? piece.length : (uint64_t)size);
    if (how <= 0) return how;
    if (conn->receiving) conn->in.offset += piece.length;
    if (!conn->receiving && announce(conn, (uint64_t)size) != 0) return -1;
    if (next_piece(&conn->in).length == 0) end_frame(conn, GF_OK);
  }
  return 0;
}

/* NULL when there is no room for it. It takes the file. */
static gf_transport_conn* new_conn(gf_transport* transport, int fd, void* token) {
  gf_transport_conn* conn = calloc(1, sizeof *conn);
  struct head* got = malloc(MAX_HEAD);
  if (conn == NULL || got == NULL || transport->count == MAX_CONNS) return free(conn), free(got), close(fd), NULL;
  *conn = (gf_transport_conn){.transport = transport, .token = token, .fd = fd, .last = &conn->first, .got = got};
  transport->conns[transport->count++] = conn;
  return conn;
}

static void free_conn(gf_transport_conn* conn) {
  gf_transport* transport = conn->transport;
  for (size_t i = 0; i < transport->count; i++)
    if (transport->conns[i] == conn) transport->conns[i] = transport->conns[--transport->count];
  close(conn->fd);
  free(conn->got);
  free(conn);
}

/* Names like ours carry no permissions, so the peer's user is compared. -1 when no file is left for it. */
static int accept_one(gf_transport* transport) {
  const int fd = accept4(transport->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return errno == EMFILE || errno == ENFILE ? -1 : 0;
  struct ucred peer;
  socklen_t length = sizeof peer;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || peer.uid != geteuid()) return close(fd);
  gf_transport_conn* conn = new_conn(transport, fd, NULL);
  if (conn == NULL) return 0;
  unlock(transport);
  void* token = transport->host->on_accept(transport->host->ctx, conn);
  lock(transport);
  conn->token = token;
  if (token == NULL) free_conn(conn);
  return 0;
}

/* Gives the host what it is owed, then the end. */
static void end_conn(gf_transport_conn* conn) {
  gf_transport* transport = conn->transport;
  gf_transport_error error = {.struct_size = sizeof error};
  const int by_us = conn->closing || transport->stopping;
  fail(&error, by_us ? GF_CLOSED : GF_PEER_LOST, "dgram: %s has closed the connection",
       by_us ? "this side" : "the peer");
  conn->closing = 1; /* nothing new is sent */
  end_frame(conn, error.code);
  while (conn->first != NULL) finish_send(conn, &error);
  unlock(transport);
  transport->host->on_closed(transport->host->ctx, conn->token, by_us ? NULL : &error);
  lock(transport);
  free_conn(conn);
}

static void* run(void* argument) {
  gf_transport* transport = argument;
  struct pollfd polls[MAX_CONNS + 2];
  gf_transport_conn* conns[MAX_CONNS]; /* to be looked after; only this thread takes any away */
  int rest = 0;                        /* no file was left for a connection: look again in a while */
  lock(transport);
  while (!transport->stopping || transport->count != 0) {
    const size_t count = transport->count;
    polls[0] = (struct pollfd){transport->wake, POLLIN, 0};
    polls[1] = (struct pollfd){transport->stopping || rest ? -1 : transport->listener, POLLIN, 0};
    for (size_t i = 0; i < count; i++) {
      const gf_transport_conn* conn = transport->conns[i];
      polls[i + 2] = (struct pollfd){conn->fd, (short)(conn->first != NULL ? POLLIN | POLLOUT : POLLIN), 0};
    }
    unlock(transport);
    poll(polls, count + 2, rest ? 100 : -1);
    uint64_t wakes;
    if (read(transport->wake, &wakes, sizeof wakes) < 0) wakes = 0;
    lock(transport);
    rest = polls[1].revents != 0 && !transport->stopping && accept_one(transport) < 0;
    const size_t all = transport->count; /* those that came while we waited, too */
    memcpy(conns, transport->conns, all * sizeof *conns);
    for (size_t i = 0; i < all; i++) {
      const int lost = send_some(conns[i]) < 0 || receive_some(conns[i]) < 0;
      if (lost || conns[i]->closing || transport->stopping) end_conn(conns[i]);
    }
  }
  unlock(transport);
  transport->host->on_shutdown(transport->host->ctx);
  return NULL;
}

/* ---- The functions of the table ---- */

static int32_t dg_create(const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
                         gf_transport_error* error) {
  /* There are no options: an object with nothing in it, or nothing. */
  const char* expected = "{}";
  for (size_t i = 0; i < length; i++) {
    if (options[i] == *expected) {
      expected++;
    } else if (options[i] != ' ' && options[i] != '\n') {
      return fail(error, GF_INVALID_ARGUMENT, "transport.dgram takes no options, and got %.*s", (int)length, options);
    }
  }
  if (length != 0 && *expected != 0) return fail(error, GF_INVALID_ARGUMENT, "transport.dgram takes {}");
  gf_transport* transport = calloc(1, sizeof *transport);
  const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (transport == NULL || fd < 0)
    return free(transport), fail(error, GF_RESOURCE_EXHAUSTED, "dgram: no file or memory");
  *transport = (gf_transport){.host = host, .wake = fd, .listener = -1};
  pthread_mutex_init(&transport->mutex, NULL);
  if (pthread_create(&transport->thread, NULL, run, transport) != 0)
    return close(fd), free(transport), fail(error, GF_RESOURCE_EXHAUSTED, "dgram: no thread");
  *out = transport;
  return GF_OK;
}

static void dg_destroy(gf_transport* transport) {
  pthread_join(transport->thread, NULL);
  pthread_mutex_destroy(&transport->mutex);
  close(transport->wake);
  if (transport->listener >= 0) close(transport->listener);
  free(transport);
}

/* "@name", the name of an abstract socket. 0 when it is none. */
static socklen_t parse(const char* address, size_t length, struct sockaddr_un* out) {
  *out = (struct sockaddr_un){.sun_family = AF_UNIX};
  if (length < 2 || length > sizeof out->sun_path || address[0] != '@') return 0;
  for (size_t i = 1; i < length; i++) {
    if (address[i] <= ' ' || address[i] > '~') return 0;
    out->sun_path[i] = address[i];
  }
  return (socklen_t)(sizeof(sa_family_t) + length);
}

static int new_socket(void) { return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); }

static int32_t dg_listen(gf_transport* transport, const char* address, size_t address_length, char* buffer,
                         size_t capacity, size_t* length, gf_transport_error* error) {
  struct sockaddr_un where;
  socklen_t size = parse(address, address_length, &where);
  if (capacity < sizeof where.sun_path) return fail(error, GF_OUT_OF_RANGE, "dgram: no room for the address");
  if (size == 0 && address_length != 0)
    return fail(error, GF_INVALID_ARGUMENT, "'%.*s' is no @name to listen at", (int)address_length, address);
  if (size == 0) size = sizeof(sa_family_t); /* the system picks a name */
  const int fd = new_socket();
  if (fd < 0) return fail(error, GF_RESOURCE_EXHAUSTED, "dgram: no file for a listener");
  if (bind(fd, (struct sockaddr*)&where, size) != 0 || listen(fd, 128) != 0)
    return close(fd), fail(error, GF_ALREADY_EXISTS, "%.*s is taken", (int)address_length, address);
  lock(transport);
  const int refused = transport->stopping || transport->listener >= 0;
  if (!refused) transport->listener = fd;
  unlock(transport);
  if (refused) return close(fd), fail(error, GF_FAILED_PRECONDITION, "dgram listens already, or not any more");
  size = sizeof where;
  getsockname(fd, (struct sockaddr*)&where, &size);
  *length = size - sizeof(sa_family_t);
  memcpy(buffer, where.sun_path, *length);
  buffer[0] = '@';
  wake(transport);
  return GF_OK;
}

/* Connecting to a Unix socket takes no time: it works now or not at all. */
static int32_t dg_connect(gf_transport* transport, const char* address, size_t address_length, void* token,
                          gf_transport_conn** out, gf_transport_error* error) {
  struct sockaddr_un where;
  const socklen_t size = parse(address, address_length, &where);
  if (size == 0) return fail(error, GF_INVALID_ARGUMENT, "'%.*s' is no @name", (int)address_length, address);
  const int fd = new_socket();
  if (fd < 0) return fail(error, GF_RESOURCE_EXHAUSTED, "dgram: no file for a connection");
  if (connect(fd, (struct sockaddr*)&where, size) != 0)
    return close(fd), fail(error, GF_UNAVAILABLE, "nobody answers at %.*s", (int)address_length, address);
  lock(transport);
  gf_transport_conn* conn = transport->stopping ? (close(fd), NULL) : new_conn(transport, fd, token);
  *out = conn; /* before the first event */
  unlock(transport);
  if (conn == NULL) return fail(error, GF_RESOURCE_EXHAUSTED, "dgram has no room for a connection, or was shut down");
  wake(transport);
  return GF_OK;
}

static int32_t dg_send(gf_transport_conn* conn, const gf_transport_frame* frame, void* id, gf_transport_error* error) {
  if (frame->header == NULL || frame->header_length == 0)
    return fail(error, GF_INVALID_ARGUMENT, "a frame has no header");
  if (frame->header_length > MAX_HEADER || frame->segment_count > MAX_SEGMENTS)
    return fail(error, GF_OUT_OF_RANGE, "a frame has more than 64 KiB of header or 4,096 segments");
  const uint64_t count = frame->segment_count;
  const size_t head_size = sizeof(struct head) + 8 * count + frame->header_length;
  struct op* op = calloc(1, sizeof *op);
  struct head* head = malloc(head_size);
  gf_transport_segment* list = calloc(count + 1, sizeof *list);
  if (op == NULL || head == NULL || list == NULL)
    return free(op), free(head), free(list), fail(error, GF_RESOURCE_EXHAUSTED, "no memory for a frame");
  *op = (struct op){.id = id, .head = head, .head_size = head_size, .body = {list, count, 0, 0}};
  *head = (struct head){frame->header_length, count};
  uint64_t* lengths = (uint64_t*)(head + 1);
  int refused = 0;
  for (uint64_t i = 0; i < count; i++) {
    list[i] = frame->segments[i];
    lengths[i] = list[i].length;
    refused |= list[i].data == NULL && list[i].length != 0;
  }
  memcpy(lengths + count, frame->header, frame->header_length);
  if (refused) return free(op), free(head), free(list), fail(error, GF_INVALID_ARGUMENT, "a segment has no memory");
  lock(conn->transport);
  refused = conn->closing || conn->transport->stopping;
  if (!refused) *conn->last = op;
  if (!refused) conn->last = &op->next;
  unlock(conn->transport);
  if (refused) return free(op), free(head), free(list), fail(error, GF_CLOSED, "the connection has ended");
  wake(conn->transport);
  return GF_OK;
}

static void dg_close(gf_transport_conn* conn) {
  lock(conn->transport);
  conn->closing = 1;
  unlock(conn->transport);
  wake(conn->transport);
}

static void dg_shutdown(gf_transport* transport) {
  lock(transport);
  if (!transport->stopping) wake(transport); /* afterwards it may be gone */
  transport->stopping = 1;
  unlock(transport);
}

static const gf_transport_vtable vtable = {
    .struct_size = sizeof(gf_transport_vtable),
    .create = dg_create,
    .destroy = dg_destroy,
    .listen = dg_listen,
    .connect = dg_connect,
    .send = dg_send,
    .close = dg_close,
    .shutdown = dg_shutdown,
};

static const gf_transport_descriptor descriptor = {
    .struct_size = sizeof(gf_transport_descriptor),
    .epoch = GF_TRANSPORT_EPOCH,
    .minor = GF_TRANSPORT_MINOR,
    .name = "dgram",
    .version = "1.0",
    .vendor = "an example of Gradferry's",
    .options_schema = "{}",
    .max_header = MAX_HEADER,
    .vtable = &vtable,
};

__attribute__((visibility("default"))) const gf_transport_descriptor* gf_transport_entry_v0(
    const gf_transport_entry_args* args, gf_transport_error* error) {
  if (args->host_epoch == GF_TRANSPORT_EPOCH) return &descriptor;
  fail(error, GF_UNSUPPORTED, "dgram serves hosts of transport epoch 0, not %u", args->host_epoch);
  return NULL;
}
