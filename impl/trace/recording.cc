// See recording.h.
#include "impl/trace/recording.h"

#include <ATen/record_function.h>

#include <utility>

namespace gradferry {
namespace {

thread_local Recording* innermost = nullptr;

struct EventContext : at::ObserverContext {
  std::shared_ptr<ProfileRecorder> recorder;
  uint32_t event = kNoEvent;
  uint32_t outer = 0;
};

}  // namespace

// libtorch calls these around each operator, on the thread of the Recording.
struct OperatorEvents {
  static std::unique_ptr<at::ObserverContext> Begin(const at::RecordFunction& function) {
    Recording* recording = innermost;
    if (recording == nullptr) return nullptr;
    auto context = std::make_unique<EventContext>();
    context->recorder = recording->recorder_;
    context->event = recording->recorder_->Begin(ProfileEventKind::kOperator, function.name(), recording->current_);
    context->outer = recording->current_;
    if (context->event != kNoEvent) recording->current_ = context->event;
    return context;
  }

  static void End(const at::RecordFunction&, at::ObserverContext* observed) {
    auto* context = static_cast<EventContext*>(observed);
    if (context == nullptr) return;
    context->recorder->End(context->event);
    Recording* recording = innermost;
    if (recording != nullptr && recording->recorder_ == context->recorder) recording->current_ = context->outer;
  }
};

Recording::Recording(std::shared_ptr<ProfileRecorder> recorder, const std::string& name)
    : recorder_(std::move(recorder)) {
  if (recorder_ == nullptr) return;
  if (!name.empty()) own_ = recorder_->Begin(ProfileEventKind::kHandler, name, CurrentEvent(*recorder_));
  current_ = own_ == kNoEvent ? CurrentEvent(*recorder_) : own_;
  outer_ = std::exchange(innermost, this);
  // One callback per thread is enough: it asks for the innermost Recording.
  if (outer_ == nullptr) {
    callback_ = at::addThreadLocalCallback(at::RecordFunctionCallback(&OperatorEvents::Begin, &OperatorEvents::End));
  }
}

Recording::~Recording() {
  if (recorder_ == nullptr) return;
  if (outer_ == nullptr) at::removeCallback(callback_);
  innermost = outer_;
  recorder_->End(own_);
}

RecordingPause::RecordingPause() : paused_(std::exchange(innermost, nullptr)) {}
RecordingPause::~RecordingPause() { innermost = paused_; }

uint32_t Recording::CurrentEvent(const ProfileRecorder& recorder) {
  for (const Recording* recording = innermost; recording != nullptr; recording = recording->outer_) {
    if (recording->recorder_.get() == &recorder) return recording->current_;
  }
  return 0;
}

}  // namespace gradferry
