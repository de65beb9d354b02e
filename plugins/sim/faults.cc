// See faults.h.
#include "plugins/sim/faults.h"

#include <algorithm>

#include "plugins/sim/errors.h"

namespace gradferry::sim {
namespace {

using nlohmann::json;

constexpr uint64_t kMaxUs = 1000000ull * 3600 * 24 * 365;
constexpr uint64_t kMaxNumber = 1000000000000000000u;

// Reads the keys of one table, one after the other; the first error stays.
class TableReader {
 public:
  TableReader(std::string name, const json& table, gf_transport_error* error)
      : name_(std::move(name)), table_(table), error_(error) {
    if (!table.is_object()) RejectWhole(std::string("must be a table, not ") + table.type_name());
  }

  bool ok() const { return code_ == GF_OK; }
  int32_t code() const { return code_; }

  void Reject(const std::string& key, const std::string& why) { RejectWhole(why, "." + key); }

  // The value of a key, or null when it is not there.
  const json* Find(const char* key) {
    known_.push_back(key);
    if (!ok()) return nullptr;
    const auto it = table_.find(key);
    return it == table_.end() ? nullptr : &*it;
  }

  bool Number(const char* key, const json& value, uint64_t least, uint64_t most, uint64_t* out) {
    if (!value.is_number_integer()) {
      Reject(key, std::string("must be an integer, not ") + value.type_name());
    } else if (!value.is_number_unsigned() || value.get<uint64_t>() < least || value.get<uint64_t>() > most) {
      Reject(key, "must be from " + std::to_string(least) + " to " + std::to_string(most) + ", not " + value.dump());
    } else {
      *out = value.get<uint64_t>();
    }
    return ok();
  }

  void Count(const char* key, uint64_t least, uint64_t most, uint64_t* out) {
    if (const json* value = Find(key)) Number(key, *value, least, most, out);
  }

  // Microseconds to nanoseconds.
  void Time(const char* key, uint64_t* out) {
    const json* value = Find(key);
    if (value != nullptr && Number(key, *value, 0, kMaxUs, out)) *out *= 1000;
  }

  void Interval(uint64_t* from_ns, uint64_t* until_ns) {
    Time("from_us", from_ns);
    Time("until_us", until_ns);
    if (ok() && *until_ns <= *from_ns) Reject("until_us", "must be after from_us");
  }

  void Probability(const char* key, double* out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_number()) return Reject(key, std::string("must be a number, not ") + value->type_name());
    const double number = value->get<double>();
    if (!(number >= 0 && number <= 1)) return Reject(key, "must be from 0 to 1, not " + value->dump());
    *out = number;
  }

  // One of the words; its index goes to out.
  void Word(const char* key, const std::vector<std::string>& words, size_t* out) {
    const json* value = Find(key);
    if (value == nullptr) return;
    const auto it =
        value->is_string() ? std::find(words.begin(), words.end(), value->get_ref<const std::string&>()) : words.end();
    if (it != words.end()) {
      *out = static_cast<size_t>(it - words.begin());
      return;
    }
    std::string all;
    for (const std::string& word : words) all += (all.empty() ? "" : ", ") + word;
    Reject(key, "must be one of " + all + ", not " + Dump(*value));
  }

  bool Numbers(const char* key, const json& value, std::vector<uint64_t>* out) {
    if (!value.is_array()) {
      Reject(key, std::string("must be an array of integers, not ") + value.type_name());
      return false;
    }
    for (const json& item : value) {
      uint64_t number = 0;
      if (!Number(key, item, 0, kMaxNumber, &number)) return false;
      out->push_back(number);
    }
    return true;
  }

  // Last: refuses what nobody has asked for.
  int32_t Finish() {
    if (!ok()) return code_;
    for (const auto& [key, value] : table_.items()) {
      if (std::find(known_.begin(), known_.end(), key) == known_.end()) Reject(key, "is not known");
    }
    return code_;
  }

 private:
  static std::string Dump(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

  void RejectWhole(const std::string& why, const std::string& key = "") {
    if (ok()) code_ = Fail(error_, GF_INVALID_ARGUMENT, "transport.sim." + name_ + key + " " + why);
  }

  const std::string name_;
  const json& table_;
  gf_transport_error* const error_;
  int32_t code_ = GF_OK;
  std::vector<std::string> known_;
};

void ReadBytes(TableReader& reader, FaultRule* rule) {
  const json* pairs = reader.Find("bytes");
  if (pairs == nullptr) return;
  constexpr char kForm[] = "must be an array of pairs [offset, value]";
  if (!pairs->is_array()) return reader.Reject("bytes", kForm);
  for (const json& pair : *pairs) {
    if (!pair.is_array() || pair.size() != 2) return reader.Reject("bytes", kForm);
    uint64_t offset = 0;
    uint64_t value = 0;
    if (!reader.Number("bytes", pair[0], 0, UINT32_MAX, &offset)) return;
    if (!reader.Number("bytes", pair[1], 0, 255, &value)) return;
    rule->bytes.emplace_back(offset, static_cast<uint8_t>(value));
  }
}

void ReadDirection(TableReader& reader, FaultRule* rule) {
  size_t direction = 2;
  reader.Word("direction", {"to_listener", "to_dialler", "both"}, &direction);
  rule->to_listener = direction != 1;
  rule->to_dialler = direction != 0;
}

int32_t ReadRule(TableReader& reader, FaultRule* rule) {
  const json* given = reader.Find("fault");
  if (reader.ok() && given == nullptr) reader.Reject("fault", "is missing");
  size_t fault = 0;
  reader.Word("fault", {"loss", "delay", "duplicate", "truncate", "flip", "reset"}, &fault);
  rule->fault = static_cast<Fault>(fault);
  ReadBytes(reader, rule);
  ReadDirection(reader, rule);
  if (const json* to = reader.Find("to")) reader.Numbers("to", *to, &rule->to);
  reader.Interval(&rule->from_ns, &rule->until_ns);
  reader.Count("first", 1, kMaxNumber, &rule->first);
  reader.Count("count", 1, kMaxNumber, &rule->count);
  reader.Probability("probability", &rule->probability);

  const bool takes_time = rule->fault == Fault::kDelay || rule->fault == Fault::kDuplicate;
  const bool damages = rule->fault == Fault::kTruncate || rule->fault == Fault::kFlip;
  if (takes_time) {
    reader.Time("delay_us", &rule->delay_min_ns);
    rule->delay_max_ns = rule->delay_min_ns;
    reader.Time("delay_max_us", &rule->delay_max_ns);
    if (rule->delay_max_ns < rule->delay_min_ns) reader.Reject("delay_max_us", "is less than delay_us");
  }
  if (damages) {
    size_t part = 0;
    reader.Word("part", {"any", "header", "segments"}, &part);
    rule->part = static_cast<Part>(part);
  }
  if (rule->fault == Fault::kTruncate) reader.Count("keep", 0, kMaxNumber, &rule->keep);
  if (rule->fault == Fault::kFlip) reader.Count("bit", 0, kMaxNumber, &rule->bit);
  return reader.Finish();
}

int32_t ReadPartition(TableReader& reader, Partition* partition) {
  const json* sets = reader.Find("sets");
  if (reader.ok() && (sets == nullptr || !sets->is_array() || sets->empty())) {
    reader.Reject("sets", "must be an array of arrays of addresses' numbers");
  }
  if (reader.ok()) {
    for (const json& set : *sets) {
      partition->sets.emplace_back();
      if (!reader.Numbers("sets", set, &partition->sets.back())) break;
    }
  }
  reader.Interval(&partition->from_ns, &partition->until_ns);
  return reader.Finish();
}

int32_t ReadDeath(TableReader& reader, Death* death) {
  reader.Interval(&death->from_ns, &death->until_ns);
  return reader.Finish();
}

template <class Entry>
int32_t ParseArray(const std::string& name, const json& value, std::vector<Entry>* out, gf_transport_error* error,
                   int32_t (*read)(TableReader&, Entry*)) {
  if (!value.is_array()) {
    return Fail(error, GF_INVALID_ARGUMENT,
                "transport.sim." + name + " must be an array of tables, not " + value.type_name());
  }
  for (const json& table : value) {
    TableReader reader(name + "[" + std::to_string(out->size()) + "]", table, error);
    if (!reader.ok()) return reader.code();
    out->emplace_back();
    if (const int32_t code = read(reader, &out->back()); code != GF_OK) return code;
  }
  return GF_OK;
}

}  // namespace

bool Partition::Cuts(uint64_t from, uint64_t to, uint64_t now_ns) const {
  if (now_ns < from_ns || now_ns >= until_ns) return false;
  const auto set_of = [this](uint64_t number) {
    return std::find_if(sets.begin(), sets.end(), [number](const std::vector<uint64_t>& set) {
      return std::find(set.begin(), set.end(), number) != set.end();
    });
  };
  return set_of(from) != set_of(to);
}

int32_t ParseRules(const json& value, std::vector<FaultRule>* out, gf_transport_error* error) {
  return ParseArray<FaultRule>("faults", value, out, error, ReadRule);
}

int32_t ParsePartitions(const json& value, std::vector<Partition>* out, gf_transport_error* error) {
  return ParseArray<Partition>("partitions", value, out, error, ReadPartition);
}

int32_t ParseDeaths(const json& value, std::vector<Death>* out, gf_transport_error* error) {
  return ParseArray<Death>("deaths", value, out, error, ReadDeath);
}

}  // namespace gradferry::sim
