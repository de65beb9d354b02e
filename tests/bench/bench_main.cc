// Measures the machine, PyTorch's RPC and Gradferry side by side, and says how far Gradferry is from its goals.
//
// All subjects (plan.h) are started first. Those that are not being measured are stopped, so that they take no CPU. A
// round measures everything once, one subject after the other for each measurement, forwards in even rounds and
// backwards in odd ones, so that what changes slowly on the machine hits all alike; ratios are of the same round.
#include <sys/resource.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "tests/bench/goals.h"
#include "tests/bench/machine.h"
#include "tests/bench/pair.h"
#include "tests/bench/plan.h"
#include "tests/bench/report.h"
#include "tests/bench/results.h"
#include "tests/bench/subject.h"

namespace gradferry::bench {
namespace {

struct Options {
  std::string effort = "quick";
  std::string json;
  std::vector<std::string> subjects;      // none: all
  std::vector<std::string> measurements;  // none: all
  int rounds = 0;                         // 0: the effort's
  bool pinned = false;
  int nice = -5;
};

template <class T>
bool Wanted(const std::vector<T>& wanted, const T& name) {
  return wanted.empty() || std::find(wanted.begin(), wanted.end(), name) != wanted.end();
}

void Say(const std::string& text) { std::cerr << text << std::endl; }

// A folder that goes with all that is in it.
class Folder {
 public:
  Folder() {
    std::string path = std::filesystem::temp_directory_path() / "gradferry-bench-XXXXXX";
    if (mkdtemp(&path[0]) == nullptr) throw std::runtime_error("cannot make a folder " + path);
    path_ = path;
  }
  Folder(const Folder&) = delete;
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

class Bench {
 public:
  explicit Bench(const Options& options) : options_(options), effort_(EffortOf(options.effort)) {
    if (options.rounds > 0) effort_.rounds = options.rounds;
    programs_ = std::filesystem::read_symlink("/proc/self/exe").parent_path();
    for (Subject& subject : AllSubjects(programs_)) {
      if (Wanted(options.subjects, subject.name)) subjects_.push_back(std::move(subject));
    }
    for (const Measurement& measurement : AllMeasurements()) {
      if (!effort_.large && measurement.bytes > 64 * kMiB) continue;
      if (Wanted(options.measurements, measurement.name)) measurements_.push_back(measurement);
    }
  }

  void Run() {
    StartAll();
    for (int round = 0; round < effort_.rounds; ++round) RunRound(round);
    if (Wanted<std::string>(options_.measurements, "busy")) MeasureTails();
    if (Wanted<std::string>(options_.measurements, "idle")) MeasureIdle();
    if (effort_.large && Wanted<std::string>(options_.measurements, "memory")) MeasureMemory();
    pairs_.clear();
    if (effort_.large && Wanted<std::string>(options_.measurements, "copies")) MeasureCopies();
  }

  void Report() const {
    const auto goals = JudgeGoals(results_, subjects_);
    const size_t used = results_.UsedRounds().size();
    std::cout << ResultsTable(results_, subjects_) << '\n' << GoalsTable(goals) << '\n';
    std::cout << used << " of " << results_.disturbances().size() << " rounds used";
    std::cout << (results_.OnlyUndisturbed() ? ", the undisturbed ones" : "; too many were disturbed to leave them out")
              << '\n';
    for (const auto& [what, why] : results_.failures()) std::cout << "not measured: " << what << ": " << why << '\n';
    if (!options_.json.empty()) WriteJson(goals);
  }

 private:
  // One process pair at a time: a subject that is being measured.
  class Awake {
   public:
    explicit Awake(Pair& pair) : pair_(pair) { pair_.Continue(); }
    Awake(const Awake&) = delete;
    ~Awake() { pair_.Stop(); }

   private:
    Pair& pair_;
  };

  void StartAll() {
    for (const Subject& subject : subjects_) {
      try {
        Prepare(subject, folder_.path() + "/" + subject.name);
        auto pair =
            std::make_unique<Pair>(subject.command, folder_.path() + "/" + subject.name, options_.pinned, environment_);
        pair->Await();
        pair->Stop();
        pairs_[subject.name] = std::move(pair);
      } catch (const std::exception& error) {
        Fail(subject.name, error);
      }
    }
  }

  static void Prepare(const Subject& subject, const std::string& folder) {
    if (subject.preparation.empty()) return;
    const std::string line = subject.preparation + " " + folder + " " + subject.preparation_arguments;
    if (std::system((line + " >/dev/null").c_str()) != 0) throw std::runtime_error("this failed: " + line);
  }

  void Fail(const std::string& what, const std::exception& error) {
    Say(what + ": " + error.what());
    results_.AddFailure(what, error.what());
  }

  // A measurement that went wrong once is not tried again.
  void Measure(const Measurement& measurement, const Subject& subject, int round) {
    const auto found = pairs_.find(subject.name);
    const std::string what = subject.name + " " + measurement.name;
    if (found == pairs_.end() || !found->second->Has(measurement.name) || results_.failures().count(what) != 0) return;
    Pair& pair = *found->second;
    try {
      const Awake awake(pair);
      const int64_t most = std::min(measurement.most, effort_.most_samples);
      const double seconds = effort_.seconds * measurement.share;
      // Caches, sleeping cores, threads that have been stopped.
      pair.Run(measurement.name, std::max<int64_t>(1, std::min<int64_t>(20, most / 20)), seconds / 10);
      results_.AddSlice(measurement.name, subject.name, round, pair.Run(measurement.name, most, seconds));
      if (measurement.bytes != 0 && pair.Has("free")) pair.Run("free", 1, 1);
    } catch (const std::exception& error) {
      Fail(what, error);
    }
  }

  double OurCpuSeconds() {
    double sum = 0;
    for (const auto& [name, pair] : pairs_) sum += pair->driver().CpuSeconds() + pair->peer().CpuSeconds();
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return sum + static_cast<double>(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           static_cast<double>(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
  }

  void RunRound(int round) {
    const int64_t began = Now();
    const CpuTimes before = ReadCpuTimes();
    const double ours_before = OurCpuSeconds();
    std::vector<Subject> order = subjects_;
    if (round % 2 == 1) std::reverse(order.begin(), order.end());
    for (const Measurement& measurement : measurements_) {
      for (const Subject& subject : order) Measure(measurement, subject, round);
    }
    const double wall = static_cast<double>(Now() - began) * 1e-9;
    const CpuTimes after = ReadCpuTimes();
    Disturbance disturbance;
    disturbance.steal = (after.steal - before.steal) / wall / static_cast<double>(sysconf(_SC_NPROCESSORS_ONLN));
    disturbance.others = std::max(0.0, (after.busy - before.busy) - (OurCpuSeconds() - ours_before)) / wall;
    results_.AddRound(disturbance);
    char text[160];
    std::snprintf(text, sizeof(text), "round %d of %d: %.1f s, steal %.1f %%, others %.2f cores", round + 1,
                  effort_.rounds, wall, disturbance.steal * 100, disturbance.others);
    Say(text);
  }

  // body(subject's name, pair) for each that has the measurement and runs.
  template <class Body>
  void ForEach(const std::string& measurement, const Body& body) {
    for (const Subject& subject : subjects_) {
      const auto found = pairs_.find(subject.name);
      if (found == pairs_.end() || !found->second->Has(measurement)) continue;
      try {
        const Awake awake(*found->second);
        body(subject, *found->second);
      } catch (const std::exception& error) {
        Fail(subject.name + " " + measurement, error);
      }
    }
  }

  void MeasureTails() {
    if (!effort_.large) return;
    Say("calls beside a transfer of 1 GiB");
    ForEach("busy", [&](const Subject& subject, Pair& pair) {
      std::vector<double> all;
      for (int round = 0; round < effort_.tail_rounds; ++round) {
        const Slice slice = pair.Run("busy", effort_.most_samples, effort_.tail_seconds);
        all.insert(all.end(), slice.ns.begin(), slice.ns.end());
      }
      pair.Run("free", 1, 1);
      results_.AddValue("busy_p50", subject.name, Percentile(all, 50));
      results_.AddValue("busy_p99", subject.name, Percentile(all, 99));
    });
  }

  void MeasureIdle() {
    Say("idle workers");
    ForEach("add", [&](const Subject& subject, Pair& pair) {
      // What the continuing of a stopped process makes it do is over then.
      std::this_thread::sleep_for(std::chrono::duration<double>(effort_.idle_seconds / 4));
      const int64_t began = Now();
      double cpu[2] = {pair.driver().CpuSeconds(), pair.peer().CpuSeconds()};
      int64_t sleeps[2] = {pair.driver().Sleeps(), pair.peer().Sleeps()};
      std::this_thread::sleep_for(std::chrono::duration<double>(effort_.idle_seconds));
      const double seconds = static_cast<double>(Now() - began) * 1e-9;
      cpu[0] = pair.driver().CpuSeconds() - cpu[0];
      cpu[1] = pair.peer().CpuSeconds() - cpu[1];
      sleeps[0] = pair.driver().Sleeps() - sleeps[0];
      sleeps[1] = pair.peer().Sleeps() - sleeps[1];
      results_.AddValue("idle_cpu", subject.name, 100 * std::max(cpu[0], cpu[1]) / seconds);
      results_.AddValue("idle_wakeups", subject.name, static_cast<double>(std::max(sleeps[0], sleeps[1])) / seconds);
    });
  }

  void MeasureMemory() {
    Say("memory for 1 GiB");
    ForEach("hold_1gib", [&](const Subject& subject, Pair& pair) {
      pair.Run("hold_1gib", 1, 10);
      int64_t base[2];
      int i = 0;
      for (Child* child : {&pair.driver(), &pair.peer()}) {
        child->ResetPeak();
        base[i++] = child->StatusBytes("VmRSS");
      }
      pair.Run("send_1gib", 1, 10);
      const auto sender = static_cast<double>(pair.driver().StatusBytes("VmHWM") - base[0]);
      const auto receiver = static_cast<double>(pair.peer().StatusBytes("VmHWM") - base[1]);
      pair.Run("free", 1, 1);
      results_.AddValue("sender_peak_mib", subject.name, sender / static_cast<double>(kMiB));
      results_.AddValue("receiver_peak_gib", subject.name, receiver / static_cast<double>(kGiB));
    });
  }

  // In processes whose memcpy and memmove count.
  void MeasureCopies() {
    Say("bytes copied");
    for (const Subject& subject : subjects_) {
      if (subject.kind != Kind::kOurs && subject.name != "stock") continue;
      if (results_.failures().count(subject.name) != 0) continue;
      const std::string folder = folder_.path() + "/" + subject.name + "-counted";
      try {
        auto environment = environment_;
        environment.push_back("LD_PRELOAD=" + programs_ + "/libcopy_counter.so");
        environment.push_back("BENCH_COPIES_FILE=" + folder + "/copies");
        std::filesystem::create_directories(folder);
        Prepare(subject, folder);
        std::ofstream(folder + "/copies") << std::string(sizeof(uint64_t), '\0');
        Pair pair(subject.command, folder, options_.pinned, environment);
        pair.Await();
        pair.Run("send_64mib", 1, 1);
        constexpr int64_t kSends = 4;
        const uint64_t before = CopiedBytes(folder);
        pair.Run("send_64mib", kSends, 60);
        const auto copied = static_cast<double>(CopiedBytes(folder) - before);
        results_.AddValue("copied_bytes", subject.name, copied / static_cast<double>(kSends * 64 * kMiB));
      } catch (const std::exception& error) {
        Fail(subject.name + " copies", error);
      }
    }
  }

  static uint64_t CopiedBytes(const std::string& folder) {
    uint64_t bytes = 0;
    std::ifstream(folder + "/copies").read(reinterpret_cast<char*>(&bytes), sizeof(bytes));
    return bytes;
  }

  void WriteJson(const std::vector<Goal>& goals) const {
    nlohmann::json judged = nlohmann::json::array();
    for (const Goal& goal : goals) {
      nlohmann::json entry = {{"what", goal.what}, {"wanted", goal.wanted}, {"by", goal.by}, {"met", goal.met}};
      entry["value"] = goal.value ? nlohmann::json(*goal.value) : nlohmann::json();
      judged.push_back(std::move(entry));
    }
    nlohmann::json all = results_.ToJson();
    all["machine"] = DescribeMachine();
    all["effort"] = effort_.name;
    all["pinned"] = options_.pinned;
    all["goals"] = judged;
    std::ofstream file(options_.json);
    file << all.dump(1) << '\n';
    if (!file) throw std::runtime_error("cannot write " + options_.json);
  }

  const Options options_;
  Effort effort_;
  std::string programs_;
  // libtorch's own threads would only disturb.
  const std::vector<std::string> environment_ = {"OMP_NUM_THREADS=1"};
  const Folder folder_;
  std::vector<Subject> subjects_;
  std::vector<Measurement> measurements_;
  std::map<std::string, std::unique_ptr<Pair>> pairs_;
  Results results_;
};

int Main(int count, char** arguments) {
  Options options;
  CLI::App app("Measures Gradferry beside the machine's limits and PyTorch's RPC.");
  app.add_option("effort", options.effort, "quick, full, or tiny to see that it works")
      ->check(CLI::IsMember({"quick", "full", "tiny"}));
  app.add_option("--json", options.json, "write everything to this file, too");
  app.add_option("--subjects", options.subjects, "only these, separated by commas")->delimiter(',');
  app.add_option("--measure", options.measurements, "only these, or busy, idle, memory, copies")->delimiter(',');
  app.add_option("--rounds", options.rounds, "how many")->check(CLI::Range(1, 1000));
  app.add_flag("--pin", options.pinned, "the caller on the first core, the callee on the second");
  app.add_option("--nice", options.nice, "priority, where the system allows it");
  CLI11_PARSE(app, count, arguments);
  (void)setpriority(PRIO_PROCESS, 0, options.nice);
  Bench bench(options);
  bench.Run();
  bench.Report();
  return 0;
}

}  // namespace
}  // namespace gradferry::bench

int main(int count, char** arguments) {
  try {
    return gradferry::bench::Main(count, arguments);
  } catch (const std::exception& error) {
    std::cerr << "bench: " << error.what() << '\n';
    return 1;
  }
}
