// A strict reader of Prometheus's text format (0.0.4), for tests: what a scraper would refuse is a fault here, and so
// is what only the conventions ask for.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace gf {

struct MetricSample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

struct MetricFamily {
  std::string type;
  std::string help;
  std::vector<MetricSample> samples;
};

struct Metrics {
  std::map<std::string, MetricFamily> families;
  std::vector<std::string> faults;  // each with its line

  // The sum of the samples of this name that have these labels.
  double Sum(const std::string& name, const std::map<std::string, std::string>& labels = {}) const;
  bool Has(const std::string& name, const std::map<std::string, std::string>& labels = {}) const;
};

Metrics ParseMetrics(const std::string& text);

}  // namespace gf
