// See value.h.
#include "impl/tensor/value.h"

#include <algorithm>
#include <cctype>

#include "impl/base/status.h"
#include "impl/tensor/dtypes.h"

namespace gradferry {

const char* ValueKindName(ValueKind kind) {
  switch (kind) {
    case ValueKind::kNone:
      return "none";
    case ValueKind::kBool:
      return "bool";
    case ValueKind::kInt:
      return "int";
    case ValueKind::kDouble:
      return "double";
    case ValueKind::kString:
      return "string";
    case ValueKind::kBytes:
      return "bytes";
    case ValueKind::kTensor:
      return "tensor";
    case ValueKind::kList:
      return "list";
    case ValueKind::kDefault:
      return "default";
  }
  return "unknown kind";
}

namespace {

template <class List, class Out>
void Collect(List& values, Out& out) {
  for (auto& value : values) {
    if (auto* tensor = value.template get<at::Tensor>()) {
      out.push_back(tensor);
    } else if (auto* list = value.template get<ValueList>()) {
      Collect(*list, out);
    }
  }
}

std::string DtypeName(c10::ScalarType type) {
  if (const DtypeInfo* info = FindDtype(type)) return info->name;
  std::string name = c10::toString(type);
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

std::string LayoutName(c10::Layout layout) {
  std::string name = StrCat(layout);  // "SparseCsr"
  std::string out;
  for (size_t i = 0; i < name.size(); ++i) {
    const unsigned char c = name[i];
    if (std::isupper(c) && i > 0) out += '_';
    out += static_cast<char>(std::tolower(c));
  }
  return layout == c10::kSparse ? "sparse_coo" : out;
}

}  // namespace

std::vector<at::Tensor*> CollectTensors(ValueList& values) {
  std::vector<at::Tensor*> out;
  Collect(values, out);
  return out;
}

std::vector<const at::Tensor*> CollectTensors(const ValueList& values) {
  std::vector<const at::Tensor*> out;
  Collect(values, out);
  return out;
}

std::string DescribeTensor(const at::Tensor& tensor) {
  if (!tensor.defined()) return "undefined tensor";
  std::string text = DtypeName(tensor.scalar_type());
  if (tensor.is_nested()) {
    text = "nested " + text;  // has no sizes
  } else {
    text += '[';
    for (int64_t d = 0; d < tensor.dim(); ++d) text += StrCat(d > 0 ? ", " : "", tensor.size(d));
    text += ']';
  }
  if (!tensor.is_cpu()) text += StrCat(" on ", tensor.device());
  if (tensor.layout() != c10::kStrided) text += StrCat(", ", LayoutName(tensor.layout()));
  return text;
}

}  // namespace gradferry
