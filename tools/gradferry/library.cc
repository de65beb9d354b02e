// See library.h.
#include "tools/gradferry/library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>
#include <memory>

namespace gradferry::command {

namespace {

constexpr int64_t kSecond = 1000000000;

std::string SoName() { return "libgradferry.so." + std::to_string(GF_ABI_EPOCH); }

}  // namespace

std::vector<std::string> Library::Places() {
  if (const char* set = std::getenv("GRADFERRY_LIBRARY"); set != nullptr && *set != '\0') return {set};
  std::vector<std::string> places;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (!error) {
    const auto beside = self.parent_path().parent_path() / "lib" / SoName();
    if (std::filesystem::exists(beside, error)) places.push_back(beside.string());
  }
  places.push_back(SoName());
  return places;
}

const Library& Library::Load() {
  static const Library* loaded = nullptr;
  if (loaded != nullptr) return *loaded;
  std::string reasons;
  for (const std::string& place : Places()) {
    try {
      loaded = new Library(place);  // never unloaded
      return *loaded;
    } catch (const Failure& failure) {
      reasons += (reasons.empty() ? "" : "; ") + std::string(failure.what());
    }
  }
  throw Failure("libgradferry cannot be loaded: " + reasons);
}

Library::Library(const std::string& place) {
  void* const handle = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw Failure(dlerror());
#define GF_COMMAND_LOOK_UP(name)                                    \
  name = reinterpret_cast<decltype(&::name)>(dlsym(handle, #name)); \
  if (name == nullptr) throw Failure(place + " has no " #name ": it is of another release than this command")
  GF_COMMAND_FUNCTIONS(GF_COMMAND_LOOK_UP);
#undef GF_COMMAND_LOOK_UP
  const uint32_t epoch = gf_abi_version() >> 16;
  if (epoch != GF_ABI_EPOCH) {
    throw Failure(place + " has ABI epoch " + std::to_string(epoch) + ", this command " + std::to_string(GF_ABI_EPOCH));
  }
  Dl_info info{};
  path = dladdr(reinterpret_cast<void*>(gf_abi_version), &info) != 0 ? info.dli_fname : place;
}

std::string Library::TakeError(gf_error* error) const {
  size_t length = 0;
  gf_error_describe(error, nullptr, 0, &length);
  std::string text(length + 1, '\0');
  gf_error_describe(error, &text[0], text.size(), &length);
  text.resize(length);
  gf_error_unref(error);
  return text;
}

Config::Config(const Library& library, const std::string& file, const std::vector<std::string>& settings)
    : library_(library) {
  library_.Call(library_.gf_config_new, &handle_);
  try {
    if (!file.empty()) library_.Call(library_.gf_config_load_file, handle_, file.data(), file.size());
    for (const std::string& setting : settings) {
      const size_t equals = setting.find('=');
      if (equals == std::string::npos || equals == 0) throw Failure("--set wants KEY=VALUE; got " + setting);
      Set(setting.substr(0, equals), setting.substr(equals + 1));
    }
  } catch (...) {
    library_.gf_config_unref(handle_);
    throw;
  }
}

void Config::Set(const std::string& key, const std::string& value) {
  library_.Call(library_.gf_config_set, handle_, key.data(), key.size(), value.data(), value.size());
}

Worker::Worker(const Library& library, const Config& config) : library_(library) {
  library_.Call(library_.gf_worker_open, config.get(), &handle_);
}

Worker::~Worker() {
  library_.gf_worker_close(handle_, 2 * kSecond, nullptr);
  library_.gf_worker_unref(handle_);
}

}  // namespace gradferry::command
