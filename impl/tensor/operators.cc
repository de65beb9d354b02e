// See operators.h.
#include "impl/tensor/operators.h"

#include <exception>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "impl/base/nearest.h"
#include "impl/tensor/arguments.h"
#include "impl/tensor/torch_scope.h"

namespace gradferry {
namespace {

std::string FullName(const std::string& name, const std::string& overload) {
  return overload.empty() ? name : StrCat(name, ".", overload);
}

// The overloads of this name that have a schema, and, in *names, all names that do.
std::set<std::string> Overloads(const std::string& name, std::set<std::string>* names) {
  std::set<std::string> overloads;
  c10::Dispatcher& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& known : dispatcher.getAllOpNames()) {
    if (!dispatcher.findSchema(known)) continue;
    names->insert(known.name);
    if (known.name == name) overloads.insert(known.overload_name);
  }
  return overloads;
}

std::string OverloadsText(const std::set<std::string>& overloads) {
  std::string text;
  for (const std::string& overload : overloads) text += StrCat(text.empty() ? "" : ", ", "'", overload, "'");
  return text;
}

Status NotFoundStatus(const std::string& name, const std::string& overload) {
  std::set<std::string> names;
  const std::set<std::string> overloads = Overloads(name, &names);
  if (!overloads.empty()) {
    return NotFound(StrCat("operator ", name, " has no overload '", overload, "'; it has ", OverloadsText(overloads)));
  }
  const size_t dot = name.find('.');
  if (dot != std::string::npos && names.count(name.substr(0, dot)) > 0) {
    return NotFound(StrCat("no operator '", name, "' is registered; the overload '", name.substr(dot + 1),
                           "' is an argument of its own, beside the name '", name.substr(0, dot), "'"));
  }
  return NotFound(StrCat("no operator '", name, "' is registered",
                         DidYouMean(name, std::vector<std::string>(names.begin(), names.end()))));
}

Status FromTorchError(Code code, const c10::Error& e) {
  Error error;
  error.code = code;
  error.message = e.what_without_backtrace();
  error.backtrace = e.backtrace();
  return Status(std::move(error));
}

// The CPU allocator reports that memory ran out by an error of no type of its own.
Code CodeOfPlainError(const c10::Error& e) {
  const std::string_view message = e.what_without_backtrace();
  return message.find("can't allocate memory") == std::string_view::npos ? Code::kUnknown : Code::kResourceExhausted;
}

// The failure of an operator that ran: its message behind the operator's name.
Status OperatorFailure(const std::string& full_name, const Status& status) {
  Error error = *status.error();
  error.message = StrCat(full_name, ": ", error.message);
  return Status(std::move(error)).WithOperation(full_name);
}

Status TooManyArguments(const std::string& full_name, size_t wanted, size_t got) {
  return InvalidArgument(StrCat(full_name, " takes at most ", wanted, " arguments, got ", got))
      .WithOperation(full_name);
}

}  // namespace

Operator::Operator(c10::OperatorHandle handle)
    : handle_(std::move(handle)),
      full_name_(FullName(handle_.schema().name(), handle_.schema().overload_name())),
      schema_text_(StrCat(handle_.schema())) {}

Result<std::shared_ptr<const Operator>> Operator::Find(const std::string& name, const std::string& overload) {
  try {
    auto handle = c10::Dispatcher::singleton().findSchema({name, overload});
    if (!handle) return NotFoundStatus(name, overload);
    if (handle->schema().is_vararg() || handle->schema().is_varret()) {
      return Status(Code::kUnsupported, StrCat("operator ", FullName(name, overload), " has no fixed arguments"));
    }
    return std::shared_ptr<const Operator>(new Operator(*handle));
  } catch (...) {
    return StatusFromTorchException().WithOperation(FullName(name, overload));
  }
}

Result<ValueList> Operator::Call(const ValueList& arguments, bool record) const {
  const c10::FunctionSchema& schema = handle_.schema();
  const std::vector<c10::Argument>& parameters = schema.arguments();
  if (arguments.size() > parameters.size()) {
    return TooManyArguments(full_name_, parameters.size(), arguments.size());
  }
  try {
    torch::jit::Stack stack;
    stack.reserve(parameters.size());
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Value* argument = i < arguments.size() ? &arguments[i] : nullptr;
      GF_RETURN_IF_ERROR(AppendArgument(full_name_, parameters[i], argument, stack));
    }
    {
      TorchScope scope(record ? GradRecording::kOn : GradRecording::kOff);
      handle_.callBoxed(&stack);
    }
    ValueList results;
    results.reserve(stack.size());
    for (size_t i = 0; i < stack.size(); ++i) {
      GF_ASSIGN_OR_RETURN(Value result, FromIValue(full_name_, schema.returns().at(i), stack[i]));
      results.push_back(std::move(result));
    }
    return results;
  } catch (...) {
    return OperatorFailure(full_name_, StatusFromTorchException());
  }
}

Status StatusFromTorchException() {
  try {
    throw;
  } catch (const c10::IndexError& e) {
    return FromTorchError(Code::kInvalidArgument, e);
  } catch (const c10::ValueError& e) {
    return FromTorchError(Code::kInvalidArgument, e);
  } catch (const c10::TypeError& e) {
    return FromTorchError(Code::kInvalidArgument, e);
  } catch (const c10::NotImplementedError& e) {
    return FromTorchError(Code::kUnimplemented, e);
  } catch (const c10::OutOfMemoryError& e) {
    return FromTorchError(Code::kResourceExhausted, e);
  } catch (const c10::Error& e) {
    return FromTorchError(CodeOfPlainError(e), e);
  } catch (...) {
    return StatusFromCurrentException();
  }
}

}  // namespace gradferry
