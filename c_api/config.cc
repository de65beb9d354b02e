// Configurations: gf_config_*. What keys there are and how they are read is impl/base/config.h's.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "c_api/worker_objects.h"
#include "impl/transport/configured.h"

using namespace gradferry;

int32_t gf_config_new(gf_config** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    *out = MakeHandle<gf_config>(ConfigObject{});
    return OkStatus();
  });
}

gf_config* gf_config_ref(gf_config* config) { return RefHandle(config); }

void gf_config_unref(gf_config* config) { UnrefHandle(config); }

int32_t gf_config_load_text(gf_config* config, const char* toml, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(config));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(toml, length, "the text"));
    return object->config.LoadText(text);
  });
}

int32_t gf_config_load_file(gf_config* config, const char* path, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(config));
    // Paths are bytes: one need not be UTF-8.
    if (path == nullptr || length == 0) return InvalidArgument("the path is empty");
    return object->config.LoadFile(std::string(path, length));
  });
}

int32_t gf_config_set(gf_config* config, const char* key, size_t key_length, const char* value, size_t value_length,
                      gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(config));
    GF_ASSIGN_OR_RETURN(std::string_view name, TextIn(key, key_length, "the key"));
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(value, value_length, "the value"));
    return object->config.Set(name, text);
  });
}

int32_t gf_config_check(gf_config* config, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_RETURN_IF_ERROR(CheckMayBlock("gf_config_check"));
    GF_ASSIGN_OR_RETURN(auto* object, Get(config));
    Config effective = object->config;
    GF_RETURN_IF_ERROR(effective.ApplyEnvironment());
    const Status status = CheckTransports(&effective);
    // The variables of now stay out of what is kept: gf_worker_open sees those of then.
    object->config.TakeDeclarations(effective);
    return status;
  });
}

int32_t gf_config_describe(gf_config* config, char* buffer, size_t capacity, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(config));
    // With the environment of now, as gf_worker_open would see it; describing must not change the configuration.
    Config effective = object->config;
    GF_RETURN_IF_ERROR(effective.ApplyEnvironment());
    return TextOut(effective.DescribeJson(), buffer, capacity, length);
  });
}
