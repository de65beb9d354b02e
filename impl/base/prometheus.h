// Writes metrics in Prometheus's text format, version 0.0.4: each family once, with its HELP and TYPE before its
// samples, labels escaped, numbers without a locale. The caller gives all samples of one family before the next.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gradferry {

using MetricLabels = std::vector<std::pair<std::string_view, std::string_view>>;

class PrometheusText {
 public:
  // Every sample carries this label first.
  PrometheusText(std::string_view label, std::string_view value);

  // type is "counter", "gauge" or "histogram". The name of a counter ends with _total, that of a quantity with its
  // unit. A family without samples is left out.
  void Family(std::string_view name, std::string_view type, std::string_view help);
  void Sample(const MetricLabels& labels, double value) { Line("", labels, value); }
  // Of a histogram: not cumulative counts, one more than bounds (seconds, rising), and the sum in seconds.
  void Histogram(const MetricLabels& labels, const std::vector<double>& bounds, const std::vector<uint64_t>& counts,
                 double sum);

  std::string Take() { return std::move(text_); }

 private:
  void Line(std::string_view suffix, const MetricLabels& labels, double value);

  const std::string common_;  // label and value, escaped
  std::string name_;
  std::string head_;  // HELP and TYPE, until the first sample
  std::string text_;
};

}  // namespace gradferry
