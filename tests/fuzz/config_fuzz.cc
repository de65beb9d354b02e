// Configurations in TOML, and one value as a call or the environment gives it: what is before the first NUL is a text,
// then the name of a key, then its value.
#include "impl/base/config.h"
#include "impl/rpc/options.h"
#include "tests/fuzz/fuzz.h"

using namespace gradferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string_view rest = AsText(data, size);
  const auto next = [&rest] {
    const size_t end = rest.find('\0');
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
    return part;
  };
  Config config;
  const Status loaded = config.LoadText(next());
  const std::string_view key = next();
  const Status set = config.Set(key, next());
  Require(loaded.ok() || !loaded.message().empty(), "an error without a text");
  Require(set.ok() || !set.message().empty(), "an error without a text");
  (void)config.DescribeJson();
  if (config.GetString("security.secret_file").empty()) (void)ReadWorkerOptions(config);
  return 0;
}
