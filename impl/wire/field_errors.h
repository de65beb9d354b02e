// Where in a message the encoder or decoder is, and the first thing that went wrong there: "Call.arguments[3][0]: ...".
// The place is a linked list of scopes on the stack, which costs nothing until a text is asked for. Used within
// impl/wire only.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "impl/base/status.h"

namespace gradferry {

class FieldErrors {
 public:
  // A message, field or element for as long as it lives; scopes nest.
  class Scope {
   public:
    Scope(FieldErrors& errors, const char* name) : errors_(errors), parent_(errors.top_), name_(name) {
      errors.top_ = this;
    }
    Scope(FieldErrors& errors, size_t index) : errors_(errors), parent_(errors.top_), index_(index) {
      errors.top_ = this;
    }
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { errors_.top_ = parent_; }

   private:
    friend class FieldErrors;
    FieldErrors& errors_;
    const Scope* const parent_;
    const char* const name_ = nullptr;  // null: an element
    const size_t index_ = 0;
  };

  bool ok() const { return status_.ok(); }
  const Status& status() const { return status_; }

  // Something is wrong where we are. The first error stays.
  void Fail(Code code, const std::string& text) {
    if (ok()) status_ = Status(code, Place() + ": " + text);
  }
  void FailField(const char* field, Code code, const std::string& text) {
    Scope scope(*this, field);
    Fail(code, text);
  }
  // Keeps everything of an error from below and puts the place before its message.
  void FailWith(const Status& status) {
    if (!ok() || status.ok()) return;
    Error error = *status.error();
    error.message = Place() + ": " + error.message;
    status_ = Status(std::move(error));
  }
  // "Call.name: 300 bytes, more than limits.name_bytes (255)"
  void FailLimit(uint64_t count, const char* things, const char* limit, uint64_t most) {
    Fail(Code::kResourceExhausted, StrCat(count, " ", things, ", more than ", limit, " (", most, ")"));
  }

 private:
  std::string Place() const {
    std::string text;
    Append(top_, &text);
    return text;
  }
  // As deep as the scopes are, which the nesting limit bounds.
  static void Append(const Scope* scope, std::string* text) {
    if (scope == nullptr) return;
    Append(scope->parent_, text);
    if (scope->name_ == nullptr) {
      *text += '[' + std::to_string(scope->index_) + ']';
    } else {
      if (!text->empty()) *text += '.';
      *text += scope->name_;
    }
  }

  const Scope* top_ = nullptr;
  Status status_;
};

}  // namespace gradferry
