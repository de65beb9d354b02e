// Runs `gradferry` as a process, as a shell would.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>

#include "tests/support/c_abi/process.h"

namespace gf {

struct Ran {
  int status = -1;  // of the exit; 128 + the signal that ended it
  std::string out, err;
};

// A shell's command line behind `gradferry`; before: what stands in front of it, as in "X=1". With the library of the
// test, whose path the environment has.
inline Ran RunGradferry(const std::string& arguments, const std::string& before = "") {
  const TemporaryFolder folder;
  const std::string errors = folder.File("errors");
  const std::string line =
      "ulimit -c 0; " + before + " timeout 60 tools/gradferry/gradferry " + arguments + " 2>" + errors;
  Ran ran;
  FILE* pipe = popen(line.c_str(), "r");
  if (pipe == nullptr) return ran;
  char bytes[4096];
  for (size_t count; (count = fread(bytes, 1, sizeof(bytes), pipe)) > 0;) ran.out.append(bytes, count);
  const int status = pclose(pipe);
  ran.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  if (FILE* file = fopen(errors.c_str(), "r")) {
    for (size_t count; (count = fread(bytes, 1, sizeof(bytes), file)) > 0;) ran.err.append(bytes, count);
    fclose(file);
  }
  return ran;
}

}  // namespace gf
