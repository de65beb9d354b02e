// See liveness.h.
#include "impl/rpc/liveness.h"

#include <algorithm>

namespace gradferry {

Silence::Verdict Silence::Look(const LivenessOptions& options, int64_t now, int64_t grace, int64_t* silent,
                               int64_t* next) {
  const int64_t sending = sending_.load(std::memory_order_relaxed);
  // What waited behind a large frame was not late: its time begins when the frame is through.
  if (since_ == 0 || (was_sending_ && sending == 0)) since_ = now;
  was_sending_ = sending > 0;

  const int64_t heard = std::max({heard_.load(std::memory_order_relaxed), since_, grace});
  const auto under_way = static_cast<int64_t>(receiving_.load(std::memory_order_relaxed)) + sending;
  const int64_t allowance = under_way * kNsPerByte;
  *silent = now - heard;
  const int64_t lost = DeadlineAfter(heard, DeadlineAfter(options.lost, allowance));
  const int64_t suspect = DeadlineAfter(heard, DeadlineAfter(options.suspect, allowance));
  const int64_t ask = std::max(heard, asked_) + options.interval;
  if (now >= lost) return Verdict::kLost;
  *next = std::min({lost, now >= suspect ? kNever : suspect, now >= ask ? now + options.interval : ask});
  if (now >= ask) asked_ = now;
  if (now >= suspect) return Verdict::kSuspect;
  return now >= ask ? Verdict::kAsk : Verdict::kFine;
}

}  // namespace gradferry
