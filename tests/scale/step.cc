// See step.h.
#include "tests/scale/step.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/sum.h>
#include <c10/core/GradMode.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "impl/base/live.h"
#include "impl/rpc/worker.h"
#include "tests/property/group.h"

namespace gradferry::scale {
namespace {

using at::Tensor;
using property::Await;
using SteadyClock = std::chrono::steady_clock;

constexpr int64_t kElements = 16;
constexpr char kLayer[] = "layer";

double SecondsSince(SteadyClock::time_point begin) {
  return std::chrono::duration<double>(SteadyClock::now() - begin).count();
}

double ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  double total = 0, resident = 0;
  file >> total >> resident;
  return resident * static_cast<double>(sysconf(_SC_PAGESIZE));
}

int64_t ThreadsOfProcess() {
  std::ifstream file("/proc/self/status");
  std::string line;
  while (std::getline(file, line)) {
    if (line.rfind("Threads:", 0) == 0) return std::stoll(line.substr(8));
  }
  throw std::runtime_error("/proc/self/status does not say how many threads there are");
}

void Check(const Status& status, const std::string& what) {
  if (!status.ok()) throw property::Failed(what, status);
}

template <typename T>
T Check(Result<T> result, const std::string& what) {
  Check(result.status(), what);
  return *std::move(result);
}

// Values that stay whole numbers, so that every order of adding gives the same bits.
Tensor NewInput() { return at::arange(1, kElements + 1, at::kDouble).set_requires_grad(true); }
Tensor NewParameter(int worker) {
  return at::full({kElements}, worker % 3 == 0 ? -1 : 1, at::kDouble).set_requires_grad(true);
}
Tensor Layer(const Tensor& input, const Tensor& parameter) { return at::mul(at::add(input, 1), parameter); }

// The driver is worker 0.
class Group {
 public:
  explicit Group(const StepOptions& options) {
    static std::atomic<int> next{0};
    const std::string network = StrCat("scale-", next.fetch_add(1));
    for (int i = 0; i <= options.workers; ++i) {
      Config config;
      Check(
          config.LoadText(StrCat("[worker]\nname = \"w", i, "\"\nid = ", i, "\nthreads = 1\nlisten = \"sim://", network,
                                 "/", i + 1, "\"\n[transport]\nname = \"sim\"\n[transport.sim]\nnetwork = \"", network,
                                 "\"\ntime = \"", options.virtual_time ? "virtual" : "real", "\"\n")),
          "the configuration");
      workers_.push_back(Check(Worker::Open(config), StrCat("opening worker ", i)));
    }
    for (int i = 1; i <= options.workers; ++i) {
      Check(driver().AddPeer({i, workers_[i]->name(), workers_[i]->address()}), "AddPeer");
      Check(workers_[i]->AddPeer({0, driver().name(), driver().address()}), "AddPeer");
      parameters_.push_back(NewParameter(i));
      auto layer = [parameter = parameters_.back()](const std::shared_ptr<Request>& request) {
        c10::AutoGradMode mode(request->facts().record);
        (void)request->Reply({Layer(*request->arguments().at(0).get<Tensor>(), parameter)});
      };
      Check(workers_[i]->AddHandler(kLayer, {layer, /*on_pool=*/true}), "AddHandler");
    }
  }

  ~Group() {
    for (auto& worker : workers_) worker->Abort();
    for (auto& worker : workers_) worker->WaitUntilEnded();
  }

  void Close() {
    std::vector<std::shared_ptr<Future>> ends;
    for (auto& worker : workers_) ends.push_back(worker->Close(/*timeout=*/0));
    for (size_t i = 0; i < ends.size(); ++i) {
      workers_[i]->WaitUntilEnded();
      ends[i]->Wait(kNever);
      Check(ends[i]->outcome().status(), StrCat("closing worker ", i));
    }
  }

  Worker& driver() { return *workers_[0]; }
  Worker& worker(int index) { return *workers_[index]; }
  int workers() const { return static_cast<int>(workers_.size()) - 1; }
  // Of worker `index`; the driver has none.
  const Tensor& parameter(int index) const { return parameters_[index - 1]; }

 private:
  std::vector<std::shared_ptr<Worker>> workers_;
  std::vector<Tensor> parameters_;
};

// What has been counted so far, for each worker.
struct Counts {
  std::vector<double> frames, bytes;

  explicit Counts(Group& group) {
    for (int i = 0; i <= group.workers(); ++i) {
      const auto metrics = nlohmann::json::parse(group.worker(i).InfoJson()).at("metrics");
      frames.push_back(metrics.at("frames_sent").get<double>() + metrics.at("frames_received").get<double>());
      bytes.push_back(metrics.at("bytes_sent").get<double>() + metrics.at("bytes_received").get<double>());
    }
  }
};

// Runs a part of the step and says what it cost.
template <typename Part>
Cost Measure(Group& group, Part&& part) {
  const Counts before(group);
  Cost cost;
  const auto begin = SteadyClock::now();
  part();
  cost.seconds = SecondsSince(begin);
  const Counts after(group);
  const double workers = group.workers();
  for (int i = 1; i <= group.workers(); ++i) {
    const double frames = after.frames[i] - before.frames[i];
    cost.worker_frames += frames / workers;
    cost.worker_bytes += (after.bytes[i] - before.bytes[i]) / workers;
    cost.most_frames = std::max(cost.most_frames, frames);
  }
  cost.driver_frames = (after.frames[0] - before.frames[0]) / workers;
  return cost;
}

std::shared_ptr<Future> StartLayer(Group& group, const std::shared_ptr<DistAutogradContext>& context, int worker,
                                   const Tensor& input) {
  CallSpec spec;
  spec.to_id = worker;
  spec.name = kLayer;
  spec.arguments = {input};
  spec.context = context;
  return Check(group.driver().StartCall(std::move(spec)), StrCat("calling worker ", worker));
}

// How the shape calls the layers: `start` begins a call of a worker, and what it returns gives its result.
template <typename Start>
Tensor Forward(Shape shape, int workers, const Tensor& input, Start&& start) {
  if (shape == Shape::kChain) {
    Tensor value = input;
    for (int i = 1; i <= workers; ++i) value = start(i, value)();
    return at::sum(value);
  }
  std::vector<decltype(start(0, input))> calls;
  for (int i = 1; i <= workers; ++i) calls.push_back(start(i, at::mul(input, i)));
  std::vector<Tensor> results;
  for (auto& call : calls) results.push_back(call());
  return at::sum(at::stack(results));
}

Tensor ForwardOverGroup(Group& group, Shape shape, const std::shared_ptr<DistAutogradContext>& context,
                        const Tensor& input) {
  auto start = [&](int worker, const Tensor& argument) {
    return [&group, worker, future = StartLayer(group, context, worker, argument)] {
      const std::string what = StrCat("the call of worker ", worker);
      return *Check(Await(group.driver().clock(), *future, what), what).at(0).get<Tensor>();
    };
  };
  return Forward(shape, group.workers(), input, start);
}

void CheckGradients(Group& group, Shape shape, int64_t context, const Tensor& input, const Tensor& loss) {
  auto here = [&](int worker, const Tensor& argument) {
    return [result = Layer(argument, group.parameter(worker))] { return result; };
  };
  const Tensor local = Forward(shape, group.workers(), input, here);
  if (!at::equal(local, loss)) throw std::runtime_error("the loss is not that of local autograd");
  local.backward();
  for (int i = 0; i <= group.workers(); ++i) {
    const Tensor& leaf = i == 0 ? input : group.parameter(i);
    const auto part = Check(group.worker(i).FindContext(context), StrCat("the context on worker ", i));
    const Tensor gradient = part->Gradient(leaf);
    if (!gradient.defined()) throw std::runtime_error(StrCat("worker ", i, " has no gradient"));
    if (!at::equal(gradient, leaf.grad())) {
      throw std::runtime_error(StrCat("the gradient on worker ", i, " is not that of local autograd"));
    }
  }
}

bool NothingOfContextsIsLeft() {
  for (const LiveKind kind : {LiveKind::kAutogradContexts, LiveKind::kSendFunctions, LiveKind::kRecvFunctions,
                              LiveKind::kPasses, LiveKind::kCalls}) {
    if (LiveCount(kind) != 0) return false;
  }
  return true;
}

}  // namespace

Report RunStep(const StepOptions& options) {
  Report report;
  const double resident_before = ResidentBytes();
  auto resident = [&] { return (ResidentBytes() - resident_before) / options.workers; };
  auto look = [&] {
    report.resident_used = std::max(report.resident_used, resident());
    report.threads = std::max(report.threads, ThreadsOfProcess());
  };
  auto begin = SteadyClock::now();
  Group group(options);
  report.opening = SecondsSince(begin);
  report.resident_open = resident();
  {
    const property::Holding hold(group.driver().clock());
    auto context = Check(group.driver().NewContext(), "NewContext");
    const int64_t id = context->id();
    const Tensor input = NewInput();
    Tensor loss;
    report.forward = Measure(group, [&] { loss = ForwardOverGroup(group, options.shape, context, input); });
    look();
    report.pass = Measure(group, [&] {
      BackwardRequest backward;
      backward.roots = {loss};
      backward.grads.resize(1);
      const auto future = Check(group.driver().StartBackward(context, std::move(backward), /*timeout=*/0), "the pass");
      Check(Await(group.driver().clock(), *future, "the pass").status(), "the pass");
    });
    look();
    CheckGradients(group, options.shape, id, input, loss);
    loss.reset();
    context.reset();
    report.release = Measure(group, [&] {
      Check(group.driver().ReleaseContext(id), "ReleaseContext");
      property::AwaitCondition(NothingOfContextsIsLeft, "the release of the context on all workers");
    });
  }
  begin = SteadyClock::now();
  group.Close();
  report.closing = SecondsSince(begin);
  return report;
}

}  // namespace gradferry::scale
