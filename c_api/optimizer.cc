// Optimizers: gf_optimizer_*. The arithmetic is torch::optim's, behind impl/tensor/optimizer.h.
#include <string>
#include <vector>

#include "c_api/boundary.h"
#include "c_api/objects.h"
#include "impl/base/spec.h"

namespace gradferry {
namespace {

Result<std::vector<at::Tensor>> TensorsOf(const ValueList& values) {
  std::vector<at::Tensor> tensors;
  tensors.reserve(values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const auto* tensor = values[i].get<at::Tensor>();
    if (tensor == nullptr) {
      return InvalidArgument(
          StrCat("parameters are tensors; value ", i, " of the list is of kind ", ValueKindName(values[i].kind())));
    }
    tensors.push_back(*tensor);
  }
  return tensors;
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_optimizer_new(const char* spec, size_t length, const gf_list* parameters, gf_optimizer** out,
                         gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::string_view text, TextIn(spec, length, "the optimizer's spec"));
    GF_ASSIGN_OR_RETURN(OptimizerText parsed, ParseOptimizerSpec(text));
    GF_ASSIGN_OR_RETURN(const auto* list, Get(parameters));
    GF_ASSIGN_OR_RETURN(std::vector<at::Tensor> tensors, TensorsOf(list->values));
    GF_ASSIGN_OR_RETURN(auto optimizer, Optimizer::New(parsed, std::move(tensors)));
    *out = MakeHandle<gf_optimizer>(OptimizerObject{std::move(optimizer)});
    return OkStatus();
  });
}

gf_optimizer* gf_optimizer_ref(gf_optimizer* optimizer) { return RefHandle(optimizer); }

void gf_optimizer_unref(gf_optimizer* optimizer) { UnrefHandle(optimizer); }
