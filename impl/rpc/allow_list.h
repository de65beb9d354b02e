// Which operators peers may call. The default holds operators that compute on tensors and nothing else: none that
// touches files, processes, pickles, devices' state or other processes (aten::save, aten::from_file and their like are
// in libtorch's registry too).
#pragma once

#include <string>
#include <unordered_set>
#include <vector>

namespace gradferry {

class OperatorAllowList {
 public:
  // entries: qualified names ("aten::add", all overloads) or the word "default", which stands for the default list.
  explicit OperatorAllowList(const std::vector<std::string>& entries);
  bool Allows(const std::string& name) const { return names_.count(name) > 0; }

 private:
  std::unordered_set<std::string> names_;
};

}  // namespace gradferry
