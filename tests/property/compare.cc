// See compare.h.
#include "tests/property/compare.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/max.h>

#include <algorithm>
#include <sstream>

#include "impl/tensor/value.h"

namespace gradferry::property {
namespace {

using at::Tensor;

// Relative to the largest element, at least to 0.01: what is small may be the rest of terms around 1 that cancel. Sums
// in another order differ by about 1e-16 (float32: 1e-7) a term.
double Tolerance(const Program& program) { return program.has_float32 ? 1e-4 : 1e-9; }

double Largest(const Tensor& tensor) { return tensor.numel() == 0 ? 0 : at::max(at::abs(tensor)).item().toDouble(); }

std::string Text(const Tensor& tensor) {
  std::ostringstream out;
  out << DescribeTensor(tensor);
  if (tensor.defined()) out << '\n' << tensor;
  return out.str();
}

// What is different, or nothing.
std::string Differ(const Program& program, const Tensor& uncut, const Tensor& cut, bool* exact) {
  *exact = false;
  auto both = [&](const std::string& why) { return why + "\nuncut: " + Text(uncut) + "\ncut: " + Text(cut); };
  if (uncut.defined() != cut.defined()) return both(uncut.defined() ? "there is none" : "there should be none");
  if (!uncut.defined()) return "";
  if (uncut.layout() != cut.layout()) return both("the layouts differ");
  if (uncut.scalar_type() != cut.scalar_type()) return both("the dtypes differ");
  if (uncut.sizes() != cut.sizes()) return both("the sizes differ");
  if (cut.requires_grad()) return both("it requires grad");
  const Tensor wanted = (uncut.is_sparse() ? uncut.to_dense() : uncut).detach();
  const Tensor got = (cut.is_sparse() ? cut.to_dense() : cut).detach();
  if (at::equal(wanted, got)) {
    *exact = true;
    return "";
  }
  if (!at::isfinite(wanted).all().item().toBool()) return both("the uncut run is not finite: the generator is wrong");
  const double scale = std::max(Largest(wanted), 0.01);
  const double error = Largest(wanted - got);
  if (!(error <= Tolerance(program) * scale))
    return both("it is off by " + std::to_string(error / scale) + " relative");
  return "";
}

std::string CompareHooks(const Observations& uncut, const Observations& cut) {
  const auto wanted = uncut.hooks(), got = cut.hooks();
  auto text = [](const std::map<Observations::Key, HookCount>& hooks, Observations::Key key) {
    auto it = hooks.find(key);
    if (it == hooks.end()) return std::string("is not there");
    return "ran " + std::to_string(it->second.defined) + " times with a gradient and " +
           std::to_string(it->second.undefined) + " times without";
  };
  auto all = wanted;
  all.insert(got.begin(), got.end());
  for (const auto& [key, count] : all) {
    const auto w = wanted.find(key), g = got.find(key);
    if (w != wanted.end() && g != got.end() && w->second == g->second) continue;
    std::ostringstream out;
    if (key.first < 0) {
      out << "the hook of leaf " << -1 - key.first;
    } else {
      out << "the hook of output " << key.second << " of step # " << key.first;
    }
    out << "\nuncut: " << text(wanted, key) << "\ncut: " << text(got, key);
    return out.str();
  }
  return "";
}

}  // namespace

Comparison Compare(const Program& program, const Outcome& uncut, const Outcome& cut) {
  Comparison result;
  auto differs = [&](const std::string& what, const std::string& difference) {
    if (difference.empty()) return false;
    result.difference = what + ": " + difference;
    return true;
  };
  bool exact = false;
  if (uncut.roots.size() != cut.roots.size()) {
    result.difference = "the runs have different roots";
    return result;
  }
  for (size_t i = 0; i < uncut.roots.size(); ++i) {
    if (differs("root " + std::to_string(i), Differ(program, uncut.roots[i], cut.roots[i], &exact))) return result;
  }
  for (size_t i = 0; i < uncut.gradients.size(); ++i) {
    const Tensor& wanted = uncut.gradients[i];
    if (differs("the gradient of leaf " + std::to_string(i), Differ(program, wanted, cut.gradients[i], &exact))) {
      return result;
    }
    if (!wanted.defined()) {
      result.absent += program.leaves[i].requires_grad;
      continue;
    }
    ++result.gradients;
    result.bit_exact += exact;
    result.sparse += wanted.is_sparse();
  }
  const auto retained = uncut.observations.retained(), cut_retained = cut.observations.retained();
  if (retained.size() != cut_retained.size()) {
    result.difference = "the runs retained different gradients";
    return result;
  }
  for (const auto& [key, gradient] : retained) {
    const auto other = cut_retained.find(key);
    const Tensor got = other == cut_retained.end() ? Tensor() : other->second;
    if (differs("the gradient that step # " + std::to_string(key.first) + " retained",
                Differ(program, gradient, got, &exact))) {
      return result;
    }
  }
  result.difference = CompareHooks(uncut.observations, cut.observations);
  return result;
}

}  // namespace gradferry::property
