// The corpus of one fuzz target as an ordinary test. GF_CORPUS names its folder.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/fuzz/fuzz.h"

namespace gradferry {
namespace {

std::vector<std::string> Corpus() {
  std::vector<std::string> inputs;
  for (const auto& entry : std::filesystem::directory_iterator(std::getenv("GF_CORPUS"))) {
    std::ifstream in(entry.path(), std::ios::binary);
    inputs.emplace_back((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  }
  return inputs;
}

void RunInput(const std::string& input) {
  EXPECT_EQ(LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size()), 0);
}

TEST(ReplayTest, TheCorpusIsUnderstoodOrRefused) {
  const std::vector<std::string> corpus = Corpus();
  EXPECT_GT(corpus.size(), 3u);
  for (const std::string& input : corpus) RunInput(input);
}

// What a fuzzer tries first, so that a decoder which breaks at once is seen without one.
TEST(ReplayTest, CutAndChangedInputsAreUnderstoodOrRefused) {
  for (const std::string& input : Corpus()) {
    for (size_t size = 0; size < input.size(); size += 1 + input.size() / 100) RunInput(input.substr(0, size));
    for (size_t at = 0; at < input.size(); at += 1 + input.size() / 100) {
      for (const int change : {0x01, 0x80, 0xff}) {
        std::string changed = input;
        changed[at] = static_cast<char>(changed[at] ^ change);
        RunInput(changed);
      }
    }
  }
}

}  // namespace
}  // namespace gradferry
