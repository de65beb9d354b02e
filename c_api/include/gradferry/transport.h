/* transport.h - the C ABI between Gradferry and a transport plugin, epoch 0.
 *
 * A transport moves frames between two processes, in order and whole, and nothing else: who the peer is, what a frame
 * means, deadlines, retries and flow control live above. A frame is a header (bytes) and segments (the bytes of
 * tensors, sent from and received into their own memory).
 *
 * A plugin is a shared object that exports one name, gf_transport_entry_v0. The host hands in its table, the plugin
 * hands out a descriptor. A transport of the plugin's is created by create and ended by shutdown and destroy; in
 * between it listens, dials and accepts, and every connection lives from connect or on_accept to on_closed.
 *
 * All texts are UTF-8, with their length and without NUL, unless they are a const char* alone. Numbers are in the
 * machine's byte order. Memory of segments has no alignment. struct_size is the size of the struct as its maker knew
 * it: structs grow at the end, so a field is there when it ends within struct_size.
 *
 * The numbered rules say what a plugin keeps, and what the host keeps where the rule says so. Each can be seen from
 * outside: `gradferry plugin-check FILE` does, and names the rule that was broken. docs/transport-plugins.md gives the
 * reasons and goes through an example.
 *
 * Rules
 *   GF-TRN-01  No function of the plugin but destroy and drive waits: not for the network, not for the peer, not for
 *              an event to return. What takes time is done on threads of the plugin's own and reported by an event. An
 *              event may keep its thread for a while (the host allocates memory there); functions return all the same.
 *   GF-TRN-02  An event (a function of the host's table whose name begins with on_) is never delivered on the stack of
 *              a call from the host but drive, else on a thread of the plugin's, with no lock of the plugin's held:
 *              within an event the host may call any function of the plugin but destroy and drive, on that thread and
 *              on others, and they return before the event does. now and log may be called from anywhere.
 *   GF-TRN-03  Events of one connection are delivered one at a time; its first may come before connect has returned,
 *              for an accepted one it comes after on_accept has. Frames are delivered in the order of the calls of
 *              send, none is lost, doubled or altered while the connection stands. on_sent comes in that order too.
 *   GF-TRN-04  Every send that returned GF_OK is completed by exactly one on_sent. Until then the bytes of the frame's
 *              header and segments belong to the plugin, to be read only; after it they are not touched. The struct
 *              and the array of segments are the host's again when send returns. A send that failed has no on_sent.
 *   GF-TRN-05  Every frame is announced by on_descriptor and, when that returned GF_OK, ended by exactly one on_frame
 *              before anything else is announced on the connection. Until then the memory that the host gave belongs to
 *              the plugin, and exactly the length of each segment is written; after it it is not touched. When
 *              on_descriptor returned anything else there is no on_frame, and the plugin ends the connection.
 *   GF-TRN-06  Every connection, dialled or accepted, ends with exactly one on_closed, after all its other events, even
 *              when it never came to be. The host calls nothing on conn, and no call on it is under way, when on_closed
 *              returns (it waits there for a drive that is returning); conn is invalid then. When connect failed, or
 *              on_accept returned NULL, there are no events.
 *   GF-TRN-07  close and shutdown are idempotent, in every state and within events. After shutdown every connection
 *              ends, then on_shutdown comes, once, and is the last event; listen, connect and send fail with an error
 *              from then on. destroy is called once, when on_shutdown has come (it may still be returning), never on a
 *              thread of the plugin's; it may join those.
 *   GF-TRN-08  Bytes from the network are never trusted: they end their connection with an error, at worst; the
 *              listener and other connections go on. A plugin whose library cannot keep this says so with
 *              GF_TRANSPORT_CAP_TRUSTED_NETWORK_ONLY and refuses to listen beyond loopback without the option
 *              trusted_network = true.
 *   GF-TRN-09  The plugin writes nothing to stdout or stderr, installs no signal handler and raises no signal (SIGPIPE
 *              included), lets no exception out.
 *   GF-TRN-10  Several transports may be created in one process and live side by side; one's end does not touch others.
 *   GF-TRN-11  The file carries the note, exports the entry and nothing else, and needs neither libgradferry nor
 *              libtorch. The descriptor, its vtable and the options' schema are whole and the same at every call.
 *   GF-TRN-12  Wrong input is an error and harms nothing: options, addresses, frames beyond a limit, buffers that are
 *              too small. A function that fails returns a code of gradferry.h and fills error, when there is one: one
 *              sentence that names what and where.
 *   GF-TRN-13  With GF_TRANSPORT_CAP_TIME: now never goes back; a timer is due once, not before its time, and not after
 *              timer_cancel has returned, but on another thread at that moment; while the host holds, time stands
 *              still where it is not the machine's.
 *   GF-TRN-14  Nothing is left behind: after on_closed no file, and after destroy no thread, file or memory.
 *   GF-TRN-15  drive and wake are there both or neither. drive returns at once when done is not 0, when another thread
 *              drives the connection, and when that is not open or ends. Else it delivers the connection's events, and
 *              those of no other, on its stack, one at a time with those of other threads. It asks done there, with no
 *              lock of the plugin's held: before each wait, after each frame and after wake. It returns when done is
 *              not 0, when the time is `until`, and when the connection ends, be it by close or shutdown on another
 *              thread, which work meanwhile, as send does. It may return earlier. on_closed comes neither on its stack
 *              nor while it is under way (it may still be returning).
 */
#ifndef GRADFERRY_TRANSPORT_H_
#define GRADFERRY_TRANSPORT_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define GF_TRANSPORT_EPOCH 0u
#define GF_TRANSPORT_MINOR 0u

/* Codes are those of gradferry.h (GF_OK is 0). */

/* What the plugin puts an error into; the host provides it, the plugin fills code and text (UTF-8, one sentence that
 * names what and where). */
typedef struct gf_transport_error {
  uint32_t struct_size;
  int32_t code;
  uint32_t length; /* bytes used of text, without NUL */
  char text[500];
} gf_transport_error;

/* The bytes of one tensor, or of several small ones packed by the host. */
typedef struct gf_transport_segment {
  void* data;
  uint64_t length; /* bytes; may be 0 */
} gf_transport_segment;

/* A frame. For send: all of it is read only. */
typedef struct gf_transport_frame {
  uint32_t struct_size;
  uint32_t segment_count;
  const void* header; /* at most gf_transport_descriptor.max_header bytes, at least 1 */
  uint64_t header_length;
  const gf_transport_segment* segments;
} gf_transport_frame;

/* A transport and a connection, as the plugin knows them. */
typedef struct gf_transport gf_transport;
typedef struct gf_transport_conn gf_transport_conn;

/* The host's table. ctx is the first argument of each of its functions; token is what the host gave for the object
 * concerned. All of them may be called from any thread of the plugin. */
typedef struct gf_transport_host {
  uint32_t struct_size;
  uint32_t reserved;
  void* ctx;
  /* Monotonic time of the host, in ns. */
  uint64_t (*now)(void* ctx);
  /* level: 0 debug, 1 info, 2 warning, 3 error. */
  void (*log)(void* ctx, uint32_t level, const char* text, size_t length);
  /* A peer has connected. The host returns its token for the connection, or NULL, when it has sent nothing on it, to
   * have it closed at once without further events (then GF-TRN-06 does not apply). */
  void* (*on_accept)(void* ctx, gf_transport_conn* conn);
  /* The listener has moved: it listens at another address now (after it was healed, say). */
  void (*on_address)(void* ctx, const char* address, size_t length);
  /* A frame arrives: frame->header holds its bytes, borrowed for this call, frame->segments has the lengths with data
   * NULL. The host fills data of every segment whose length is not 0 and returns GF_OK, or it refuses and the plugin
   * closes the connection. Nothing has been allocated for the segments before this call. */
  int32_t (*on_descriptor)(void* ctx, void* token, const gf_transport_frame* frame, gf_transport_segment* segments);
  /* The frame announced last has arrived whole (GF_OK), or never will. */
  void (*on_frame)(void* ctx, void* token, int32_t code);
  /* The frame that was sent with this op is out of our hands. error is NULL for GF_OK. */
  void (*on_sent)(void* ctx, void* token, void* op, const gf_transport_error* error);
  /* The connection has ended; error says why: GF_OK after our own close, GF_UNAVAILABLE when it never came to be,
   * GF_PEER_LOST when it broke or the peer closed it. */
  void (*on_closed)(void* ctx, void* token, const gf_transport_error* error);
  void (*on_shutdown)(void* ctx);
  /* Only for transports with GF_TRANSPORT_CAP_TIME: a timer set by timer_set is due. */
  void (*on_timer)(void* ctx, uint64_t timer);
} gf_transport_host;

#define GF_TRANSPORT_CAP_TIME 1u /* it owns time: now, timer_set, timer_cancel, hold (simulation) */
#define GF_TRANSPORT_CAP_TRUSTED_NETWORK_ONLY                                                             \
  2u                                     /* hostile bytes may abort the process: refuses to listen beyond \
                                            loopback without trusted_network = true */
#define GF_TRANSPORT_CAP_SAME_PROCESS 4u /* reaches workers of this process only */

/* The plugin's functions. Those marked optional may be NULL. error receives what went wrong. */
typedef struct gf_transport_vtable {
  uint32_t struct_size;
  uint32_t reserved;
  /* A transport, with the JSON object of its configuration section ([transport.<name>]): an unknown key or wrong type
   * is GF_INVALID_ARGUMENT and named. host lives until destroy has returned. */
  int32_t (*create)(const gf_transport_host* host, const char* options, size_t length, gf_transport** out,
                    gf_transport_error* error);
  void (*destroy)(gf_transport* transport);
  /* Starts to listen, at an address in the transport's own notation; empty: its default. The actual address, by which a
   * peer can connect, is written to buffer (at most capacity bytes, *length of them, no NUL). Printable ASCII without
   * spaces. The host gives 1,024 bytes; what does not fit is GF_OUT_OF_RANGE. The host listens once per transport. */
  int32_t (*listen)(gf_transport* transport, const char* address, size_t address_length, char* buffer, size_t capacity,
                    size_t* length, gf_transport_error* error);
  /* Starts to connect; frames may be sent at once and wait until it stands. Writes *out before the first event. A bad
   * address, and what else is known at once, fails here, without events; the rest is reported by on_closed. */
  int32_t (*connect)(gf_transport* transport, const char* address, size_t address_length, void* token,
                     gf_transport_conn** out, gf_transport_error* error);
  /* Sends a frame, in order, from any thread. When it fails here there is no on_sent and the connection is unharmed:
   * GF_INVALID_ARGUMENT for a frame without header or a segment without memory, GF_OUT_OF_RANGE for one beyond a limit,
   * GF_CLOSED or why it ended for a connection that has ended. */
  int32_t (*send)(gf_transport_conn* conn, const gf_transport_frame* frame, void* op, gf_transport_error* error);
  /* Ends the connection, from any thread; on_closed follows. Frames on their way may be lost. */
  void (*close)(gf_transport_conn* conn);
  /* Closes the listener and all connections; on_shutdown follows. */
  void (*shutdown)(gf_transport* transport);
  /* Optional: counters as a JSON object. Two-call pattern: *length becomes the text's length, without NUL; with buffer
   * NULL that is all, GF_OK; else text and NUL are written when they fit into capacity, and nothing and
   * GF_OUT_OF_RANGE when not. */
  int32_t (*stats)(gf_transport* transport, char* buffer, size_t capacity, size_t* length);
  /* With GF_TRANSPORT_CAP_TIME, else NULL. Time in ns, of the transport's own. */
  uint64_t (*now)(gf_transport* transport);
  /* on_timer(timer) at this time or later. timer is the host's number, not used by another live timer. */
  void (*timer_set)(gf_transport* transport, uint64_t timer, uint64_t at);
  void (*timer_cancel)(gf_transport* transport, uint64_t timer);
  /* delta +1: the host has work to do, time must not move on, be it to a timer or to a frame that is still under way;
   * -1: that work is done. */
  void (*hold)(gf_transport* transport, int32_t delta);
  /* Optional: what the transport knows of the other side of a connection, as a JSON object; two-call pattern.
   *   "address"     where it is, as text for people
   *   "identities"  array: the names of workers that it has proof of (its certificate's); the host refuses a peer that
   *                 calls itself otherwise. Absent where the transport proves nothing.
   *   "encrypted"   boolean
   *   "path"        how large segments travel to it at present ("cma", "tcp", ...), where there is a choice, and
   *                 "path_reason", why by no faster way
   * Complete from the first on_descriptor of the connection on. */
  int32_t (*peer)(gf_transport_conn* conn, char* buffer, size_t capacity, size_t* length);
  /* Optional, both or none: lends the calling thread, which has nothing to do but wait for what comes by this
   * connection. It delivers the connection's events as a thread of the plugin's would, until done(arg) is not 0, until
   * `until` (the host's now; UINT64_MAX: no limit) has passed, or until the plugin wants it no more. Any thread that
   * does not deliver an event, also while on_closed is being delivered by another; it returns at once then. See
   * GF-TRN-15. */
  void (*drive)(gf_transport_conn* conn, uint64_t until, int32_t (*done)(void* arg), void* arg);
  /* Any thread: whoever is in drive asks done again. Nothing when nobody is. */
  void (*wake)(gf_transport_conn* conn);
} gf_transport_vtable;

/* What a plugin is. It lives as long as the process. */
typedef struct gf_transport_descriptor {
  uint32_t struct_size;
  uint32_t epoch; /* GF_TRANSPORT_EPOCH it was compiled with */
  uint32_t minor;
  uint32_t capabilities; /* GF_TRANSPORT_CAP_* */
  const char* name;      /* "tensorpipe"; [a-z0-9_]+ */
  const char* version;
  const char* vendor;
  /* What the section [transport.<name>] may hold, as JSON, one member for each key:
   *   {"key": {"type": "string|integer|boolean|number|array|object", "default": ..., "help": "one sentence"}}
   * type and help must be there; default is of the type, and absent where an option has none. "secret": true keeps
   * the value out of what is printed. NULL: no options. The host refuses unknown keys and other types before create,
   * where it knows the place in the user's file; create sees the values, and refuses all that is wrong itself. */
  const char* options_schema;
  uint64_t max_header; /* bytes */
  const gf_transport_vtable* vtable;
  uint64_t chunk; /* bytes of large segments that the host should have under way at a time, so that other frames get
                     between them; it sends them in two pieces, or in smaller ones while others go by. 0: the host
                     chooses */
} gf_transport_descriptor;

/* What the host tells about itself at entry. */
typedef struct gf_transport_entry_args {
  uint32_t struct_size;
  uint32_t host_epoch;
  uint32_t host_minor;
  uint32_t reserved;
} gf_transport_entry_args;

/* The one exported name. Returns the descriptor, or NULL with error filled when the host is not one that the plugin can
 * serve. Called once per process. */
typedef const gf_transport_descriptor* (*gf_transport_entry)(const gf_transport_entry_args* args,
                                                             gf_transport_error* error);
#define GF_TRANSPORT_ENTRY_NAME "gf_transport_entry_v0"

/* The plugin's epoch and minor, in an ELF note that the host reads before it loads the file, so that constructors of a
 * plugin of another epoch never run. Put GF_TRANSPORT_NOTE; into one source file of the plugin. */
#define GF_TRANSPORT_NOTE_NAME "Gradferry"
#define GF_TRANSPORT_NOTE_TYPE 1u
typedef struct gf_transport_note {
  uint32_t name_size;
  uint32_t desc_size;
  uint32_t type;
  char name[12]; /* "Gradferry", padded with NUL */
  uint32_t epoch;
  uint32_t minor;
} gf_transport_note;
#define GF_TRANSPORT_NOTE                                                                                             \
  __attribute__((section(".note.gradferry"), used, aligned(4))) static const gf_transport_note gf_transport_note_ = { \
      10u,                                                                                                            \
      8u,                                                                                                             \
      GF_TRANSPORT_NOTE_TYPE,                                                                                         \
      {'G', 'r', 'a', 'd', 'f', 'e', 'r', 'r', 'y', 0, 0, 0},                                                         \
      GF_TRANSPORT_EPOCH,                                                                                             \
      GF_TRANSPORT_MINOR}

#ifdef __cplusplus
}
#endif

#endif /* GRADFERRY_TRANSPORT_H_ */
