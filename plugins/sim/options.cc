// See options.h.
#include "plugins/sim/options.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "plugins/sim/errors.h"

namespace gradferry::sim {

const char kOptionsSchema[] = R"({
  "network": {"type": "string", "default": "default",
    "help": "Transports of the same network in this process reach each other."},
  "seed": {"type": "integer", "default": 0,
    "help": "What everything that is drawn is drawn from; the same for the whole network."},
  "time": {"type": "string", "default": "real",
    "help": "real: the machine's monotonic clock. virtual: a counter that jumps to the next event when nothing is to be done; the same for the whole network."},
  "latency_min_us": {"type": "integer", "default": 0,
    "help": "Least time that a frame sent here is under way, in microseconds."},
  "latency_max_us": {"type": "integer", "default": 0,
    "help": "Most time that a frame sent here is under way, in microseconds; latency_min_us when not given."},
  "stall_ms": {"type": "integer", "default": 10000,
    "help": "Virtual time: log a warning when time had to stand still for so many real milliseconds; 0 is never."},
  "faults": {"type": "array", "default": [],
    "help": "What is done to frames that are sent here: tables with fault (loss, delay, duplicate, truncate, flip, reset), which frames (bytes, direction, to, from_us, until_us, first, count, probability), and how (delay_us, delay_max_us, part, keep, bit)."},
  "partitions": {"type": "array", "default": [],
    "help": "When listeners of different sets do not reach each other: tables with sets, from_us, until_us."},
  "deaths": {"type": "array", "default": [],
    "help": "When this transport has no connections: tables with from_us, until_us."}
})";

namespace {

using nlohmann::json;

constexpr uint64_t kMaxLatencyUs = 3600ull * 1000 * 1000;

// Reads one option after the other; the first error stays.
class Reader {
 public:
  explicit Reader(gf_transport_error* error) : error_(error) {}

  bool ok() const { return code_ == GF_OK; }
  int32_t code() const { return code_; }

  void Reject(const std::string& key, const std::string& why) {
    if (ok()) code_ = Fail(error_, GF_INVALID_ARGUMENT, "transport.sim." + key + " " + why);
  }

  void Text(const std::string& key, const json& value, std::string* out) {
    if (!value.is_string()) return Reject(key, std::string("must be a string, not ") + value.type_name());
    *out = value.get_ref<const std::string&>();
  }

  // Another function's reading of a value.
  template <class Parse, class Out>
  void Nested(Parse parse, const json& value, Out* out) {
    if (ok()) code_ = parse(value, out, error_);
  }

  void Count(const std::string& key, const json& value, uint64_t most, uint64_t* out) {
    if (!value.is_number_integer()) return Reject(key, std::string("must be an integer, not ") + value.type_name());
    if (!value.is_number_unsigned() || value.get<uint64_t>() > most) {
      return Reject(key, "must be from 0 to " + std::to_string(most) + ", not " + value.dump());
    }
    *out = value.get<uint64_t>();
  }

 private:
  gf_transport_error* const error_;
  int32_t code_ = GF_OK;
};

void ReadTime(Reader& reader, const json& value, Options* options) {
  std::string time;
  reader.Text("time", value, &time);
  if (!reader.ok()) return;
  if (time != "real" && time != "virtual") return reader.Reject("time", "must be real or virtual, not " + time);
  options->virtual_time = time == "virtual";
}

void ReadNetwork(Reader& reader, const json& value, Options* options) {
  reader.Text("network", value, &options->network);
  if (reader.ok() && !IsNetworkName(options->network)) {
    reader.Reject("network", "must consist of letters, digits, '_', '.' and '-', and not be empty");
  }
}

void ReadOption(Reader& reader, const std::string& key, const json& value, Options* options) {
  if (key == "network") return ReadNetwork(reader, value, options);
  if (key == "time") return ReadTime(reader, value, options);
  if (key == "seed") {
    // Any number will do, a negative one too.
    if (!value.is_number_integer())
      return reader.Reject(key, std::string("must be an integer, not ") + value.type_name());
    options->seed = value.is_number_unsigned() ? value.get<uint64_t>() : static_cast<uint64_t>(value.get<int64_t>());
    return;
  }
  if (key == "latency_min_us") return reader.Count(key, value, kMaxLatencyUs, &options->latency_min_ns);
  if (key == "latency_max_us") return reader.Count(key, value, kMaxLatencyUs, &options->latency_max_ns);
  if (key == "stall_ms") return reader.Count(key, value, UINT32_MAX, &options->stall_ms);
  if (key == "faults") return reader.Nested(ParseRules, value, &options->faults.rules);
  if (key == "partitions") return reader.Nested(ParsePartitions, value, &options->faults.partitions);
  if (key == "deaths") return reader.Nested(ParseDeaths, value, &options->faults.deaths);
  reader.Reject(key, "is not an option of this transport");
}

}  // namespace

int32_t ParseOptions(const char* text, size_t length, Options* options, gf_transport_error* error) {
  *options = Options();
  if (length == 0) return GF_OK;
  const json document = json::parse(text, text + length, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object()) return Fail(error, GF_INVALID_ARGUMENT, "the options of transport.sim are no JSON object");

  Reader reader(error);
  for (const auto& [key, value] : document.items()) ReadOption(reader, key, value, options);
  if (!reader.ok()) return reader.code();
  if (!document.contains("latency_max_us")) options->latency_max_ns = options->latency_min_ns;
  if (options->latency_max_ns < options->latency_min_ns) reader.Reject("latency_max_us", "is less than latency_min_us");
  options->latency_min_ns *= 1000;
  options->latency_max_ns *= 1000;
  return reader.code();
}

bool IsNetworkName(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return (c < 0x80 && std::isalnum(c)) || c == '_' || c == '.' || c == '-';
  });
}

}  // namespace gradferry::sim
