// What `gradferry doctor` found, and its checks of the machine, which need no library.
#pragma once

#include <set>
#include <string>
#include <vector>

namespace gradferry::command {

// Each check has one finding.
class Findings {
 public:
  void Ok(const std::string& check, const std::string& what) { Add({check, "ok", what, ""}); }
  // mend: one line that says what to do.
  void Warning(const std::string& check, const std::string& what, const std::string& mend) {
    Add({check, "warning", what, mend});
  }
  void Problem(const std::string& check, const std::string& what, const std::string& mend) {
    Add({check, "problem", what, mend});
    ++problems_;
  }
  int problems() const { return problems_; }
  // For people; {"findings": [{check, state, what, mend}], "problems": N}.
  std::string Text() const;
  std::string Json() const;

 private:
  struct Finding {
    std::string check, state, what, mend;
  };
  void Add(Finding finding) { all_.push_back(std::move(finding)); }

  std::vector<Finding> all_;
  int problems_ = 0;
};

// Reads of another process's memory, as TensorPipe's cma does them. Forks: no thread may run yet.
void CheckCma(Findings& findings);
void CheckLimits(Findings& findings);
void CheckClock(Findings& findings);
// Whether other machines reach this one by its name.
void CheckHostName(Findings& findings, const std::string& name);
std::string HostName();

// The files whose name begins so that this process has mapped.
std::set<std::string> MappedFiles(const std::string& prefix);

}  // namespace gradferry::command
