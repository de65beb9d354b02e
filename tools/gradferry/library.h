// libgradferry, loaded by the command when it runs, so that a command that says why it cannot be loaded can say so. Its
// functions as members, failures as exceptions.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "gradferry/gradferry.h"

namespace gradferry::command {

// What ends the command with one line on stderr and status 1.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

#define GF_COMMAND_FUNCTIONS(apply) \
  apply(gf_abi_version);            \
  apply(gf_build_info);             \
  apply(gf_error_describe);         \
  apply(gf_error_unref);            \
  apply(gf_error_code);             \
  apply(gf_log_set);                \
  apply(gf_config_new);             \
  apply(gf_config_unref);           \
  apply(gf_config_load_file);       \
  apply(gf_config_set);             \
  apply(gf_config_check);           \
  apply(gf_config_describe);        \
  apply(gf_worker_open);            \
  apply(gf_worker_unref);           \
  apply(gf_worker_close);           \
  apply(gf_worker_address);         \
  apply(gf_worker_info);            \
  apply(gf_worker_add_peer);        \
  apply(gf_call_sync);              \
  apply(gf_list_unref)

class Library {
 public:
  // The places that are tried: GRADFERRY_LIBRARY alone when it is set; else ../lib beside the command, then where the
  // system's loader looks.
  static std::vector<std::string> Places();
  // Throws Failure with the loader's reason for each place.
  static const Library& Load();

#define GF_COMMAND_MEMBER(name) decltype(&::name) name = nullptr
  GF_COMMAND_FUNCTIONS(GF_COMMAND_MEMBER);
#undef GF_COMMAND_MEMBER

  // The file that it is.
  std::string path;

  // What an error says, which is given back.
  std::string TakeError(gf_error* error) const;
  // Calls a function whose last parameter is a gf_error**.
  template <class Function, class... Arguments>
  void Call(Function function, Arguments... arguments) const {
    gf_error* error = nullptr;
    if (function(arguments..., &error) != GF_OK) throw Failure(TakeError(error));
  }
  // A text by the two-call pattern.
  template <class Function, class... Handle>
  std::string Text(Function function, Handle... handle) const {
    size_t length = 0;
    Call(function, handle..., static_cast<char*>(nullptr), size_t{0}, &length);
    std::string text(length + 4096, '\0');  // it may have grown by the second call
    Call(function, handle..., &text[0], text.size(), &length);
    text.resize(length);
    return text;
  }

 private:
  explicit Library(const std::string& place);
};

// A configuration from a file ("" is none) and settings "key=value".
class Config {
 public:
  Config(const Library& library, const std::string& file, const std::vector<std::string>& settings);
  Config(const Config&) = delete;
  ~Config() { library_.gf_config_unref(handle_); }
  void Set(const std::string& key, const std::string& value);
  // gf_config_check.
  void Check() { library_.Call(library_.gf_config_check, handle_); }
  // gf_config_describe.
  std::string Describe() const { return library_.Text(library_.gf_config_describe, handle_); }
  gf_config* get() const { return handle_; }

 private:
  const Library& library_;
  gf_config* handle_ = nullptr;
};

// An open worker, closed in time.
class Worker {
 public:
  Worker(const Library& library, const Config& config);
  Worker(const Worker&) = delete;
  ~Worker();
  gf_worker* get() const { return handle_; }
  std::string Address() const { return library_.Text(library_.gf_worker_address, handle_); }
  std::string Info() const { return library_.Text(library_.gf_worker_info, handle_); }

 private:
  const Library& library_;
  gf_worker* handle_ = nullptr;
};

}  // namespace gradferry::command
