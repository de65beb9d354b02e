// See nearest.h.
#include "impl/base/nearest.h"

#include <algorithm>
#include <cctype>

namespace gradferry {

size_t EditDistance(std::string_view a, std::string_view b) {
  // Three rows of the usual table: two back for swaps, the last one, and the one being filled.
  std::vector<size_t> before_last(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) last[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      size_t replace = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({last[j] + 1, row[j - 1] + 1, replace});
      bool swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
      if (swapped) row[j] = std::min(row[j], before_last[j - 2] + 1);
    }
    std::swap(before_last, last);
    std::swap(last, row);
  }
  return last[b.size()];
}

namespace {
std::string Lower(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}
}  // namespace

std::string Nearest(std::string_view word, const std::vector<std::string>& candidates) {
  // A word that is far longer than any name is no typing error, and the table would cost its length.
  if (word.empty() || word.size() > 256) return "";
  const std::string wanted = Lower(word);
  const std::string* best = nullptr;
  size_t best_distance = std::max<size_t>(2, word.size() / 3) + 1;  // beyond it nothing is near
  auto consider = [&](const std::string& candidate, std::string_view part) {
    size_t distance = EditDistance(wanted, Lower(part));
    // As many changes as there are letters would make any short word near any other.
    if (distance >= best_distance || distance >= std::min(wanted.size(), part.size())) return;
    best = &candidate;
    best_distance = distance;
  };
  for (const std::string& candidate : candidates) {
    consider(candidate, candidate);
    if (size_t dot = candidate.rfind('.'); dot != std::string::npos) {
      consider(candidate, std::string_view(candidate).substr(dot + 1));
    }
  }
  return best == nullptr ? "" : *best;
}

std::string DidYouMean(std::string_view word, const std::vector<std::string>& candidates) {
  std::string nearest = Nearest(word, candidates);
  return nearest.empty() ? "" : " (did you mean " + nearest + "?)";
}

}  // namespace gradferry
