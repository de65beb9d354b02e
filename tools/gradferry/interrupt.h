// SIGINT, SIGTERM and SIGHUP, for commands that run until one of them comes and have something to put back then.
#pragma once

namespace gradferry::command {

// One of them has come: to be looked at between two steps. Their handler is installed by the first call of any of these
// functions; from then on they end nothing by themselves.
bool Interrupted();
// Readable from then on, for good: for poll().
int InterruptFd();
// Sleeps, less long when interrupted, be it a moment before.
void SleepUnlessInterrupted(double seconds);

}  // namespace gradferry::command
