// See prometheus.h.
#include "impl/base/prometheus.h"

#include <charconv>
#include <cmath>

#include "impl/base/status.h"

namespace gradferry {
namespace {

// In a label's value; in HELP a quote stays as it is.
std::string Escaped(std::string_view text, bool quotes) {
  std::string escaped;
  for (char c : text) {
    if (c == '\\') {
      escaped += "\\\\";
    } else if (c == '\n') {
      escaped += "\\n";
    } else if (c == '"' && quotes) {
      escaped += "\\\"";
    } else {
      escaped += c;
    }
  }
  return escaped;
}

std::string Number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  char digits[64];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value);
  return std::string(digits, end.ptr);
}

}  // namespace

PrometheusText::PrometheusText(std::string_view label, std::string_view value)
    : common_(StrCat(label, "=\"", Escaped(value, true), "\"")) {}

void PrometheusText::Family(std::string_view name, std::string_view type, std::string_view help) {
  name_ = name;
  head_ = StrCat("# HELP ", name, " ", Escaped(help, false), "\n# TYPE ", name, " ", type, "\n");
}

void PrometheusText::Line(std::string_view suffix, const MetricLabels& labels, double value) {
  text_ += head_;
  head_.clear();
  text_ += StrCat(name_, suffix, "{", common_);
  for (const auto& [label, text] : labels) text_ += StrCat(",", label, "=\"", Escaped(text, true), "\"");
  text_ += StrCat("} ", Number(value), "\n");
}

void PrometheusText::Histogram(const MetricLabels& labels, const std::vector<double>& bounds,
                               const std::vector<uint64_t>& counts, double sum) {
  uint64_t total = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    total += counts[i];
    const std::string bound = Number(i < bounds.size() ? bounds[i] : INFINITY);
    MetricLabels with_bound = labels;
    with_bound.emplace_back("le", bound);
    Line("_bucket", with_bound, static_cast<double>(total));
  }
  Line("_sum", labels, sum);
  Line("_count", labels, static_cast<double>(total));
}

}  // namespace gradferry
