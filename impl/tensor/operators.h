// Operators of libtorch's dispatcher, by name. Arguments are matched to the schema here, so that an error names the
// operator, the parameter, what it wants and what it got. Any thread.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>

#include <memory>
#include <string>

#include "impl/base/status.h"
#include "impl/tensor/value.h"

namespace gradferry {

class Operator {
 public:
  // kNotFound names the overloads that exist, or says that no operator of that name does.
  static Result<std::shared_ptr<const Operator>> Find(const std::string& name, const std::string& overload);

  const std::string& schema() const { return schema_text_; }
  // "aten::add.Tensor"
  const std::string& full_name() const { return full_name_; }

  // Calls it on this thread. Positional arguments in the schema's order, keyword-only ones included; missing trailing
  // ones and DefaultValue take the schema's default. With record false the call runs as under no_grad, else autograd
  // records it, whatever the thread's own state is. One value per return; an undefined tensor is None, and what no
  // value can carry kUnsupported. A failure inside the operator keeps libtorch's message (without its backtrace, which
  // goes to the error's own field) and names the operator.
  Result<ValueList> Call(const ValueList& arguments, bool record) const;

 private:
  explicit Operator(c10::OperatorHandle handle);
  c10::OperatorHandle handle_;
  std::string full_name_;
  std::string schema_text_;
};

// A Status for a libtorch exception that is being handled (in a catch block): message without backtrace, backtrace in
// its own field, code by type: kInvalidArgument for index, value and type errors, kUnimplemented for what a backend
// lacks, kResourceExhausted when memory ran out, else kUnknown.
Status StatusFromTorchException();

}  // namespace gradferry
