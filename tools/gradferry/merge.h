// Traces of several workers as one: their clocks aligned, with an arrow from each message to where it arrived.
//
// A trace of a worker (gf_worker_trace_json) has in args.flow, for what it sent and for what it received, the name of
// the exchange, and in args.side which of the two. Both slices of one exchange tell about the two clocks what a round
// trip of NTP tells: the receiver's slice lies within the sender's, so the receiver's clock is ahead by at least
// end' - end and by at most start' - start. All exchanges of two workers together narrow that down; what is left is the
// error. Workers that did not talk to each other are aligned over others that did.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace gradferry::command {

struct Trace {
  std::string file;  // for errors
  nlohmann::json document;
};

// Throws Failure, which names the file, when one is no trace of a worker, or when two are of one worker.
// otherData.workers says of each by how much its times were moved (offset_us), how wrong that may be (error_us), and
// to whose clock; error_us is null for a worker that no exchange leads to, which is not moved.
nlohmann::json MergeTraces(std::vector<Trace> traces);

}  // namespace gradferry::command
