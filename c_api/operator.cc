// Operators of libtorch, called in this process: gf_operator_*.
#include <string>

#include "c_api/boundary.h"
#include "c_api/objects.h"

using namespace gradferry;

int32_t gf_operator_find(const char* name, size_t name_length, const char* overload, size_t overload_length,
                         gf_operator** out, gf_error** error) {
  return AtBoundary(error, Outs(out), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(std::string_view qualified, TextIn(name, name_length, "the operator's name"));
    GF_ASSIGN_OR_RETURN(std::string_view which, TextIn(overload, overload_length, "the overload"));
    GF_ASSIGN_OR_RETURN(auto op, Operator::Find(std::string(qualified), std::string(which)));
    *out = MakeHandle<gf_operator>(OperatorObject{std::move(op)});
    return OkStatus();
  });
}

gf_operator* gf_operator_ref(gf_operator* op) { return RefHandle(op); }

void gf_operator_unref(gf_operator* op) { UnrefHandle(op); }

const char* gf_operator_schema(const gf_operator* op, size_t* length) {
  const OperatorObject* object = Peek(op);
  if (length != nullptr) *length = object == nullptr ? 0 : object->op->schema().size();
  return object == nullptr ? "" : object->op->schema().c_str();
}

int32_t gf_operator_call(gf_operator* op, const gf_list* arguments, uint32_t grad, gf_list** results,
                         gf_error** error) {
  return AtBoundary(error, Outs(results), [&]() -> Status {
    GF_ASSIGN_OR_RETURN(const auto* object, Get(op));
    if (grad > GF_GRAD_RECORD) return InvalidArgument(StrCat("grad is GF_GRAD_OFF or GF_GRAD_RECORD, got ", grad));
    static const auto* const nothing = new ListObject;
    const ListObject* list = nothing;
    if (arguments != nullptr) {
      GF_ASSIGN_OR_RETURN(list, Get(arguments));
    }
    GF_ASSIGN_OR_RETURN(ValueList values, object->op->Call(list->values, grad == GF_GRAD_RECORD));
    *results = MakeHandle<gf_list>(ListObject{std::move(values)});
    return OkStatus();
  });
}
