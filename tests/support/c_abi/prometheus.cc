// See prometheus.h.
#include "tests/support/c_abi/prometheus.h"

#include <cmath>
#include <cstdlib>
#include <regex>
#include <set>
#include <sstream>

namespace gf {
namespace {

bool EndsWith(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

class Reader {
 public:
  Metrics Read(const std::string& text) {
    if (text.empty() || text.back() != '\n') Fault("the text does not end with a line feed");
    std::istringstream lines(text);
    for (line_number_ = 1; std::getline(lines, line_); ++line_number_) {
      if (line_.empty()) continue;
      if (line_[0] == '#') {
        Comment();
      } else {
        Sample();
      }
    }
    for (const auto& [name, family] : metrics_.families) Conventions(name, family);
    return std::move(metrics_);
  }

 private:
  void Fault(const std::string& what) {
    metrics_.faults.push_back("line " + std::to_string(line_number_) + ": " + what + ": " + line_);
  }

  void Comment() {
    static const std::regex kComment(R"(# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (.*))");
    std::smatch parts;
    if (!std::regex_match(line_, parts, kComment)) return Fault("a comment that is neither HELP nor TYPE");
    const std::string name = parts[2];
    if (name != current_ && !seen_.insert(name).second) Fault("a family that was there before");
    current_ = name;
    MetricFamily& family = metrics_.families[name];
    std::string& field = parts[1] == "HELP" ? family.help : family.type;
    if (!field.empty()) Fault("a second HELP or TYPE");
    if (!family.samples.empty()) Fault("HELP or TYPE after a sample");
    field = parts[3];
    static const std::set<std::string> kTypes = {"counter", "gauge", "histogram"};
    if (parts[1] == "TYPE" && kTypes.count(field) == 0) Fault("an unknown type");
  }

  // The labels from `at`, behind the brace, to the closing brace; where the text goes on.
  size_t Labels(size_t at, std::map<std::string, std::string>& labels) {
    while (at < line_.size() && line_[at] != '}') {
      const size_t equals = line_.find("=\"", at);
      if (equals == std::string::npos) return Fault("a label without a value"), line_.size();
      const std::string name = line_.substr(at, equals - at);
      static const std::regex kName("[a-zA-Z_][a-zA-Z0-9_]*");
      if (!std::regex_match(name, kName)) Fault("a label called " + name);
      std::string value;
      for (at = equals + 2; at < line_.size() && line_[at] != '"'; ++at) {
        if (line_[at] != '\\') {
          value += line_[at];
          continue;
        }
        const char escaped = ++at < line_.size() ? line_[at] : ' ';
        if (escaped != '\\' && escaped != '"' && escaped != 'n') Fault("an unknown escape");
        value += escaped == 'n' ? '\n' : escaped;
      }
      if (!labels.emplace(name, value).second) Fault("a label that is there twice: " + name);
      ++at;
      if (at < line_.size() && line_[at] == ',') ++at;
    }
    return at + 1;
  }

  void Sample() {
    MetricSample sample;
    size_t at = line_.find_first_of("{ ");
    if (at == std::string::npos) return Fault("no value");
    sample.name = line_.substr(0, at);
    if (line_[at] == '{') at = Labels(at + 1, sample.labels);
    if (at >= line_.size() || line_[at] != ' ') return Fault("no blank before the value");
    const std::string number = line_.substr(at + 1);
    char* end = nullptr;
    sample.value = number == "+Inf" ? INFINITY : std::strtod(number.c_str(), &end);
    if (number.empty() || (end != nullptr && *end != '\0')) Fault("no number");
    if (sample.name != current_ && !(metrics_.families[current_].type == "histogram" &&
                                     (sample.name == current_ + "_bucket" || sample.name == current_ + "_sum" ||
                                      sample.name == current_ + "_count"))) {
      Fault("a sample outside of its family");
    }
    std::string key = sample.name;
    for (const auto& [label, value] : sample.labels) key += "\n" + label + "\n" + value;
    if (!keys_.insert(key).second) Fault("a sample that is there twice");
    metrics_.families[current_].samples.push_back(std::move(sample));
  }

  void Conventions(const std::string& name, const MetricFamily& family) {
    line_ = name;
    if (name.rfind("gradferry_", 0) != 0) Fault("a name without our prefix");
    if (family.help.empty() || family.type.empty()) Fault("no HELP or no TYPE");
    if (family.samples.empty()) Fault("no samples");
    if ((family.type == "counter") != EndsWith(name, "_total")) Fault("counters, and they only, end with _total");
    for (const MetricSample& sample : family.samples) {
      if (family.type == "counter" && !(sample.value >= 0)) Fault("a counter below 0");
    }
    if (family.type == "histogram") Histogram(name, family);
  }

  void Histogram(const std::string& name, const MetricFamily& family) {
    struct Series {
      std::vector<std::pair<double, double>> buckets;
      double count = -1, sum = -1;
    };
    std::map<std::map<std::string, std::string>, Series> all;
    if (!EndsWith(name, "_seconds") && !EndsWith(name, "_bytes")) Fault("a histogram without a unit");
    for (const MetricSample& sample : family.samples) {
      auto labels = sample.labels;
      const auto le = labels.find("le");
      double bound = NAN;
      if (le != labels.end()) {
        bound = le->second == "+Inf" ? INFINITY : std::strtod(le->second.c_str(), nullptr);
        labels.erase(le);
      }
      Series& series = all[labels];
      if (sample.name == name + "_bucket") series.buckets.emplace_back(bound, sample.value);
      if (sample.name == name + "_count") series.count = sample.value;
      if (sample.name == name + "_sum") series.sum = sample.value;
    }
    for (const auto& [labels, series] : all) {
      if (series.buckets.empty() || !std::isinf(series.buckets.back().first)) Fault("a histogram without +Inf");
      for (size_t i = 1; i < series.buckets.size(); ++i) {
        if (!(series.buckets[i].first > series.buckets[i - 1].first)) Fault("bounds that do not rise");
        if (series.buckets[i].second < series.buckets[i - 1].second) Fault("buckets that are not cumulative");
      }
      if (!series.buckets.empty() && series.count != series.buckets.back().second) Fault("_count is not that of +Inf");
      if (series.sum < 0) Fault("no _sum");
    }
  }

  Metrics metrics_;
  std::string line_;
  size_t line_number_ = 0;
  std::string current_;
  std::set<std::string> seen_;
  std::set<std::string> keys_;
};

bool Matches(const MetricSample& sample, const std::map<std::string, std::string>& labels) {
  for (const auto& [label, value] : labels) {
    const auto found = sample.labels.find(label);
    if (found == sample.labels.end() || found->second != value) return false;
  }
  return true;
}

}  // namespace

double Metrics::Sum(const std::string& name, const std::map<std::string, std::string>& labels) const {
  double sum = 0;
  for (const auto& [family_name, family] : families) {
    for (const MetricSample& sample : family.samples) {
      if (sample.name == name && Matches(sample, labels)) sum += sample.value;
    }
  }
  return sum;
}

bool Metrics::Has(const std::string& name, const std::map<std::string, std::string>& labels) const {
  for (const auto& [family_name, family] : families) {
    for (const MetricSample& sample : family.samples) {
      if (sample.name == name && Matches(sample, labels)) return true;
    }
  }
  return false;
}

Metrics ParseMetrics(const std::string& text) { return Reader().Read(text); }

}  // namespace gf
