// The same computation run in several ways: here, by calls that wait, by futures, by a handler of a peer. PyTorch's
// tests of distributed autograd do the same with their ExecMode; gradients must not depend on it.
#pragma once

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"

namespace gf {

enum class Mode { kHere, kSync, kAsync, kHandler };

inline const char* ModeName(Mode mode) {
  switch (mode) {
    case Mode::kHere:
      return "here";
    case Mode::kSync:
      return "by calls that wait";
    case Mode::kAsync:
      return "by futures";
    case Mode::kHandler:
      return "by a handler";
  }
  return "";
}

inline std::vector<Mode> AllModes() { return {Mode::kHere, Mode::kSync, Mode::kAsync, Mode::kHandler}; }

// Runs operators in one context, each on the next of the peers.
class Runner {
 public:
  Runner(gf_worker* from, std::vector<std::string> peers, Mode mode, const Context& context)
      : from_(from), peers_(std::move(peers)), mode_(mode), context_(context) {}

  List All(const std::string& name, const List& arguments) {
    if (mode_ == Mode::kHere) return CallOperator(name, arguments);
    const std::string& to = peers_[next_++ % peers_.size()];
    switch (mode_) {
      case Mode::kAsync:
        return Await(StartCall(from_, to, name, arguments, In(context_)));
      case Mode::kHandler:
        return CallByHandler(from_, to, name, arguments, In(context_));
      default:
        return CallWorker(from_, to, name, arguments, In(context_));
    }
  }

  template <class... Values>
  Tensor operator()(const std::string& name, const Values&... values) {
    return TensorAt(All(name, ListOf(values...)), 0);
  }

 private:
  gf_worker* const from_;
  const std::vector<std::string> peers_;
  const Mode mode_;
  const Context context_;
  size_t next_ = 0;
};

// The gradients of `leaves` in a context; an empty vector for one that has none.
inline std::vector<std::vector<float>> Gradients(const Context& context, const std::vector<Tensor>& leaves) {
  std::vector<std::vector<float>> gradients;
  for (const Tensor& leaf : leaves) {
    gradients.push_back(HasGradient(context, leaf) ? ReadFloats(Gradient(context, leaf)) : std::vector<float>());
  }
  return gradients;
}

inline void ExpectClose(const std::vector<float>& got, const std::vector<float>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_NEAR(got[i], wanted[i], 1e-5 * (1 + std::fabs(wanted[i]))) << "element " << i;
  }
}

inline void ExpectClose(const std::vector<std::vector<float>>& got, const std::vector<std::vector<float>>& wanted) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    SCOPED_TRACE("leaf " + std::to_string(i));
    ExpectClose(got[i], wanted[i]);
  }
}

}  // namespace gf
