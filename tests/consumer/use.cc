// The C++ twin of use.c: the same header from C++, with an error on purpose to see that one arrives whole.
#include <cstdio>
#include <string>
#include <string_view>

#include "gradferry/gradferry.h"

int main() {
  std::size_t length = 0;
  if (gf_build_info(nullptr, 0, &length, nullptr) != GF_OK) return 1;
  std::string info(length, ' ');
  // Room for the terminating NUL, which std::string has behind its end.
  if (gf_build_info(&info[0], length + 1, &length, nullptr) != GF_OK) return 1;
  if (info.find("torch") == std::string::npos) {
    std::fprintf(stderr, "build info lacks torch: %s\n", info.c_str());
    return 1;
  }

  gf_error* error = nullptr;
  gf_tensor* tensor = nullptr;
  const int32_t code = gf_tensor_from_memory(nullptr, &tensor, &error);
  if (code != GF_INVALID_ARGUMENT || error == nullptr || gf_error_code(error) != code) {
    std::fprintf(stderr, "a NULL argument gave code %d\n", static_cast<int>(code));
    return 1;
  }
  gf_error_unref(error);
  if (gf_live_objects(GF_LIVE_ERRORS) != 0) return 1;

  std::puts("gradferry works");
  return 0;
}
