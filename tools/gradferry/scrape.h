// A worker's metrics from its port: the samples of one GET /metrics.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace gradferry::command {

struct Sample {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};

// target is "host:port", with or without "http://" and "/metrics". Throws Failure when it cannot be read in time, or
// when what comes is no such text; soon after Interrupted(), too.
std::vector<Sample> Scrape(const std::string& target, double timeout_s);

// What ParseSamples makes of a text; lines that are none are skipped.
std::vector<Sample> ParseSamples(const std::string& text);

}  // namespace gradferry::command
