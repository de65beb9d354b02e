// See optimizer.h. The only file that includes torch::optim, whose headers are slow to compile.
#include "impl/tensor/optimizer.h"

#include <torch/optim/adagrad.h>
#include <torch/optim/adam.h>
#include <torch/optim/adamw.h>
#include <torch/optim/rmsprop.h>
#include <torch/optim/sgd.h>

#include <algorithm>
#include <mutex>
#include <string>
#include <unordered_set>
#include <utility>
#include <variant>

#include "impl/base/nearest.h"
#include "impl/tensor/operators.h"
#include "impl/tensor/torch_scope.h"
#include "impl/tensor/value.h"

namespace gradferry {
namespace {

using TorchOptimizer = std::unique_ptr<torch::optim::Optimizer>;
using Parameters = std::vector<at::Tensor>;

// Takes options out of a spec one by one; what was not taken in the end is unknown. Keeps the first error.
class OptionReader {
 public:
  explicit OptionReader(const OptimizerSpec& spec) : spec_(spec) {}

  double Number(const char* name, double otherwise) { return Take(name, otherwise, "a number"); }
  bool Flag(const char* name, bool otherwise) { return Take(name, otherwise, "true or false"); }

  double RequiredNumber(const char* name) {
    if (spec_.options.count(name) == 0) Fail(StrCat("needs the option '", name, "'"));
    return Number(name, 0);
  }

  // Call it last.
  Status Finish() {
    for (const auto& [name, value] : spec_.options) {
      if (std::find(known_.begin(), known_.end(), name) != known_.end()) continue;
      Fail(StrCat("has no option '", name, "'", DidYouMean(name, known_)));
    }
    return status_;
  }

 private:
  template <class T>
  T Take(const char* name, T otherwise, const char* wanted) {
    known_.push_back(name);
    auto option = spec_.options.find(name);
    if (option == spec_.options.end()) return otherwise;
    if (const T* value = std::get_if<T>(&option->second)) return *value;
    Fail(StrCat("wants ", wanted, " for '", name, "', got ", TextOf(option->second)));
    return otherwise;
  }

  static std::string TextOf(const std::variant<bool, double>& value) {
    if (const bool* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    return StrCat(std::get<double>(value));
  }

  void Fail(const std::string& what) {
    if (status_.ok()) status_ = InvalidArgument(StrCat("optimizer ", spec_.kind, " ", what));
  }

  const OptimizerSpec& spec_;
  std::vector<std::string> known_;
  Status status_;
};

template <class Torch, class Options>
Result<TorchOptimizer> Make(OptionReader& reader, const Parameters& parameters, Options options) {
  GF_RETURN_IF_ERROR(reader.Finish());
  return TorchOptimizer(std::make_unique<Torch>(parameters, std::move(options)));
}

Result<TorchOptimizer> MakeSgd(OptionReader& reader, const Parameters& parameters) {
  torch::optim::SGDOptions options(reader.RequiredNumber("lr"));
  options.momentum(reader.Number("momentum", options.momentum()));
  options.dampening(reader.Number("dampening", options.dampening()));
  options.weight_decay(reader.Number("weight_decay", options.weight_decay()));
  options.nesterov(reader.Flag("nesterov", options.nesterov()));
  return Make<torch::optim::SGD>(reader, parameters, std::move(options));
}

// Adam and AdamW, whose options are alike.
template <class Torch, class Options>
Result<TorchOptimizer> MakeAdam(OptionReader& reader, const Parameters& parameters) {
  Options options;
  options.lr(reader.Number("lr", options.lr()));
  const auto [beta1, beta2] = options.betas();
  const double first = reader.Number("beta1", beta1);
  options.betas({first, reader.Number("beta2", beta2)});
  options.eps(reader.Number("eps", options.eps()));
  options.weight_decay(reader.Number("weight_decay", options.weight_decay()));
  options.amsgrad(reader.Flag("amsgrad", options.amsgrad()));
  return Make<Torch>(reader, parameters, std::move(options));
}

Result<TorchOptimizer> MakeRmsprop(OptionReader& reader, const Parameters& parameters) {
  torch::optim::RMSpropOptions options;
  options.lr(reader.Number("lr", options.lr()));
  options.alpha(reader.Number("alpha", options.alpha()));
  options.eps(reader.Number("eps", options.eps()));
  options.weight_decay(reader.Number("weight_decay", options.weight_decay()));
  options.momentum(reader.Number("momentum", options.momentum()));
  options.centered(reader.Flag("centered", options.centered()));
  return Make<torch::optim::RMSprop>(reader, parameters, std::move(options));
}

Result<TorchOptimizer> MakeAdagrad(OptionReader& reader, const Parameters& parameters) {
  torch::optim::AdagradOptions options;
  options.lr(reader.Number("lr", options.lr()));
  options.lr_decay(reader.Number("lr_decay", options.lr_decay()));
  options.weight_decay(reader.Number("weight_decay", options.weight_decay()));
  options.initial_accumulator_value(reader.Number("initial_accumulator_value", options.initial_accumulator_value()));
  options.eps(reader.Number("eps", options.eps()));
  return Make<torch::optim::Adagrad>(reader, parameters, std::move(options));
}

struct Kind {
  const char* name;
  Result<TorchOptimizer> (*make)(OptionReader&, const Parameters&);
};

constexpr Kind kKinds[] = {
    {"sgd", &MakeSgd},
    {"adam", &MakeAdam<torch::optim::Adam, torch::optim::AdamOptions>},
    {"adamw", &MakeAdam<torch::optim::AdamW, torch::optim::AdamWOptions>},
    {"rmsprop", &MakeRmsprop},
    {"adagrad", &MakeAdagrad},
};

Result<TorchOptimizer> MakeOfKind(const OptimizerSpec& spec, const Parameters& parameters) {
  std::vector<std::string> names;
  for (const Kind& kind : kKinds) {
    if (spec.kind == kind.name) {
      OptionReader reader(spec);
      return kind.make(reader, parameters);
    }
    names.push_back(kind.name);
  }
  return InvalidArgument(StrCat("no optimizer is called '", spec.kind, "'", DidYouMean(spec.kind, names),
                                "; there are sgd, adam, adamw, rmsprop and adagrad"));
}

// libtorch checks the ranges of options by errors that have no type of their own.
Result<TorchOptimizer> MakeTorchOptimizer(const OptimizerSpec& spec, const Parameters& parameters) {
  try {
    return MakeOfKind(spec, parameters);
  } catch (...) {
    Error error = *StatusFromTorchException().error();
    if (error.code == Code::kUnknown) error.code = Code::kInvalidArgument;
    error.message = StrCat("optimizer ", spec.kind, ": ", error.message);
    return Status(std::move(error));
  }
}

Status CheckParameters(const Parameters& parameters) {
  if (parameters.empty()) return InvalidArgument("an optimizer needs at least one parameter");
  std::unordered_set<const void*> seen;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i];
    const auto error = [&](const char* what) { return InvalidArgument(StrCat("parameter ", i, " ", what)); };
    if (!parameter.defined()) return error("is undefined");
    if (parameter.layout() != c10::kStrided) return error("is not strided");
    if (!parameter.is_leaf()) return error("is not a leaf: it is the result of an operator that autograd recorded");
    if (!parameter.requires_grad()) return error("does not require grad");
    if (!seen.insert(parameter.unsafeGetTensorImpl()).second) return error("is there twice");
  }
  return OkStatus();
}

Status CheckGradient(size_t index, const at::Tensor& gradient, const at::Tensor& parameter) {
  if (gradient.sizes() == parameter.sizes() && gradient.scalar_type() == parameter.scalar_type()) return OkStatus();
  return InvalidArgument(StrCat("the gradient of parameter ", index, " is ", DescribeTensor(gradient),
                                ", the parameter is ", DescribeTensor(parameter)));
}

// Whether the alias still shows the parameter's memory, which a user may have exchanged (set_data).
bool ShowsSameMemory(const at::Tensor& alias, const at::Tensor& parameter) {
  return alias.is_alias_of(parameter) && alias.sizes() == parameter.sizes() && alias.strides() == parameter.strides() &&
         alias.storage_offset() == parameter.storage_offset();
}

// Lends gradients to the aliases for the time of one step.
class LentGradients {
 public:
  LentGradients(Parameters& aliases, Parameters gradients) : aliases_(aliases) {
    for (size_t i = 0; i < aliases_.size(); ++i) aliases_[i].mutable_grad() = std::move(gradients[i]);
  }
  ~LentGradients() {
    for (at::Tensor& alias : aliases_) alias.mutable_grad().reset();
  }
  LentGradients(const LentGradients&) = delete;
  LentGradients& operator=(const LentGradients&) = delete;

 private:
  Parameters& aliases_;
};

}  // namespace

struct Optimizer::Impl {
  Parameters parameters;
  std::mutex mutex;    // guards all below; held while libtorch runs, never while gradient_of does
  Parameters aliases;  // detached: the parameters' memory and version counters, with `.grad` of their own
  TorchOptimizer optimizer;

  void RefreshAliases();
  void Apply(Parameters gradients);
};

void Optimizer::Impl::RefreshAliases() {
  for (size_t i = 0; i < aliases.size(); ++i) {
    if (!ShowsSameMemory(aliases[i], parameters[i])) aliases[i].set_data(parameters[i].detach());
  }
}

void Optimizer::Impl::Apply(Parameters gradients) {
  // Some of torch::optim write through .data(), past the version counter. Count the writes, so that a backward whose
  // saved tensors they change fails instead of giving wrong gradients.
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (gradients[i].defined()) parameters[i].unsafeGetTensorImpl()->bump_version();
  }
  LentGradients lent(aliases, std::move(gradients));
  optimizer->step();
}

Optimizer::Optimizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Optimizer::~Optimizer() = default;

Result<std::unique_ptr<Optimizer>> Optimizer::New(const OptimizerSpec& spec, std::vector<at::Tensor> parameters) {
  GF_RETURN_IF_ERROR(CheckParameters(parameters));
  try {
    TorchScope scope(GradRecording::kOff);
    auto impl = std::make_unique<Impl>();
    for (const at::Tensor& parameter : parameters) impl->aliases.push_back(parameter.detach());
    impl->parameters = std::move(parameters);
    GF_ASSIGN_OR_RETURN(impl->optimizer, MakeTorchOptimizer(spec, impl->aliases));
    return std::unique_ptr<Optimizer>(new Optimizer(std::move(impl)));
  } catch (...) {
    return StatusFromTorchException();
  }
}

Status Optimizer::Step(const GradientOf& gradient_of) {
  try {
    Parameters gradients;
    for (size_t i = 0; i < impl_->parameters.size(); ++i) {
      at::Tensor gradient = gradient_of(impl_->parameters[i]);
      if (gradient.defined()) GF_RETURN_IF_ERROR(CheckGradient(i, gradient, impl_->parameters[i]));
      gradients.push_back(std::move(gradient));
    }
    std::lock_guard lock(impl_->mutex);
    TorchScope scope(GradRecording::kOff);
    impl_->RefreshAliases();
    impl_->Apply(std::move(gradients));
    return OkStatus();
  } catch (...) {
    return StatusFromTorchException();
  }
}

const std::vector<at::Tensor>& Optimizer::parameters() const { return impl_->parameters; }

}  // namespace gradferry
