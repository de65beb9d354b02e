// See plugin.h.
#include "impl/transport/plugin.h"

#include <dlfcn.h>
#include <time.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <map>
#include <mutex>
#include <string_view>
#include <utility>

#include "impl/transport/elf_note.h"

namespace gradferry {
namespace {

// ---- Stubs for what a plugin need not have ----

int32_t NoStats(gf_transport*, char* buffer, size_t capacity, size_t* length) {
  constexpr std::string_view kEmpty = "{}";
  *length = kEmpty.size();
  if (buffer == nullptr) return static_cast<int32_t>(Code::kOk);
  if (capacity <= kEmpty.size()) return static_cast<int32_t>(Code::kOutOfRange);
  std::memcpy(buffer, kEmpty.data(), kEmpty.size() + 1);
  return static_cast<int32_t>(Code::kOk);
}

int32_t NoPeer(gf_transport_conn*, char* buffer, size_t capacity, size_t* length) {
  return NoStats(nullptr, buffer, capacity, length);
}

uint64_t MachineNow(gf_transport*) {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

void NoTimerSet(gf_transport*, uint64_t, uint64_t) {}
void NoDrive(gf_transport_conn*, uint64_t, int32_t (*)(void*), void*) {}
void NoWake(gf_transport_conn*) {}
void NoTimerCancel(gf_transport*, uint64_t) {}
void NoHold(gf_transport*, int32_t) {}

// ---- The descriptor ----

// True when the struct of this size has the whole field.
#define GF_HAS_FIELD_(type, size, field) ((size) >= offsetof(type, field) + sizeof(type::field))

// The vtable as far as both sides know it; the rest is null.
Result<gf_transport_vtable> CopyVtable(const gf_transport_vtable* vtable) {
  if (vtable == nullptr) return InvalidArgument("its descriptor has no vtable");
  if (vtable->struct_size < offsetof(gf_transport_vtable, create)) {
    return InvalidArgument(StrCat("its vtable's struct_size is ", vtable->struct_size, ", which holds no function"));
  }
  gf_transport_vtable copy{};
  std::memcpy(&copy, vtable, std::min<size_t>(vtable->struct_size, sizeof(copy)));
  return copy;
}

Status CheckRequiredSlots(const gf_transport_vtable& vtable, bool owns_time) {
  std::string missing;
  auto require = [&](const char* name, bool present) {
    if (!present) missing += StrCat(missing.empty() ? "" : ", ", name);
  };
  require("create", vtable.create != nullptr);
  require("destroy", vtable.destroy != nullptr);
  require("listen", vtable.listen != nullptr);
  require("connect", vtable.connect != nullptr);
  require("send", vtable.send != nullptr);
  require("close", vtable.close != nullptr);
  require("shutdown", vtable.shutdown != nullptr);
  if (owns_time) {
    require("now", vtable.now != nullptr);
    require("timer_set", vtable.timer_set != nullptr);
    require("timer_cancel", vtable.timer_cancel != nullptr);
    require("hold", vtable.hold != nullptr);
  }
  if (missing.empty()) return OkStatus();
  return InvalidArgument(StrCat("its vtable lacks required functions: ", missing));
}

void FillOptionalSlots(gf_transport_vtable& vtable) {
  if (vtable.stats == nullptr) vtable.stats = NoStats;
  if (vtable.peer == nullptr) vtable.peer = NoPeer;
  if (vtable.drive == nullptr || vtable.wake == nullptr) {
    vtable.drive = NoDrive;
    vtable.wake = NoWake;
  }
  if (vtable.now == nullptr) vtable.now = MachineNow;
  if (vtable.timer_set == nullptr) vtable.timer_set = NoTimerSet;
  if (vtable.timer_cancel == nullptr) vtable.timer_cancel = NoTimerCancel;
  if (vtable.hold == nullptr) vtable.hold = NoHold;
}

Status OtherEpoch(uint32_t epoch) {
  return Status(Code::kUnsupported,
                StrCat("it was made for transport epoch ", epoch, "; this library has epoch ", GF_TRANSPORT_EPOCH));
}

std::string TextOf(const char* text) { return text ? text : ""; }

// ---- Loaded files ----

// One file that was loaded, or is being loaded.
struct LoadedFile {
  std::mutex mutex;  // guards the rest; held while the file's constructors and its entry run, which must not open
                     // transports themselves
  bool entered = false;
  Result<std::shared_ptr<const Plugin>> plugin{Internal("not loaded yet")};  // final once entered
};

// By file, for the whole process, like the dynamic linker's own list. Never destroyed: plugins outlive main.
struct LoadedFiles {
  std::mutex mutex;  // guards files; a leaf
  std::map<FileId, std::shared_ptr<LoadedFile>> files;

  static LoadedFiles& Get() {
    static LoadedFiles* const files = new LoadedFiles;
    return *files;
  }

  std::shared_ptr<LoadedFile> Find(const FileId& id) {
    std::lock_guard lock(mutex);
    auto& file = files[id];
    if (!file) file = std::make_shared<LoadedFile>();
    return file;
  }
};

Result<gf_transport_entry> LoadEntry(const std::string& path) {
  // A name without a slash would be searched for in the linker's own places.
  const std::string file = path.find('/') == std::string::npos ? "./" + path : path;
  void* handle = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) return FailedPrecondition(StrCat("cannot be loaded: ", TextOf(dlerror())));
  void* entry = dlsym(handle, GF_TRANSPORT_ENTRY_NAME);
  if (entry == nullptr) return InvalidArgument(StrCat("it does not export ", GF_TRANSPORT_ENTRY_NAME));
  return reinterpret_cast<gf_transport_entry>(entry);
}

Result<std::shared_ptr<const Plugin>> Enter(gf_transport_entry entry, const std::string& path) {
  const gf_transport_entry_args args{sizeof(args), GF_TRANSPORT_EPOCH, GF_TRANSPORT_MINOR, 0};
  gf_transport_error error{};
  error.struct_size = sizeof(error);
  const gf_transport_descriptor* descriptor = entry(&args, &error);
  if (descriptor == nullptr) {
    return StatusFromPlugin("", error.code, &error).Wrap(Code::kFailedPrecondition, "it refuses this host");
  }
  GF_ASSIGN_OR_RETURN(Plugin plugin, CheckDescriptor(descriptor, path));
  return std::make_shared<const Plugin>(std::move(plugin));
}

Result<std::shared_ptr<const Plugin>> LoadOnce(const std::string& path, const FileId& id) {
  const std::shared_ptr<LoadedFile> file = LoadedFiles::Get().Find(id);
  std::lock_guard lock(file->mutex);
  if (!file->entered) {
    // What fails before the entry was called may be tried again: a missing library can be installed.
    GF_ASSIGN_OR_RETURN(gf_transport_entry entry, LoadEntry(path));
    file->entered = true;
    file->plugin = Enter(entry, path);
  }
  return file->plugin;
}

}  // namespace

Result<Plugin> CheckDescriptor(const gf_transport_descriptor* descriptor, const std::string& path) {
  if (descriptor == nullptr) return InvalidArgument("it has no descriptor");
  const uint32_t size = descriptor->struct_size;
  if (!GF_HAS_FIELD_(gf_transport_descriptor, size, epoch)) {
    return InvalidArgument(StrCat("its descriptor's struct_size is ", size, ", which holds nothing"));
  }
  if (descriptor->epoch != GF_TRANSPORT_EPOCH) return OtherEpoch(descriptor->epoch);
  if (!GF_HAS_FIELD_(gf_transport_descriptor, size, vtable)) {
    return InvalidArgument(StrCat("its descriptor's struct_size is ", size, ", less than epoch ", GF_TRANSPORT_EPOCH,
                                  " needs: ", sizeof(gf_transport_descriptor)));
  }
  if (descriptor->name == nullptr || descriptor->name[0] == '\0') return InvalidArgument("its descriptor has no name");
  if (descriptor->max_header == 0) return InvalidArgument("its descriptor's max_header is 0: no frame could be sent");

  Plugin plugin;
  plugin.path = path;
  plugin.name = descriptor->name;
  plugin.version = TextOf(descriptor->version);
  plugin.vendor = TextOf(descriptor->vendor);
  plugin.options_schema = TextOf(descriptor->options_schema);
  plugin.minor = descriptor->minor;
  plugin.capabilities = descriptor->capabilities;
  plugin.max_header = descriptor->max_header;
  if (GF_HAS_FIELD_(gf_transport_descriptor, size, chunk)) plugin.chunk = descriptor->chunk;
  GF_ASSIGN_OR_RETURN(plugin.vtable, CopyVtable(descriptor->vtable));
  GF_RETURN_IF_ERROR(CheckRequiredSlots(plugin.vtable, (plugin.capabilities & GF_TRANSPORT_CAP_TIME) != 0));
  FillOptionalSlots(plugin.vtable);
  return plugin;
}

Result<std::shared_ptr<const Plugin>> LoadPlugin(const std::string& path, const std::string& name) {
  GF_ASSIGN_OR_RETURN(const PluginNote note, ReadPluginNote(path));
  if (note.epoch != GF_TRANSPORT_EPOCH) return OtherEpoch(note.epoch);
  GF_ASSIGN_OR_RETURN(std::shared_ptr<const Plugin> plugin, LoadOnce(path, note.file));
  if (plugin->name != name) return InvalidArgument(StrCat("it is the plugin '", plugin->name, "', not '", name, "'"));
  return plugin;
}

Status StatusFromPlugin(const std::string& name, int32_t code, const gf_transport_error* error) {
  if (error != nullptr && error->code != 0) code = error->code;
  Error result;
  result.code = IsKnownCode(code) && code != 0 ? static_cast<Code>(code) : Code::kUnknown;
  if (!name.empty()) result.domain = "transport." + name;
  if (error != nullptr) result.message.assign(error->text, std::min<size_t>(error->length, sizeof(error->text)));
  if (result.message.empty()) result.message = StrCat("the transport failed with code ", code, " and no text");
  return Status(std::move(result));
}

}  // namespace gradferry
