// Where in a message the encoder or decoder is, and the first thing that went wrong there: "Call.arguments[3][0]: ...".
// The place is a few words per level, which become a text only when one is asked for. Used within impl/wire only.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "impl/base/status.h"
#include "impl/wire/wire_format.h"

namespace gradferry {

class FieldErrors {
 public:
  // A message, field or element for as long as it lives; scopes nest.
  class Scope {
   public:
    Scope(FieldErrors& errors, const char* name) : Scope(errors, Step{name, 0}) {}
    Scope(FieldErrors& errors, size_t index) : Scope(errors, Step{nullptr, index}) {}
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;
    ~Scope() { --errors_.depth_; }

   private:
    friend class FieldErrors;
    struct Step {
      const char* name;  // null: an element
      size_t index;
    };
    Scope(FieldErrors& errors, Step step) : errors_(errors) {
      if (errors.depth_ < errors.steps_.size()) errors.steps_[errors.depth_] = step;
      ++errors.depth_;
    }
    FieldErrors& errors_;
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
    for (size_t i = 0; i < std::min(depth_, steps_.size()); ++i) {
      if (steps_[i].name == nullptr) {
        text += '[' + std::to_string(steps_[i].index) + ']';
      } else {
        if (!text.empty()) text += '.';
        text += steps_[i].name;
      }
    }
    return text;
  }

  // Message, wrapper, field and what is within it, besides the levels of lists.
  static constexpr size_t kMostSteps = kMaxNesting + 8;

  std::array<Scope::Step, kMostSteps> steps_;  // those below depth_ are set
  size_t depth_ = 0;
  Status status_;
};

}  // namespace gradferry
