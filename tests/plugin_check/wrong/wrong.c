/* The example plugin, spoilt: each define breaks one rule and keeps the others as far as that goes. Between the host
 * and the plugin stand a table of the host's functions (h_) and one of the plugin's (w_). */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "gradferry/transport.h"

#ifdef NO_NOTE
#undef GF_TRANSPORT_NOTE
#define GF_TRANSPORT_NOTE extern int no_note
#endif
#ifdef DIES_OF_GARBAGE
static ssize_t spoilt_recv(int fd, void* data, size_t length, int flags);
#define recv spoilt_recv
#endif
#define gf_transport_entry_v0 right_entry
#include "examples/transport_plugin/dgram.c"
#undef gf_transport_entry_v0
#undef recv

#ifdef DIES_OF_GARBAGE
static ssize_t spoilt_recv(int fd, void* data, size_t length, int flags) {
  const ssize_t got = recv(fd, data, length, flags);
  const struct head* head = data;
  if (length == MAX_HEAD && got > 0 &&
      (got < 16 || (uint64_t)got != 16 + 8 * head->segment_count + head->header_length)) {
    abort();
  }
  return got;
}
#endif

/* ---- Between the plugin and the host ---- */

struct middle {
  gf_transport_host table;
  const gf_transport_host* real;
};

static const gf_transport_host* real_of(void* ctx) { return ((struct middle*)ctx)->real; }

#if defined(LOCK_HELD) || defined(LOCK_HELD_RECURSIVE)
static pthread_mutex_t big = PTHREAD_MUTEX_INITIALIZER;
static void enter(void) {
#ifdef LOCK_HELD_RECURSIVE
  static int made = 0;
  if (!made) {
    made = 1;
    pthread_mutexattr_t kind;
    pthread_mutexattr_init(&kind);
    pthread_mutexattr_settype(&kind, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&big, &kind);
  }
#endif
  pthread_mutex_lock(&big);
}
static void leave(void) { pthread_mutex_unlock(&big); }
#else
static void enter(void) {}
static void leave(void) {}
#endif

/* A drive that only waits: the plugin's thread goes on to deliver the events, and lets whoever waits look again. With
 * DRIVES it keeps the rules. */
#if defined(DRIVES) || defined(DRIVE_IGNORES_WAKE) || defined(DRIVE_IGNORES_TIME) || defined(DRIVE_IGNORES_THE_END) || \
    defined(DRIVE_FOR_TWO) || defined(DRIVE_WITHOUT_WAKE) || defined(CLOSED_IN_DRIVE)
#define WITH_DRIVE
struct driver {
  void* token;
  struct driver* next;
  int closed; /* the driver shall deliver on_closed with error */
  const gf_transport_error* error;
};
static pthread_mutex_t drive_mutex = PTHREAD_MUTEX_INITIALIZER; /* guards what follows */
static pthread_cond_t drive_changed = PTHREAD_COND_INITIALIZER;
static struct driver* drivers;
static uint64_t news; /* how often there was a reason to look again */

static struct driver* driver_of(const void* token) {
  struct driver* each = drivers;
  while (each != NULL && each->token != token) each = each->next;
  return each;
}

static void tell_drivers(void) {
  pthread_mutex_lock(&drive_mutex);
  news++;
  pthread_cond_broadcast(&drive_changed);
  pthread_mutex_unlock(&drive_mutex);
}

static int is_over(gf_transport_conn* conn) {
#ifdef DRIVE_IGNORES_THE_END
  return 0;
#endif
  lock(conn->transport);
  const int over = conn->closing || conn->transport->stopping;
  unlock(conn->transport);
  return over;
}

static void w_drive(gf_transport_conn* conn, uint64_t until, int32_t (*done)(void* arg), void* arg) {
  struct driver me = {.token = conn->token};
  const gf_transport_host* real = real_of(conn->transport->host->ctx);
  pthread_mutex_lock(&drive_mutex);
  int alone = driver_of(me.token) == NULL;
#ifdef DRIVE_FOR_TWO
  alone = 1;
#endif
  me.next = drivers;
  if (alone) drivers = &me;
  while (alone) {
    const uint64_t seen = news;
    pthread_mutex_unlock(&drive_mutex);
    const uint64_t now = real->now(real->ctx);
    int leave = done(arg) != 0 || is_over(conn);
#ifndef DRIVE_IGNORES_TIME
    leave |= now >= until;
#endif
    pthread_mutex_lock(&drive_mutex);
    if (me.closed || leave) break;
    const uint64_t end = until - now < 1000000000 ? until : now + 1000000000;
    const struct timespec at = {(time_t)(end / 1000000000), (long)(end % 1000000000)};
#ifdef DRIVE_IGNORES_WAKE
    while (news == seen && !is_over(conn)) pthread_cond_wait(&drive_changed, &drive_mutex);
#else
    if (news == seen) pthread_cond_clockwait(&drive_changed, &drive_mutex, CLOCK_MONOTONIC, &at);
#endif
  }
  if (me.closed) {
    pthread_mutex_unlock(&drive_mutex);
    real->on_closed(real->ctx, me.token, me.error);
    pthread_mutex_lock(&drive_mutex);
  }
  for (struct driver** each = &drivers; *each != NULL && alone; each = &(*each)->next) {
    if (*each == &me) {
      *each = me.next;
      break;
    }
  }
  pthread_cond_broadcast(&drive_changed);
  pthread_mutex_unlock(&drive_mutex);
}

static void w_wake(gf_transport_conn* conn) {
#ifndef DRIVE_IGNORES_WAKE
  tell_drivers();
#endif
}
#else
static void tell_drivers(void) {}
#endif

/* What is remembered of the last frame that was sent, and received. */
static const gf_transport_frame* volatile last_frame;
static const char* volatile last_header;
static char* volatile last_segment;
static volatile uint64_t last_length;
static volatile int eaten;
static void* volatile last_completed;
static volatile char sink;
static char spare[32 << 20];

static void* h_on_accept(void* ctx, gf_transport_conn* conn) {
  void* token = real_of(ctx)->on_accept(real_of(ctx)->ctx, conn);
#ifdef EVENT_AFTER_REFUSAL
  if (token == NULL) real_of(ctx)->on_closed(real_of(ctx)->ctx, conn, NULL);
#endif
  return token;
}

static int32_t h_on_descriptor(void* ctx, void* token, const gf_transport_frame* frame,
                               gf_transport_segment* segments) {
  const gf_transport_host* real = real_of(ctx);
#ifdef LOSES_FRAMES
  static int count = 0;
  if (++count % 7 == 0) {
    for (uint32_t i = 0; i < frame->segment_count; i++) segments[i].data = spare;
    eaten = 1;
    return GF_OK;
  }
#endif
  enter();
  int32_t code = real->on_descriptor(real->ctx, token, frame, segments);
  leave();
  last_segment = NULL;
  for (uint32_t i = 0; i < frame->segment_count && code == GF_OK; i++) {
    if (segments[i].length != 0 || frame->segments[i].length != 0) {
      last_segment = segments[i].data;
      last_length = frame->segments[i].length;
    }
  }
#ifdef IGNORES_REFUSALS
  if (code != GF_OK) {
    for (uint32_t i = 0; i < frame->segment_count; i++) segments[i].data = spare;
    code = GF_OK;
  }
#endif
#ifdef BEYOND_THE_END
  if (last_segment != NULL) last_segment[last_length] = 1;
#endif
  return code;
}

static void h_on_frame(void* ctx, void* token, int32_t code) {
  const gf_transport_host* real = real_of(ctx);
  if (eaten) {
    eaten = 0;
    return;
  }
#ifdef FRAME_NEVER
  static int count = 0;
  if (++count > 3) return;
#endif
#ifdef FLIPS_A_BYTE
  if (last_segment != NULL && code == GF_OK) last_segment[last_length / 2] ^= 1;
#endif
  enter();
  real->on_frame(real->ctx, token, code);
  leave();
  tell_drivers();
#ifdef FRAME_TWICE
  real->on_frame(real->ctx, token, code);
#endif
#ifdef LATE_WRITE
  if (last_segment != NULL) last_segment[0] = 1;
#endif
}

static void h_on_sent(void* ctx, void* token, void* op, const gf_transport_error* error) {
  const gf_transport_host* real = real_of(ctx);
#if defined(SENT_NEVER) || defined(SENT_ON_THE_STACK) || defined(SENT_BY_ANOTHER_THREAD)
  return;
#endif
#ifdef RAISES_SIGPIPE
  if (error != NULL && error->code == GF_PEER_LOST) raise(SIGPIPE); /* as write does */
#endif
#ifdef KEEPS_THE_STRUCT
  sink = (char)last_frame->segment_count;
#endif
#ifdef SENT_OUT_OF_ORDER
  static void* held_op;
  static void* held_token;
  if (held_op == NULL && (uintptr_t)op % 5 == 2 && error == NULL) {
    held_op = op;
    held_token = token;
    return;
  }
#endif
  enter();
  real->on_sent(real->ctx, token, op, error);
  leave();
#ifdef SENT_OUT_OF_ORDER
  if (held_op != NULL && held_token == token) {
    real->on_sent(real->ctx, token, held_op, NULL);
    held_op = NULL;
  }
#endif
#ifdef SENT_TWICE
  real->on_sent(real->ctx, token, op, error);
#endif
#ifdef LATE_READ
  sink = last_header[0];
#endif
  last_completed = op;
}

static void h_on_closed(void* ctx, void* token, const gf_transport_error* error) {
  const gf_transport_host* real = real_of(ctx);
#ifdef CLOSED_NEVER
  return;
#endif
#ifdef CLOSED_WITHOUT_REASON
  error = NULL;
#endif
  tell_drivers();
#ifdef CLOSED_IN_DRIVE
  pthread_mutex_lock(&drive_mutex);
  struct driver* driver = driver_of(token);
  if (driver != NULL) {
    driver->closed = 1;
    driver->error = error;
    while (driver_of(token) == driver) pthread_cond_wait(&drive_changed, &drive_mutex);
    pthread_mutex_unlock(&drive_mutex);
    return;
  }
  pthread_mutex_unlock(&drive_mutex);
#endif
  enter();
  real->on_closed(real->ctx, token, error);
  leave();
#ifdef CLOSED_TWICE
  real->on_closed(real->ctx, token, error);
#endif
#ifdef EVENT_AFTER_CLOSED
  real->on_frame(real->ctx, token, GF_PEER_LOST);
#endif
}

static void h_on_shutdown(void* ctx) {
  const gf_transport_host* real = real_of(ctx);
#ifdef SHUTDOWN_NEVER
  return;
#endif
  enter();
  real->on_shutdown(real->ctx);
  leave();
#ifdef SHUTDOWN_TWICE
  real->on_shutdown(real->ctx);
#endif
}

static uint64_t h_now(void* ctx) { return real_of(ctx)->now(real_of(ctx)->ctx); }
static void h_log(void* ctx, uint32_t level, const char* text, size_t length) {
  real_of(ctx)->log(real_of(ctx)->ctx, level, text, length);
}
static void h_on_address(void* ctx, const char* address, size_t length) {
  real_of(ctx)->on_address(real_of(ctx)->ctx, address, length);
}

/* ---- Between the host and the plugin ---- */

void throw_something(void);
static volatile int alive;

static int32_t w_create(const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
                        gf_transport_error* error) {
#ifdef TAKES_UNKNOWN_OPTIONS
  if (length > 4 && options[0] == '{' && options[1] == '"' && memchr(options, '}', length) == options + length - 1)
    length = 0;
#endif
#ifdef WRITES_TO_STDERR
  fprintf(stderr, "a transport is made\n");
#endif
#ifdef INSTALLS_A_HANDLER
  signal(SIGUSR1, SIG_IGN);
#endif
#ifdef THROWS
  throw_something();
#endif
#ifdef ONLY_ONE
  if (alive > 0) return fail(error, GF_FAILED_PRECONDITION, "there is one already");
#endif
#ifdef LEAKS_A_FILE
  if (dup(0) < 0) return GF_RESOURCE_EXHAUSTED;
#endif
  struct middle* middle = calloc(1, sizeof *middle);
  middle->real = host;
  middle->table = (gf_transport_host){
      sizeof(gf_transport_host), 0,          middle,    h_now,       h_log,         h_on_accept, h_on_address,
      h_on_descriptor,           h_on_frame, h_on_sent, h_on_closed, h_on_shutdown, NULL};
  const int32_t code = dg_create(&middle->table, options, length, out, error);
  if (code == GF_OK) alive++;
#ifdef SILENT_ERRORS
  if (code != GF_OK) *error = (gf_transport_error){sizeof *error, 0, 0, {0}};
#endif
  return code;
}

#ifdef LEAKS_A_THREAD
static void* sleep_for_ever(void* nothing) {
  for (;;) pause();
  return nothing;
}
#endif

static void w_destroy(gf_transport* transport) {
  alive--;
#ifdef LEAKS_A_THREAD
  pthread_t thread;
  pthread_create(&thread, NULL, sleep_for_ever, NULL);
#endif
  dg_destroy(transport);
}

static int32_t w_listen(gf_transport* transport, const char* address, size_t address_length, char* buffer,
                        size_t capacity, size_t* length, gf_transport_error* error) {
#ifdef OVERRUNS_THE_BUFFER
  buffer[capacity] = 0;
#endif
  enter();
  const int32_t code = dg_listen(transport, address, address_length, buffer, capacity, length, error);
  leave();
  return code;
}

static int32_t w_connect(gf_transport* transport, const char* address, size_t address_length, void* token,
                         gf_transport_conn** out, gf_transport_error* error) {
  enter();
  const int32_t code = dg_connect(transport, address, address_length, token, out, error);
  leave();
#ifdef CLOSED_AND_FAILED
  if (code != GF_OK) transport->host->on_closed(transport->host->ctx, token, NULL);
#endif
  return code;
}

#ifdef SENT_BY_ANOTHER_THREAD
struct completion {
  const gf_transport_host* host;
  void* token;
  void* id;
};
static void* complete(void* argument) {
  struct completion* it = argument;
  usleep(2000);
  it->host->on_sent(it->host->ctx, it->token, it->id, NULL);
  return NULL;
}
#endif

static int32_t w_send(gf_transport_conn* conn, const gf_transport_frame* frame, void* id, gf_transport_error* error) {
  last_frame = frame;
  last_header = frame->header;
#ifdef WRITES_WHAT_IS_SENT
  *(volatile char*)frame->header = 1;
#endif
  enter();
  int32_t code = dg_send(conn, frame, id, error);
  leave();
#ifdef SEND_WAITS
  while (code == GF_OK && last_completed != id && !conn->closing) usleep(100);
#endif
#ifdef SENT_ON_THE_STACK
  const gf_transport_host* real = real_of(conn->transport->host->ctx);
  if (code == GF_OK) real->on_sent(real->ctx, conn->token, id, NULL);
#endif
#ifdef SENT_BY_ANOTHER_THREAD
  struct completion* it = malloc(sizeof *it);
  *it = (struct completion){real_of(conn->transport->host->ctx), conn->token, id};
  pthread_t thread;
  if (code == GF_OK && pthread_create(&thread, NULL, complete, it) == 0) pthread_detach(thread);
#endif
#ifdef FAILED_AND_SENT
  static int count = 0;
  if (code == GF_OK && ++count == 6) code = fail(error, GF_UNAVAILABLE, "not now");
#endif
  return code;
}

static void w_close(gf_transport_conn* conn) {
#ifdef DIES_OF_A_SECOND_CLOSE
  if (conn->closing) abort();
#endif
  enter();
  dg_close(conn);
  leave();
}

static void w_shutdown(gf_transport* transport) {
  enter();
  dg_shutdown(transport);
  leave();
}

#if defined(TIMER_EARLY) || defined(TIMER_TWICE) || defined(CANCEL_IGNORED)
#define WITH_TIME
struct timer {
  const gf_transport_host* host;
  uint64_t number, at;
};
static uint64_t w_now(gf_transport* transport) {
  (void)transport;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}
static void* ring(void* argument) {
  struct timer* timer = argument;
#ifndef TIMER_EARLY
  while (w_now(NULL) < timer->at) usleep(500);
#endif
  timer->host->on_timer(timer->host->ctx, timer->number);
#ifdef TIMER_TWICE
  timer->host->on_timer(timer->host->ctx, timer->number);
#endif
  return NULL;
}
static void w_timer_set(gf_transport* transport, uint64_t number, uint64_t at) {
  struct timer* timer = malloc(sizeof *timer);
  *timer = (struct timer){real_of(transport->host->ctx), number, at};
  pthread_t thread;
  if (pthread_create(&thread, NULL, ring, timer) == 0) pthread_detach(thread);
}
static void w_timer_cancel(gf_transport* transport, uint64_t number) { (void)transport, (void)number; }
static void w_hold(gf_transport* transport, int32_t delta) { (void)transport, (void)delta; }
#endif

static const gf_transport_vtable spoilt_vtable = {
    .struct_size = sizeof(gf_transport_vtable),
    .create = w_create,
    .destroy = w_destroy,
    .listen = w_listen,
    .connect = w_connect,
#ifndef LACKS_SEND
    .send = w_send,
#endif
    .close = w_close,
    .shutdown = w_shutdown,
#ifdef WITH_TIME
    .now = w_now,
    .timer_set = w_timer_set,
    .timer_cancel = w_timer_cancel,
    .hold = w_hold,
#endif
#ifdef WITH_DRIVE
    .drive = w_drive,
#ifndef DRIVE_WITHOUT_WAKE
    .wake = w_wake,
#endif
#endif
};

static gf_transport_descriptor spoilt;

__attribute__((visibility("default"))) const gf_transport_descriptor* gf_transport_entry_v0(
    const gf_transport_entry_args* args, gf_transport_error* error) {
  const gf_transport_descriptor* right = right_entry(args, error);
#ifdef SERVES_ANY_HOST
  right = &descriptor;
#endif
  if (right == NULL) return NULL;
  spoilt = *right;
  spoilt.vtable = &spoilt_vtable;
#ifdef WITH_TIME
  spoilt.capabilities |= GF_TRANSPORT_CAP_TIME;
#endif
#ifdef BAD_SCHEMA
  spoilt.options_schema = "{\"key\": {\"type\": \"text\"}}";
#endif
#ifdef BAD_NAME
  spoilt.name = "Wrong!";
#endif
  return &spoilt;
}
