// Lists of values: gf_list_*.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"

namespace gradferry {
namespace {

int32_t Push(gf_list* list, Value value, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(list));
    object->values.push_back(std::move(value));
    return OkStatus();
  });
}

Result<const Value*> At(const gf_list* list, size_t index) {
  GF_ASSIGN_OR_RETURN(const auto* object, Get(list));
  if (index < object->values.size()) return &object->values[index];
  return Status(Code::kOutOfRange, StrCat("value ", index, " is wanted of a list of ", object->values.size()));
}

Status WrongKind(const Value& value, size_t index, const char* wanted) {
  return InvalidArgument(
      StrCat("value ", index, " of the list is of kind ", ValueKindName(value.kind()), ", not ", wanted));
}

// The value at index, which must hold a T.
template <class T>
Result<const T*> TypedAt(const gf_list* list, size_t index, const char* wanted) {
  GF_ASSIGN_OR_RETURN(const auto* value, At(list, index));
  const T* typed = value->get<T>();
  if (typed == nullptr) return WrongKind(*value, index, wanted);
  return typed;
}

}  // namespace
}  // namespace gradferry

using namespace gradferry;

int32_t gf_list_new(gf_list** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    *out = MakeHandle<gf_list>(ListObject{});
    return OkStatus();
  });
}

gf_list* gf_list_ref(gf_list* list) { return RefHandle(list); }

void gf_list_unref(gf_list* list) { UnrefHandle(list); }

int32_t gf_list_push_none(gf_list* list, gf_error** error) { return Push(list, None(), error); }

int32_t gf_list_push_default(gf_list* list, gf_error** error) { return Push(list, DefaultValue(), error); }

int32_t gf_list_push_bool(gf_list* list, int32_t value, gf_error** error) { return Push(list, value != 0, error); }

int32_t gf_list_push_int(gf_list* list, int64_t value, gf_error** error) { return Push(list, value, error); }

int32_t gf_list_push_double(gf_list* list, double value, gf_error** error) { return Push(list, value, error); }

int32_t gf_list_push_string(gf_list* list, const char* text, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(list));
    GF_ASSIGN_OR_RETURN(std::string_view view, TextIn(text, length, "the string"));
    object->values.push_back(std::string(view));
    return OkStatus();
  });
}

int32_t gf_list_push_bytes(gf_list* list, const void* data, size_t length, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(list));
    if (data == nullptr && length > 0) return InvalidArgument(StrCat("the bytes are NULL, with a length of ", length));
    object->values.push_back(Bytes{length == 0 ? std::string() : std::string(static_cast<const char*>(data), length)});
    return OkStatus();
  });
}

int32_t gf_list_push_tensor(gf_list* list, gf_tensor* tensor, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(list));
    GF_ASSIGN_OR_RETURN(auto* pushed, Get(tensor));
    object->values.push_back(pushed->tensor);
    return OkStatus();
  });
}

int32_t gf_list_push_list(gf_list* list, gf_list* value, gf_error** error) {
  return AtBoundary(error, Outs(), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(auto* object, Get(list));
    GF_ASSIGN_OR_RETURN(auto* pushed, Get(value));
    // A copy first: a list may be pushed to itself.
    ValueList copy = pushed->values;
    object->values.push_back(std::move(copy));
    return OkStatus();
  });
}

size_t gf_list_size(const gf_list* list) {
  const ListObject* object = Peek(list);
  return object == nullptr ? 0 : object->values.size();
}

uint32_t gf_list_kind(const gf_list* list, size_t index) {
  const ListObject* object = Peek(list);
  if (object == nullptr || index >= object->values.size()) return GF_VALUE_NONE;
  return static_cast<uint32_t>(object->values[index].kind());
}

int32_t gf_list_get_bool(const gf_list* list, size_t index, int32_t* out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, TypedAt<bool>(list, index, "bool"));
    *out = *value ? 1 : 0;
    return OkStatus();
  });
}

int32_t gf_list_get_int(const gf_list* list, size_t index, int64_t* out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, TypedAt<int64_t>(list, index, "int"));
    *out = *value;
    return OkStatus();
  });
}

int32_t gf_list_get_double(const gf_list* list, size_t index, double* out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, TypedAt<double>(list, index, "double"));
    *out = *value;
    return OkStatus();
  });
}

int32_t gf_list_get_bytes(const gf_list* list, size_t index, const char** out, size_t* length, gf_error** error) {
  return AtBoundary(error, Outs(out, length), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, At(list, index));
    const std::string* text = value->get<std::string>();
    if (const Bytes* bytes = value->get<Bytes>()) text = &bytes->data;
    if (text == nullptr) return WrongKind(*value, index, "string or bytes");
    *out = text->c_str();
    *length = text->size();
    return OkStatus();
  });
}

int32_t gf_list_get_tensor(const gf_list* list, size_t index, gf_tensor** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, TypedAt<at::Tensor>(list, index, "tensor"));
    *out = MakeHandle<gf_tensor>(TensorObject{*value});
    return OkStatus();
  });
}

int32_t gf_list_get_list(const gf_list* list, size_t index, gf_list** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* value, TypedAt<ValueList>(list, index, "list"));
    *out = MakeHandle<gf_list>(ListObject{*value});
    return OkStatus();
  });
}
