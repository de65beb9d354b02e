// Values to libtorch's IValues, matched against a schema's parameter, and back. Internal to impl/tensor: operators.cc
// is the only user. Throws what libtorch throws.
#pragma once

#include <ATen/core/function_schema.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <string>

#include "impl/base/status.h"
#include "impl/tensor/value.h"

namespace gradferry {

// Pushes a value for this parameter. Conversions: int to float, and int, double and bool to Scalar; a string to a
// device; a single element to a list whose schema has a length ("int[2]"); an undefined tensor to None where the
// parameter is optional. nullptr and DefaultValue take the schema's default. Errors begin with the operator's name.
Status AppendArgument(const std::string& operator_name, const c10::Argument& parameter, const Value* value,
                      torch::jit::Stack& stack);

// A result as a value; an undefined tensor is None. kUnsupported for what values cannot carry.
Result<Value> FromIValue(const std::string& operator_name, const c10::Argument& returned, const c10::IValue& value);

}  // namespace gradferry
