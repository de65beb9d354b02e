/* gradferry.h - distributed autograd for any language: the C ABI for runtimes, epoch 0.
 *
 * One backward pass crosses processes. Each process is a worker of a group; a worker calls operators and handlers on
 * others with tensors as arguments; when such calls are made within a context, every tensor that requires grad leaves
 * a send function here and a recv function there, and gf_backward ferries the gradients back along them.
 *
 * Rules that hold for every function, so that the comments below need not repeat them:
 *
 *   Result     int32_t, GF_OK (0) or another GF_* code. The last parameter may be NULL; otherwise it receives, on
 *              failure, an error that the caller owns (gf_error_unref) and, on success, NULL.
 *   Out        Out-parameters are set to zero on entry and stay so on failure. They may not be NULL, unless said.
 *   Handles    Opaque, reference counted. A handle put into an out-parameter is owned by the caller, who gives it back
 *              with gf_<noun>_unref. _ref and _unref may be called from any thread, in any order (children hold their
 *              parents), in finalizers and at exit; they never block and never fail; _unref(NULL) does nothing. A
 *              handle of the wrong kind or one given back already is refused with GF_INVALID_ARGUMENT wherever that
 *              can be seen; do not rely on it.
 *   Strings    In: UTF-8, pointer and length in bytes, borrowed for the call. Out: a borrowed view that lives as long
 *              as its handle, or the two-call pattern: (buffer, capacity, length). *length always receives the full
 *              length in bytes without the terminating NUL; with buffer NULL nothing else happens; with a capacity
 *              that does not hold length + 1 bytes nothing is written and GF_OUT_OF_RANGE is returned.
 *   Structs    Start with struct_size = sizeof. Zero-initialise them: a zero field means its default. Fields that this
 *              library does not know must be zero, or the call is refused with GF_UNSUPPORTED.
 *   Threads    Any thread, concurrently, unless a comment says "one call at a time" (for the same handle). Functions
 *              that wait say "Blocks". On a thread of the library itself (within a direct callback) gf_call_sync,
 *              gf_backward_sync and gf_future_wait may wait, another thread takes that one's place meanwhile; the other
 *              blocking functions return GF_REENTRANT instead of deadlocking.
 *   State      Nothing is kept per thread: the context, the deadline and the grad mode are arguments.
 *   Time       Nanoseconds from now, in int64_t; 0 is the worker's default, GF_NO_DEADLINE is none.
 *   Fork       After fork only exec is allowed: calls in the child fail with GF_FAILED_PRECONDITION.
 *
 * No function writes to stdout or stderr (but for the log, when a configuration says `logging.file = "stderr"`),
 * installs a signal handler, exits, or lets a C++ exception out.
 */
#ifndef GRADFERRY_GRADFERRY_H_
#define GRADFERRY_GRADFERRY_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define GF_API __attribute__((visibility("default")))
#else
#define GF_API
#endif

/* Called once, after the last call of the callback that it was registered with, on any thread. */
typedef void (*gf_drop)(uintptr_t token);

/* ---- Versions -------------------------------------------------------------------------------------------------- */

#define GF_ABI_EPOCH 0u /* changes when anything breaks; epoch 0 promises nothing yet */
#define GF_ABI_MINOR 0u /* counts additions within the epoch */
#define GF_SINCE_0 0u   /* "since" marks: the minor in which a function appeared */

/* An immutable error; see below. */
typedef struct gf_error gf_error;

/* Epoch in the high 16 bits, minor in the low 16, of the library that is loaded. Never fails. Since GF_SINCE_0, as is
 * everything below. */
GF_API uint32_t gf_abi_version(void);

/* JSON about the loaded library: release, abi {epoch, minor}, torch {compiled, loaded}, compiler, plugins found (name,
 * path). Two-call string. */
GF_API int32_t gf_build_info(char* buffer, size_t capacity, size_t* length, gf_error** error);

/* ---- Codes and errors ------------------------------------------------------------------------------------------ */

/* The canonical codes, with the numbers of gRPC and Abseil. */
#define GF_OK 0
#define GF_CANCELLED 1
#define GF_UNKNOWN 2
#define GF_INVALID_ARGUMENT 3
#define GF_DEADLINE_EXCEEDED 4
#define GF_NOT_FOUND 5
#define GF_ALREADY_EXISTS 6
#define GF_PERMISSION_DENIED 7
#define GF_RESOURCE_EXHAUSTED 8
#define GF_FAILED_PRECONDITION 9
#define GF_ABORTED 10
#define GF_OUT_OF_RANGE 11
#define GF_UNIMPLEMENTED 12
#define GF_INTERNAL 13
#define GF_UNAVAILABLE 14
#define GF_DATA_LOSS 15
#define GF_UNAUTHENTICATED 16
/* Ours. */
#define GF_CLOSED 64       /* the worker, queue or future was closed */
#define GF_PEER_LOST 65    /* the connection to a worker broke, or it left */
#define GF_PASS_ABORTED 66 /* a backward pass failed; the cause says where and why */
#define GF_UNSUPPORTED 67  /* a struct field, dtype, layout or device that this build does not know */
#define GF_REENTRANT 68    /* a blocking call on a thread of the library */

/* Whether trying again makes sense (gf_error_retry). */
#define GF_RETRY_NEVER 0u
#define GF_RETRY_SAME_PEER 1u
#define GF_RETRY_OTHER_PEER 2u

/* Texts of an error (gf_error_text). */
#define GF_ERROR_MESSAGE 0u /* one sentence: what, where, what was wanted, what was got */
#define GF_ERROR_DOMAIN 1u  /* "core", "autograd" or "transport.<name>" */
#define GF_ERROR_WORKER 2u  /* the worker where it happened; empty when it is this process and no worker is involved */
#define GF_ERROR_OPERATION 3u /* the operator, handler, node or message concerned */
#define GF_ERROR_PEER 4u      /* the other worker involved */
#define GF_ERROR_BACKTRACE 5u /* C++ backtrace when libtorch gave one */

GF_API gf_error* gf_error_ref(gf_error* error);
GF_API void gf_error_unref(gf_error* error);
/* GF_OK for NULL. */
GF_API int32_t gf_error_code(const gf_error* error);
/* A borrowed view of one text; "" for NULL and for texts that are absent. length may be NULL; the text ends with NUL.
 */
GF_API const char* gf_error_text(const gf_error* error, uint32_t which, size_t* length);
/* Time that the failed operation had taken, in ns; 0 when not measured. */
GF_API int64_t gf_error_elapsed_ns(const gf_error* error);
/* One of GF_RETRY_*. */
GF_API uint32_t gf_error_retry(const gf_error* error);
/* The cause, borrowed, or NULL. */
GF_API const gf_error* gf_error_cause(const gf_error* error);
/* The whole chain in one line for people. Two-call string. */
GF_API int32_t gf_error_describe(const gf_error* error, char* buffer, size_t capacity, size_t* length);
/* An error of the caller's own, for callbacks that report one. code is one of GF_*, not GF_OK. */
GF_API int32_t gf_error_new(int32_t code, const char* message, size_t length, gf_error** out, gf_error** error);
/* "DEADLINE_EXCEEDED" for GF_DEADLINE_EXCEEDED; "UNKNOWN_CODE" for a number that is none. Static. */
GF_API const char* gf_code_name(int32_t code);

/* ---- Log and live objects -------------------------------------------------------------------------------------- */

#define GF_LOG_DEBUG 0u
#define GF_LOG_INFO 1u
#define GF_LOG_WARNING 2u
#define GF_LOG_ERROR 3u
#define GF_LOG_OFF 4u

/* Called on any thread of the library, also concurrently; may call no function of this header but gf_code_name.
 * message is UTF-8, not terminated, borrowed for the call. */
typedef void (*gf_log_callback)(uintptr_t token, uint32_t level, const char* message, size_t length);

/* Sends messages of at least this level to the callback; NULL (as at start) discards them. Returns when no call of the
 * previous callback is running any more. Blocks. */
GF_API int32_t gf_log_set(gf_log_callback callback, uintptr_t token, uint32_t level, gf_error** error);

/* Kinds of gf_live_objects. */
#define GF_LIVE_HANDLES 0u /* every handle that a caller owns, of all kinds below but gf_error */
#define GF_LIVE_ERRORS 1u
#define GF_LIVE_TENSORS 2u
#define GF_LIVE_LISTS 3u
#define GF_LIVE_OPERATORS 4u
#define GF_LIVE_CONFIGS 5u
#define GF_LIVE_QUEUES 6u
#define GF_LIVE_FUTURES 7u
#define GF_LIVE_REQUESTS 8u
#define GF_LIVE_WORKERS 9u
#define GF_LIVE_CONTEXTS 10u
#define GF_LIVE_OPTIMIZERS 11u
#define GF_LIVE_AUTOGRAD_CONTEXTS 32u /* contexts in the containers of all workers of this process */
#define GF_LIVE_SEND_FUNCTIONS 33u    /* SendRpcBackward nodes */
#define GF_LIVE_RECV_FUNCTIONS 34u    /* RecvRpcBackward nodes */
#define GF_LIVE_PASSES 35u            /* passes, here, that have not ended */
#define GF_LIVE_CALLS 36u             /* calls sent and not answered yet */
#define GF_LIVE_CONNECTIONS 37u

/* How many objects of a kind live in this process now; -1 for a kind that is none. For tests of bindings: they end at
 * zero. */
GF_API int64_t gf_live_objects(uint32_t kind);

/* ---- Tensors --------------------------------------------------------------------------------------------------- */

/* dtype codes, bits and lanes are DLPack's triple; lanes is always 1. */
#define GF_DTYPE_INT 0u
#define GF_DTYPE_UINT 1u
#define GF_DTYPE_FLOAT 2u
#define GF_DTYPE_BFLOAT 4u
#define GF_DTYPE_COMPLEX 5u
#define GF_DTYPE_BOOL 6u

/* Device types are DLPack's too. */
#define GF_DEVICE_CPU 1u
#define GF_DEVICE_CUDA 2u
#define GF_DEVICE_EXT 12u /* any device that DLPack has no number for */

#define GF_LAYOUT_STRIDED 0u
#define GF_LAYOUT_SPARSE_COO 1u
#define GF_LAYOUT_OTHER 2u

/* A tensor: a reference to a libtorch tensor, with its place in the autograd graph. */
typedef struct gf_tensor gf_tensor;

/* Called once when the last user of the memory is gone: late, on any thread; may call no function of this header. */
typedef void (*gf_deleter)(uintptr_t token);

/* Memory of the caller as a tensor (gf_tensor_from_memory). */
typedef struct gf_memory {
  uint32_t struct_size;
  uint8_t dtype_code; /* GF_DTYPE_* */
  uint8_t dtype_bits;
  uint16_t dtype_lanes;   /* 1, or 0 for 1 */
  void* data;             /* aligned for the dtype; NULL only when the tensor has no elements */
  const int64_t* shape;   /* ndim sizes, each at least 0 */
  const int64_t* strides; /* ndim strides in elements, each at least 0; NULL is contiguous (row-major) */
  int64_t ndim;           /* at most 64 */
  gf_deleter deleter;     /* NULL: the memory must outlive every use, remote ones of it included */
  uintptr_t deleter_token;
} gf_memory;

/* What a tensor is (gf_tensor_describe). The pointers are borrowed and live as long as the handle. */
typedef struct gf_tensor_info {
  uint32_t struct_size;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  uint32_t device_type; /* GF_DEVICE_* */
  int32_t device_index;
  uint32_t layout;       /* GF_LAYOUT_* */
  int32_t requires_grad; /* 1 when autograd records uses of it */
  int32_t is_leaf;
  uint32_t reserved;      /* 0 */
  int64_t ndim;           /* number of dimensions */
  int64_t numel;          /* number of elements */
  const int64_t* shape;   /* ndim sizes */
  const int64_t* strides; /* ndim strides in elements; NULL unless strided */
  void* data; /* the first element; NULL unless strided, on the CPU, and without a lazy conjugate or negation.
                 Writing is the caller's risk */
} gf_tensor_info;

/* A shape of dtype, as an argument (gf_tensor_empty). */
typedef struct gf_shape {
  uint32_t struct_size;
  uint8_t dtype_code;
  uint8_t dtype_bits;
  uint16_t dtype_lanes;
  const int64_t* shape;
  int64_t ndim;
} gf_shape;

/* Door 1: wraps memory of the caller without a copy. When it fails the deleter is not called. */
GF_API int32_t gf_tensor_from_memory(const gf_memory* memory, gf_tensor** out, gf_error** error);

/* Door 4: a new contiguous CPU tensor with memory of our own, its values not set. Fill it through gf_tensor_info.data.
 */
GF_API int32_t gf_tensor_empty(const gf_shape* shape, gf_tensor** out, gf_error** error);

struct DLManagedTensor;          /* of dlpack.h, before version 1 */
struct DLManagedTensorVersioned; /* of dlpack.h, version 1 */

/* Door 2: takes over a DLPack tensor without a copy; its deleter is called once when the last user is gone. When it
 * fails the caller keeps it. The versioned one is refused when its major version is not 1; a read-only one is copied.
 */
GF_API int32_t gf_tensor_from_dlpack(struct DLManagedTensorVersioned* dlpack, gf_tensor** out, gf_error** error);
GF_API int32_t gf_tensor_from_dlpack_legacy(struct DLManagedTensor* dlpack, gf_tensor** out, gf_error** error);

/* A DLPack 1.0 view of a strided tensor; the caller calls its deleter. Refused for a tensor that requires grad: detach
 * it first. */
GF_API int32_t gf_tensor_to_dlpack(gf_tensor* tensor, struct DLManagedTensorVersioned** out, gf_error** error);

/* Door 3: a heap-allocated at::Tensor*, as tch-rs, gotch, DJL and TorchSharp hold it; the autograd graph is kept.
 * torch_version is TORCH_VERSION of the caller's headers ("2.6.0"); it must be the one that is loaded, and the tensor
 * of the libtorch that this library uses: GF_FAILED_PRECONDITION otherwise. _from_aten borrows: the at::Tensor stays
 * the caller's. _adopt_aten takes it over and deletes it. _to_aten makes a new one that the caller deletes. */
GF_API int32_t gf_tensor_from_aten(const void* at_tensor, const char* torch_version, size_t length, gf_tensor** out,
                                   gf_error** error);
GF_API int32_t gf_tensor_adopt_aten(void* at_tensor, const char* torch_version, size_t length, gf_tensor** out,
                                    gf_error** error);
GF_API int32_t gf_tensor_to_aten(gf_tensor* tensor, const char* torch_version, size_t length, void** out,
                                 gf_error** error);

GF_API gf_tensor* gf_tensor_ref(gf_tensor* tensor);
GF_API void gf_tensor_unref(gf_tensor* tensor);

/* Fills *info; info->struct_size must be set. */
GF_API int32_t gf_tensor_describe(gf_tensor* tensor, gf_tensor_info* info, gf_error** error);

/* Makes a leaf require grad, or not. Only floating point and complex tensors can; a result of recorded operators
 * (not a leaf) always does. One call at a time. */
GF_API int32_t gf_tensor_set_requires_grad(gf_tensor* tensor, int32_t requires_grad, gf_error** error);

/* Copies the elements, row-major, into size bytes of the caller; size must be numel times the element's size. */
GF_API int32_t gf_tensor_read(gf_tensor* tensor, void* data, size_t size, gf_error** error);

/* 1 when both handles are the same tensor for autograd, as gradients are looked up by; else 0. */
GF_API int32_t gf_tensor_is_same(gf_tensor* a, gf_tensor* b);

/* ---- Hooks of tensors ------------------------------------------------------------------------------------------ */

/* Called when a backward pass, or a backward of libtorch itself, has computed the gradient of the tensor that it was
 * registered with: the sum of all contributions, before it goes on. gradient is borrowed (gf_tensor_ref keeps it) and
 * must not be changed in place; it is NULL when the tensor is one of several results of an operator and the backward
 * came to another of them only. May put a tensor of the same shape, dtype and device, which it gives away, into
 * *replacement (NULL at first): it takes the gradient's place, for the hooks that follow as well. Returns GF_OK, or the
 * code of an error that it may put into *error (NULL at first; gf_error_new, or what another function gave): that ends
 * the pass, whose error then has this one as its cause. Runs on a thread of the library, or on that of libtorch's
 * backward. */
typedef int32_t (*gf_hook)(uintptr_t token, gf_tensor* gradient, gf_tensor** replacement, gf_error** error);

/* A hook (gf_tensor_register_hook). */
typedef struct gf_tensor_hook {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */
  gf_hook callback;
  gf_drop drop; /* may be NULL */
  uintptr_t token;
} gf_tensor_hook;

/* Adds a hook to a tensor that requires grad, leaf or not, received from another worker or not. The hooks of a tensor
 * run in the order in which they were registered, once in each pass that reaches the tensor, as those of libtorch,
 * among which they are. They live as long as the tensor, or the graph that it is part of, or until they are removed.
 * *id is a number for gf_tensor_remove_hook. When this fails, drop is not called. The first hook of a tensor must not
 * be registered while a pass reaches the tensor. */
GF_API int32_t gf_tensor_register_hook(gf_tensor* tensor, const gf_tensor_hook* hook, uint64_t* id, gf_error** error);
/* Takes a hook away: no call of it begins after this, one that runs ends. May be called by a hook. GF_NOT_FOUND when
 * the tensor has no hook of this number, or no more. */
GF_API int32_t gf_tensor_remove_hook(gf_tensor* tensor, uint64_t id, gf_error** error);

/* Keeps the gradient of a tensor that is no leaf: every pass that computes it adds it to the gradients of the context,
 * where gf_context_gradient finds it for this tensor while the tensor lives; a pass that fails takes it back. It is a
 * copy, as the hooks that were registered before have left it. `.grad` is not touched, and a backward of libtorch
 * itself keeps nothing. Nothing happens for a leaf, whose gradients contexts keep anyway, nor the second time. */
GF_API int32_t gf_tensor_retain_grad(gf_tensor* tensor, gf_error** error);

/* ---- Lists of values: arguments and results -------------------------------------------------------------------- */

#define GF_VALUE_NONE 0u
#define GF_VALUE_BOOL 1u
#define GF_VALUE_INT 2u
#define GF_VALUE_DOUBLE 3u
#define GF_VALUE_STRING 4u
#define GF_VALUE_BYTES 5u
#define GF_VALUE_TENSOR 6u
#define GF_VALUE_LIST 7u
#define GF_VALUE_DEFAULT 8u /* as an operator's argument: the schema's default */

/* A list of values of the kinds above; the arguments of a call and its results are such lists. Pushing is "one call at
 * a time"; a list handed to a call is copied (tensors by reference), so that it can be reused. */
typedef struct gf_list gf_list;

GF_API int32_t gf_list_new(gf_list** out, gf_error** error);
GF_API gf_list* gf_list_ref(gf_list* list);
GF_API void gf_list_unref(gf_list* list);
GF_API int32_t gf_list_push_none(gf_list* list, gf_error** error);
GF_API int32_t gf_list_push_default(gf_list* list, gf_error** error);
GF_API int32_t gf_list_push_bool(gf_list* list, int32_t value, gf_error** error);
GF_API int32_t gf_list_push_int(gf_list* list, int64_t value, gf_error** error);
GF_API int32_t gf_list_push_double(gf_list* list, double value, gf_error** error);
GF_API int32_t gf_list_push_string(gf_list* list, const char* text, size_t length, gf_error** error);
GF_API int32_t gf_list_push_bytes(gf_list* list, const void* data, size_t length, gf_error** error);
GF_API int32_t gf_list_push_tensor(gf_list* list, gf_tensor* tensor, gf_error** error);
GF_API int32_t gf_list_push_list(gf_list* list, gf_list* value, gf_error** error);

/* Number of values; 0 for NULL. */
GF_API size_t gf_list_size(const gf_list* list);
/* GF_VALUE_* of the value at index; GF_VALUE_NONE beyond the end. */
GF_API uint32_t gf_list_kind(const gf_list* list, size_t index);
/* The value at index; GF_OUT_OF_RANGE beyond the end, GF_INVALID_ARGUMENT for another kind than the function's. */
GF_API int32_t gf_list_get_bool(const gf_list* list, size_t index, int32_t* out, gf_error** error);
GF_API int32_t gf_list_get_int(const gf_list* list, size_t index, int64_t* out, gf_error** error);
GF_API int32_t gf_list_get_double(const gf_list* list, size_t index, double* out, gf_error** error);
/* String or bytes; the view lives until the list is pushed to or given back. */
GF_API int32_t gf_list_get_bytes(const gf_list* list, size_t index, const char** out, size_t* length, gf_error** error);
GF_API int32_t gf_list_get_tensor(const gf_list* list, size_t index, gf_tensor** out, gf_error** error);
GF_API int32_t gf_list_get_list(const gf_list* list, size_t index, gf_list** out, gf_error** error);

/* ---- Local operator calls -------------------------------------------------------------------------------------- */

/* An operator of libtorch's dispatcher: look it up once, call it often. */
typedef struct gf_operator gf_operator;

/* name is qualified ("aten::add"), overload may be empty ("", or "Tensor"). GF_NOT_FOUND names the overloads that
 * exist. */
GF_API int32_t gf_operator_find(const char* name, size_t name_length, const char* overload, size_t overload_length,
                                gf_operator** out, gf_error** error);
GF_API gf_operator* gf_operator_ref(gf_operator* op);
GF_API void gf_operator_unref(gf_operator* op);

/* The schema as text: "aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor". Borrowed. */
GF_API const char* gf_operator_schema(const gf_operator* op, size_t* length);

#define GF_GRAD_OFF 0u    /* as under no_grad */
#define GF_GRAD_RECORD 1u /* autograd records the call */

/* Calls the operator in this process. arguments are positional in the schema's order, keyword-only ones included;
 * trailing ones may be left out and GF_VALUE_DEFAULT stands in where the schema has a default. An argument that does
 * not fit gives an error that names the operator, the parameter, what it wants and what it got. results has one value
 * per return of the schema. Runs on the calling thread. */
GF_API int32_t gf_operator_call(gf_operator* op, const gf_list* arguments, uint32_t grad, gf_list** results,
                                gf_error** error);

/* ---- Queues and futures ---------------------------------------------------------------------------------------- */

typedef struct gf_queue gf_queue;
typedef struct gf_future gf_future;
typedef struct gf_request gf_request;
typedef struct gf_worker gf_worker;
typedef struct gf_context gf_context;

#define GF_NO_DEADLINE INT64_MAX

#define GF_ENTRY_COMPLETION 1u /* an asynchronous call has ended: code, and results or error */
#define GF_ENTRY_REQUEST 2u    /* a call for one of our handlers: request */
#define GF_ENTRY_WAKE 3u       /* gf_queue_wake */

/* One entry. What is not NULL in it is owned by whoever took it. */
typedef struct gf_entry {
  uintptr_t token; /* of the call or of the handler's registration */
  uint32_t kind;   /* GF_ENTRY_* */
  int32_t code;
  gf_request* request;
  gf_list* results;
  gf_error* error;
} gf_entry;

/* A queue of completions and inbound requests; one or more threads may take from it. */
GF_API int32_t gf_queue_new(gf_queue** out, gf_error** error);
GF_API gf_queue* gf_queue_ref(gf_queue* queue);
GF_API void gf_queue_unref(gf_queue* queue);

/* Takes up to capacity entries; waits for the first one at most timeout ns (0: does not wait, GF_NO_DEADLINE: for
 * ever). *count is 0, with GF_OK, when the time ran out. Blocks unless timeout is 0. */
GF_API int32_t gf_queue_next(gf_queue* queue, gf_entry* entries, size_t capacity, int64_t timeout, size_t* count,
                             gf_error** error);

/* An eventfd that is readable while entries wait, for epoll and its relatives. The queue owns it; only poll it. */
GF_API int32_t gf_queue_fd(gf_queue* queue, int32_t* out, gf_error** error);

/* Adds an entry of kind GF_ENTRY_WAKE. */
GF_API int32_t gf_queue_wake(gf_queue* queue, uintptr_t token, gf_error** error);

/* The outcome of an asynchronous call. Exactly one of result, error or cancel. */
GF_API gf_future* gf_future_ref(gf_future* future);
GF_API void gf_future_unref(gf_future* future);

/* 1 when it has ended, else 0. */
GF_API int32_t gf_future_is_done(gf_future* future);

/* Waits for the end, at most timeout ns: GF_DEADLINE_EXCEEDED leaves the call running. Returns GF_OK when it has ended,
 * however it ended. Blocks. */
GF_API int32_t gf_future_wait(gf_future* future, int64_t timeout, gf_error** error);

/* Asks to end the call: it ends with GF_CANCELLED unless it has ended, and the callee is told. */
GF_API int32_t gf_future_cancel(gf_future* future, gf_error** error);

/* The results, or the error that it ended with; GF_FAILED_PRECONDITION while it runs. results may be NULL. May be
 * called again. */
GF_API int32_t gf_future_take(gf_future* future, gf_list** results, gf_error** error);

/* The profile of a call that was made with gf_call.profile and has ended, as JSON: {"dropped", "events"}. Events are in
 * the order of their beginnings: {"name", "kind", "worker", "thread", "parent", "depth", "start_ns", "end_ns"}. parent
 * is the index of the event around it, or -1; times are ns since the call began. kind is "call" (as its caller sees it,
 * the first event is this one), "request" (the same at the callee), "handler" (a direct handler, or what was between
 * gf_request_profile_begin and _end) or "operator" (what libtorch records). An event of another worker is placed in the
 * middle of the call around it, since their clocks differ, and lies within it. Operators are recorded on the threads of
 * the library that run operator calls and direct handlers, and where gf_request_profile_begin was called; not on other
 * threads that a handler or an operator uses. Calls that were answered with an error have a profile too. dropped counts
 * events beyond limits.profile_events or the size of a reply. GF_FAILED_PRECONDITION while the call runs, GF_NOT_FOUND
 * when it was not profiled or was cancelled here. Two-call string. */
GF_API int32_t gf_future_profile(gf_future* future, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* ---- Configuration --------------------------------------------------------------------------------------------- */

/* The settings of a worker. Precedence: gf_config_set, then the environment (GRADFERRY_<SECTION>_<KEY>, read by
 * gf_worker_open), then the text or file, then defaults. Keys: docs/configuration.md. An unknown key is an error that
 * names it and the nearest known one. One call at a time. */
typedef struct gf_config gf_config;

GF_API int32_t gf_config_new(gf_config** out, gf_error** error);
GF_API gf_config* gf_config_ref(gf_config* config);
GF_API void gf_config_unref(gf_config* config);
/* Adds TOML; a later text overrides an earlier one key by key. Errors name the line. */
GF_API int32_t gf_config_load_text(gf_config* config, const char* toml, size_t length, gf_error** error);
GF_API int32_t gf_config_load_file(gf_config* config, const char* path, size_t length, gf_error** error);
/* Sets one key ("worker.name") to a value written as in TOML ("3", "true", "[1, 2]"); for a key that is a string the
 * bare text will do. */
GF_API int32_t gf_config_set(gf_config* config, const char* key, size_t key_length, const char* value,
                             size_t value_length, gf_error** error);
/* Asks the plugins whether they take their sections: those of transport.name, which are loaded and made as opening a
 * worker does, without listening, and those of all other sections transport.<name>. The environment of now counts. The
 * error names the place (file and line, variable), what is wanted, what was got and the nearest option; or the plugin
 * that is missing or unusable, and why. From then on gf_config_describe has the options of these transports, too,
 * their defaults included; also of those that were asked before an error. Blocks for as long as plugins take to load.
 */
GF_API int32_t gf_config_check(gf_config* config, gf_error** error);
/* The effective settings as JSON: {"key": {"value": ..., "from": "call" | "environment" | "file" | "default", "where":
 * "worker.toml:3" or the variable's name, absent for a call and a default}}. Secrets are left out. Two-call string. */
GF_API int32_t gf_config_describe(gf_config* config, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* ---- Workers --------------------------------------------------------------------------------------------------- */

/* A worker that nobody can reach yet: its handlers can be registered, everything else waits for gf_worker_start. config
 * may be NULL: environment and defaults. */
GF_API int32_t gf_worker_create(gf_config* config, gf_worker** out, gf_error** error);
/* Loads the transport, listens, and joins the group by its list of peers or by its rendezvous, waiting for every
 * member's address at most group.join_timeout. Once; when it fails the worker is closed. Blocks. */
GF_API int32_t gf_worker_start(gf_worker* worker, gf_error** error);
/* Both at once, for a worker whose peers do not call it before it has registered its handlers. Blocks. */
GF_API int32_t gf_worker_open(gf_config* config, gf_worker** out, gf_error** error);
GF_API gf_worker* gf_worker_ref(gf_worker* worker);
/* Giving back the last handle aborts the worker in the background when it is still open. */
GF_API void gf_worker_unref(gf_worker* worker);

/* JSON: name, id, group, incarnation, address, transport (several with blanks between), state, peers [{name, id,
 * address, transport (of the connection that there is, "" when there is none), connection (null, or what the transport
 * knows of its other side: {address, encrypted, path, and identities where it has proof of names}), state: "idle" |
 * "connected" | "suspect" | "lost"}], contexts, passes, calls (sent and not answered), waiting_calls (for room),
 * requests (to be answered), metrics (counts of frames, bytes, lost connections, repeated clean-ups),
 * transport_counters; fields may be added. Two-call string. */
GF_API int32_t gf_worker_info(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* What the worker has counted since it was made, in Prometheus's text format, as `metrics.listen` of the configuration
 * serves it: calls by kind and outcome, bytes, frames and times for each peer, the pool, live objects. docs/metrics.md
 * lists the families. Two-call string: the text changes between the calls, so leave room. */
GF_API int32_t gf_worker_metrics(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* A member of the group (gf_worker_add_peer). */
typedef struct gf_peer {
  uint32_t struct_size;
  int32_t id;       /* 0..32767 */
  const char* name; /* 1..127 of [A-Za-z0-9_:.-] */
  size_t name_length;
  const char* address; /* as gf_worker_address gives it over there; without a transport's name it belongs to the first
                          transport of this worker, so `name=address` where workers have different ones */
  size_t address_length;
} gf_peer;

/* Adds a member whose address became known later, or tells a new address of a known one. */
GF_API int32_t gf_worker_add_peer(gf_worker* worker, const gf_peer* peer, gf_error** error);

/* Where this worker listens: an address as its transport writes them, or, when it has several, `name=address` for each
 * with blanks between. Two-call string. */
GF_API int32_t gf_worker_address(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* Closes: refuses new calls, lets the running ones (both ways) end until the deadline, says goodbye to the peers, and
 * frees everything. What still runs then ends with GF_CLOSED. Idempotent. The future ends with GF_OK, or with
 * GF_DEADLINE_EXCEEDED when something had to be cut short; the worker is closed in both cases. */
GF_API int32_t gf_worker_close_start(gf_worker* worker, int64_t deadline, gf_future** out, gf_error** error);
/* The same, waiting. Blocks. */
GF_API int32_t gf_worker_close(gf_worker* worker, int64_t deadline, gf_error** error);

/* Ends everything now, without goodbye: pending calls end with GF_CLOSED. Returns at once. Idempotent. */
GF_API int32_t gf_worker_abort(gf_worker* worker, gf_error** error);

/* The trace of a worker: while it is on, the calls of this worker, the requests that it gets, the passes that it starts
 * and its parts in those of others are recorded, with the profiles of calls and requests that are profiled nested
 * within them. The newest capacity events are kept (0: 65536; at most 10,000,000). Starting forgets what there was;
 * stopping keeps it. */
GF_API int32_t gf_worker_trace_start(gf_worker* worker, uint64_t capacity, gf_error** error);
GF_API int32_t gf_worker_trace_stop(gf_worker* worker, gf_error** error);
/* What was recorded, in the JSON format of Chrome's traces, which Perfetto opens: pid is the worker's id, tid a row of
 * events that do not overlap, ts and dur are µs of CLOCK_MONOTONIC; args says worker, thread, peer and outcome, and of
 * what was sent to or received from another worker flow and side, by which `gradferry trace merge` draws arrows;
 * otherData.dropped how many older events were dropped. Two-call string. */
GF_API int32_t gf_worker_trace_json(gf_worker* worker, char* buffer, size_t capacity, size_t* length, gf_error** error);

/* ---- Handlers and requests ------------------------------------------------------------------------------------- */

/* A direct handler: runs on a thread of the library, may be called concurrently, must not block, and owns the request.
 * It may answer now or later. */
typedef void (*gf_handler)(uintptr_t token, gf_request* request);
/* Registers a handler under a name (1..255 bytes): requests for it arrive on the queue as GF_ENTRY_REQUEST with the
 * token. GF_ALREADY_EXISTS when the name is taken. */
GF_API int32_t gf_worker_handle_queue(gf_worker* worker, const char* name, size_t length, gf_queue* queue,
                                      uintptr_t token, gf_error** error);

/* The handler runs on the thread that reads the caller's connection, which saves a change of threads but keeps every
 * other message of that connection, or of all, waiting meanwhile. For handlers that take microseconds; what blocks
 * fails with GF_REENTRANT there, calls and backward passes included. */
#define GF_DIRECT_INLINE 1u

/* The callback twin (gf_worker_handle_direct). */
typedef struct gf_direct {
  uint32_t struct_size;
  uint32_t flags; /* GF_DIRECT_*, or 0 */
  gf_handler handler;
  gf_drop drop; /* may be NULL */
  uintptr_t token;
} gf_direct;

/* Registers a direct handler. When it fails, drop is not called. */
GF_API int32_t gf_worker_handle_direct(gf_worker* worker, const char* name, size_t length, const gf_direct* direct,
                                       gf_error** error);

/* Takes a handler away: later requests for it fail with GF_NOT_FOUND; running ones go on. */
GF_API int32_t gf_worker_unhandle(gf_worker* worker, const char* name, size_t length, gf_error** error);

/* A call for one of our handlers. It is answered exactly once, from any thread; one that is given back unanswered is
 * answered with GF_INTERNAL. */
GF_API gf_request* gf_request_ref(gf_request* request);
GF_API void gf_request_unref(gf_request* request);
/* The arguments. Tensors that required grad at the caller do so here when the call is in a context and records. */
GF_API int32_t gf_request_arguments(gf_request* request, gf_list** out, gf_error** error);
/* Name of the handler that was called, and of the calling worker. Borrowed views. */
GF_API const char* gf_request_name(gf_request* request, size_t* length);
GF_API const char* gf_request_caller(gf_request* request, size_t* length);
/* The context of the call, or NULL with GF_OK when it was made in none. */
GF_API int32_t gf_request_context(gf_request* request, gf_context** out, gf_error** error);
/* GF_GRAD_RECORD or GF_GRAD_OFF: the caller's grad mode, to hand to gf_operator_call and to nested calls. */
GF_API uint32_t gf_request_grad(gf_request* request);
/* ns until the caller gives up; at most 0 when it has; GF_NO_DEADLINE when it never does. */
GF_API int64_t gf_request_time_left(gf_request* request);
/* 1 when nobody waits for the answer any more: the call was cancelled, or the caller is gone. */
GF_API int32_t gf_request_is_cancelled(gf_request* request);
/* Answers with results (NULL: none). A second answer fails with GF_FAILED_PRECONDITION. Tensors are sent from their own
 * memory and may still be on their way when this returns: answer with a clone of what is changed in place soon after.
 */
GF_API int32_t gf_request_reply(gf_request* request, const gf_list* results, gf_error** error);
/* Answers with an error: code is not GF_OK. */
GF_API int32_t gf_request_fail(gf_request* request, int32_t code, const char* message, size_t length, gf_error** error);

/* From here on the calling thread works for this request: the operators that it runs are in the profile of the call.
 * Nothing happens when the call is not profiled. To be ended on the same thread, before what was begun earlier
 * (GF_FAILED_PRECONDITION); also when the request has been answered meanwhile, after which nothing is recorded. Direct
 * handlers need neither. */
GF_API int32_t gf_request_profile_begin(gf_request* request, gf_error** error);
GF_API int32_t gf_request_profile_end(gf_request* request, gf_error** error);

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

#define GF_CALL_HANDLER 0u
#define GF_CALL_OPERATOR 1u

#define GF_WHEN_FULL_DEFAULT 0u /* what call.when_full of the configuration says */
#define GF_WHEN_FULL_WAIT                                                                                           \
  1u                         /* the call is sent when there is room, in turn; GF_DEADLINE_EXCEEDED if there is none \
                                before its deadline. gf_call_start does not block */
#define GF_WHEN_FULL_FAIL 2u /* GF_RESOURCE_EXHAUSTED, which names the limit */

/* A call to a worker. Strings, bytes and the descriptions of tensors, all together, must fit the header of a frame: 1
 * MiB with the transports that come with the library (GF_RESOURCE_EXHAUSTED otherwise, as for results). Large data
 * travels as tensors, of GF_DTYPE_UINT 8 for instance, which have no such bound. Tensors are sent from their own
 * memory, without a copy: do not change them in place before the call has ended. */
typedef struct gf_call {
  uint32_t struct_size;
  uint32_t kind;  /* GF_CALL_* */
  const char* to; /* the worker's name; NULL: by to_id */
  size_t to_length;
  int64_t to_id;
  const char* name; /* of the handler, or qualified name of the operator */
  size_t name_length;
  const char* overload; /* of the operator; NULL is "" */
  size_t overload_length;
  gf_list* arguments;  /* NULL: none */
  gf_context* context; /* NULL: the parent's, else none; then no gradient flows and results require none */
  gf_request* parent;  /* the request that this call helps to answer: its context, grad mode, deadline and cancel
                          are inherited; may be NULL */
  int64_t deadline;    /* ns from now; 0: call.timeout of the configuration */
  uint32_t no_grad;    /* 1: as under no_grad, here and at the callee */
  uint32_t profile;    /* 1: record a profile of the call (gf_future_profile); a parent that is profiled has its calls
                          profiled as well */
  gf_queue* queue;     /* gf_call_start only: where the completion goes, or NULL */
  uintptr_t token;     /* for that completion */
  gf_future** ended;   /* gf_call_sync only, may be NULL: receives the call as a future that has ended, whatever its
                          outcome, for gf_future_profile; the caller gives it back */
  uint32_t when_full;  /* GF_WHEN_FULL_*: what to do when as many calls or bytes are under way as may be (limits.*) */
  uint32_t reserved;   /* 0 */
} gf_call;

/* Calls and waits for the results. Blocks. */
GF_API int32_t gf_call_sync(gf_worker* worker, const gf_call* call, gf_list** results, gf_error** error);

/* Starts a call. future may be NULL when call->queue is given. When this function fails nothing is delivered. */
GF_API int32_t gf_call_start(gf_worker* worker, const gf_call* call, gf_future** future, gf_error** error);

/* ---- Contexts -------------------------------------------------------------------------------------------------- */

/* A context: the calls of one or more forward passes, on all workers that they reached, and the gradients of the
 * backward passes over them. */
GF_API int32_t gf_context_new(gf_worker* worker, gf_context** out, gf_error** error);
/* The context with this id as this worker knows it; GF_NOT_FOUND when it takes no part in it. */
GF_API int32_t gf_context_find(gf_worker* worker, int64_t id, gf_context** out, gf_error** error);
GF_API gf_context* gf_context_ref(gf_context* context);
/* Giving back the last handle from gf_context_new releases the context in the background. */
GF_API void gf_context_unref(gf_context* context);
/* 16 bits of the worker's id, 48 bits of its counter; unique in the group. 0 for a handle that is none. */
GF_API int64_t gf_context_id(gf_context* context);
/* Frees the context here at once and tells every worker that took part to do so; returns without waiting for them.
 * Later uses fail with GF_NOT_FOUND; late calls are refused where they arrive. A running pass is aborted. */
GF_API int32_t gf_context_release(gf_context* context, gf_error** error);
/* JSON of this worker's part: id, known_workers, send_functions [{id, to, next: [[node, input]]}], recv_functions [{id,
 * from, outputs}], nodes [{id, name, next}] reachable from the send functions, gradients (count), passes. For people
 * and tests; fields may be added. Two-call string. */
GF_API int32_t gf_context_describe(gf_context* context, char* buffer, size_t capacity, size_t* length,
                                   gf_error** error);

#define GF_FORMAT_TEXT 0u
#define GF_FORMAT_JSON 1u

/* What the passes in this context wait for, on this worker: whose turn it is; for each pass its age, its state, which
 * peers owe it an answer and since when, and which send functions wait for gradients, from whom and since when; what is
 * being taken back after a failure. JSON: {context, worker, turn {initiator, number}, waiting_turns, passes
 * [{initiator, number, state, elapsed_ms, time_left_ms, nodes_run, unanswered [{peer, messages, for_ms}],
 * send_functions [{id, from, for_ms}]}], aborting {turn, because, unanswered}}; fields may be added. Does not wait for
 * the passes. Two-call string: the text changes between the calls, so leave room. */
GF_API int32_t gf_context_explain(gf_context* context, uint32_t format, char* buffer, size_t capacity, size_t* length,
                                  gf_error** error);

/* ---- Backward -------------------------------------------------------------------------------------------------- */

/* A pass. */
typedef struct gf_backward {
  uint32_t struct_size;
  uint32_t retain_graph;   /* 1: keep the graph for further passes */
  gf_tensor* const* roots; /* root_count tensors that require grad */
  size_t root_count;
  gf_tensor* const* grads; /* root_count seed gradients of the roots' shape and dtype; NULL, as array or entry: ones,
                              for a root of one element */
  int64_t deadline;        /* ns from now for the whole pass, on all workers; 0: backward.timeout of the
                              configuration */
  gf_queue* queue;         /* gf_backward_start only: where the completion goes, or NULL */
  uintptr_t token;
  gf_tensor* const* inputs; /* input_count tensors of this process that require grad, leaves or not: only their
                               gradients are computed, on this worker, and nothing that does not lead to them runs or is
                               sent, on any worker; NULL: the gradients of all leaves on all workers */
  size_t input_count;
} gf_backward;

/* Computes the gradients of the roots with respect to every leaf that they depend on, on every worker, and adds them to
 * the context there. `.grad` of tensors is never touched. When it returns, the gradients on all workers are complete.
 * The graph is walked exactly: what the roots do not depend on neither runs nor gets a gradient, results that nobody
 * used do no harm. An error on any worker ends the pass everywhere, with a GF_PASS_ABORTED whose cause names worker and
 * operator, and all workers take back the gradients that it had added: those
 * that answer, before this returns; the others (stopped, partitioned) before the next pass there begins. Passes in one
 * context run one after the other, in the order in which they ask the worker that made the context, whichever workers
 * begin them; the deadline includes that wait. A pass may begin within another one (in a tensor hook, say): it then
 * shares that one's turn, and when it fails so does the other. Blocks. */
GF_API int32_t gf_backward_sync(gf_context* context, const gf_backward* backward, gf_error** error);
/* Starts a pass; as gf_call_start. The completion has no results. */
GF_API int32_t gf_backward_start(gf_context* context, const gf_backward* backward, gf_future** future,
                                 gf_error** error);

/* The gradient that this context holds, here, for a tensor; GF_NOT_FOUND when there is none. It is the context's own
 * tensor: further passes may add to it in place. */
GF_API int32_t gf_context_gradient(gf_context* context, gf_tensor* tensor, gf_tensor** out, gf_error** error);
/* All of them: tensor, gradient, tensor, gradient, ... in the order of their first accumulation. */
GF_API int32_t gf_context_gradients(gf_context* context, gf_list** out, gf_error** error);

/* ---- Optimizers ------------------------------------------------------------------------------------------------ */

/* An optimizer over parameters of this process, from torch::optim. */
typedef struct gf_optimizer gf_optimizer;

/* spec is a line of TOML: 'sgd = { lr = 0.1, momentum = 0.9 }'. Kinds and keys (lr is always required but for adagrad
 * and rmsprop, adam and adamw, which have torch's default):
 *   sgd      lr momentum dampening weight_decay nesterov
 *   adam     lr beta1 beta2 eps weight_decay amsgrad
 *   adamw    the same
 *   rmsprop  lr alpha eps weight_decay momentum centered
 *   adagrad  lr lr_decay weight_decay initial_accumulator_value eps
 * parameters is a list of leaf tensors that require grad. */
GF_API int32_t gf_optimizer_new(const char* spec, size_t length, const gf_list* parameters, gf_optimizer** out,
                                gf_error** error);
GF_API gf_optimizer* gf_optimizer_ref(gf_optimizer* optimizer);
GF_API void gf_optimizer_unref(gf_optimizer* optimizer);
/* One step, in place, with the gradients that the context holds here. A parameter without a gradient in it is not
 * touched. `.grad` is neither read nor written. Steps of one optimizer run one after the other. */
GF_API int32_t gf_optimizer_step(gf_optimizer* optimizer, gf_context* context, gf_error** error);

#ifdef __cplusplus
}
#endif

#endif /* GRADFERRY_GRADFERRY_H_ */
