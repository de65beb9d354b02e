// See cut.h.
#include "tests/property/cut.h"

#include <c10/core/GradMode.h>

#include <future>
#include <mutex>
#include <stdexcept>
#include <utility>

#include "impl/base/executor.h"
#include "impl/base/live.h"
#include "tests/property/operations.h"

namespace gradferry::property {

using at::Tensor;

namespace {

// What the handlers of all workers need of the run that goes on. Held by each of them while it works, so that a run
// that failed may end before they do.
struct Run {
  const Program program;
  Group& group;
  std::vector<Tensor> leaves;
  Observations observations;
  std::shared_ptr<DistAutogradContext> context;
};

// One run at a time in the process; handlers find it here.
class CurrentRun {
 public:
  void Set(std::shared_ptr<Run> run) {
    std::lock_guard lock(mutex_);
    run_.swap(run);
  }
  std::shared_ptr<Run> Get() {
    std::lock_guard lock(mutex_);
    return run_;
  }

 private:
  std::mutex mutex_;  // guards run_
  std::shared_ptr<Run> run_;
};
CurrentRun current_run;

std::vector<Tensor> TensorsOf(const Step& step, const ValueList& values) {
  if (step.op == Op::kMetric) return {MetricTensor(*values.at(0).get<int64_t>())};
  const ValueList* list = &values;
  const bool one_list = step.op == Op::kCall ? step.nested_list : step.op == Op::kChunk || step.op == Op::kUnbind;
  if (one_list) list = values.at(0).get<ValueList>();
  std::vector<Tensor> tensors;
  for (const Value& value : *list) tensors.push_back(*value.get<Tensor>());
  return tensors;
}

class UnderWay : public Pending {
 public:
  UnderWay(const Step& step, Clock& clock, std::shared_ptr<Future> future)
      : step_(step), clock_(clock), future_(std::move(future)) {}

  std::vector<Tensor> Wait() override {
    const Future::Outcome outcome = Await(clock_, *future_, StrCat("the call of step ", step_.number));
    if (!outcome.ok()) throw Failed(StrCat("step ", step_.number), outcome.status());
    return TensorsOf(step_, *outcome);
  }

 private:
  const Step& step_;
  Clock& clock_;
  const std::shared_ptr<Future> future_;
};

// A function on one worker, called by a request (none: the main function).
class OnWorker : public Environment {
 public:
  OnWorker(Run& run, int worker, std::shared_ptr<Request> request)
      : run_(run), worker_(run.group.worker(worker)), index_(worker), request_(std::move(request)) {}

  Tensor Leaf(int index) override {
    if (run_.program.leaves[index].worker != index_) throw std::logic_error("a leaf of another worker was asked for");
    return run_.leaves[index];
  }

  std::unique_ptr<Pending> Call(const Step& step, std::vector<Tensor> arguments) override {
    if (step.fails_first) {
      const Future::Outcome& outcome =
          Await(worker_.clock(), *Start(step, arguments, /*fail=*/true), "a call that fails");
      if (outcome.ok()) throw std::runtime_error(StrCat("step ", step.number, " should have failed"));
    }
    return std::make_unique<UnderWay>(step, worker_.clock(), Start(step, arguments, /*fail=*/false));
  }

 private:
  std::shared_ptr<Future> Start(const Step& step, const std::vector<Tensor>& arguments, bool fail) {
    CallSpec spec;
    spec.record = !step.no_grad && c10::GradMode::is_enabled();
    spec.parent = request_;
    if (!request_) spec.context = run_.context;
    if (step.op == Op::kCall) {
      const Function& function = run_.program.functions[step.function];
      spec.to_id = function.worker;
      spec.name = function.direct ? "run_direct" : "run";
      spec.arguments = {int64_t{step.function}, step.nested_list, fail};
      spec.arguments.insert(spec.arguments.end(), arguments.begin(), arguments.end());
    } else if (step.op == Op::kMetric) {
      spec.to_id = step.worker;
      spec.name = "metric";
      spec.arguments.assign(arguments.begin(), arguments.end());
    } else {
      OperatorCall call = MakeOperatorCall(step, arguments);
      spec.to_id = step.worker;
      spec.target = CallTarget::kOperator;
      spec.name = std::move(call.name);
      spec.overload = std::move(call.overload);
      spec.arguments = std::move(call.arguments);
    }
    // Every third call is made by another thread: that must make no difference.
    auto start = [&] { return worker_.StartCall(std::move(spec)); };
    auto future = step.number % 3 == 0 ? std::async(std::launch::async, start).get() : start();
    if (!future.ok()) throw Failed(StrCat("step ", step.number), future.status());
    return *std::move(future);
  }

  Run& run_;
  Worker& worker_;
  const int index_;
  const std::shared_ptr<Request> request_;
};

ValueList Execute(Run& run, int worker, const std::shared_ptr<Request>& request) {
  const ValueList& values = request->arguments();
  const int function = static_cast<int>(*values.at(0).get<int64_t>());
  const bool nested_list = *values.at(1).get<bool>();
  if (*values.at(2).get<bool>()) throw std::runtime_error("this attempt was meant to fail");
  std::vector<Tensor> arguments;
  for (size_t i = 3; i < values.size(); ++i) arguments.push_back(*values[i].get<Tensor>());
  c10::AutoGradMode mode(request->facts().record);
  OnWorker environment(run, worker, request);
  const auto results = RunFunction(run.program, function, std::move(arguments), environment, run.observations);
  ValueList list(results.begin(), results.end());
  return nested_list ? ValueList{Value(std::move(list))} : list;
}

void Answer(int worker, const std::shared_ptr<Request>& request) {
  const std::shared_ptr<Run> run = current_run.Get();
  if (!run) return (void)request->Fail(Status(Code::kAborted, "the run is over"));
  try {
    const Status status = request->Reply(Execute(*run, worker, request));
    if (!status.ok()) (void)request->Fail(status);
  } catch (const Failed& failed) {
    (void)request->Fail(failed.status);
  } catch (const std::exception& error) {
    (void)request->Fail(Status(Code::kUnknown, error.what()));
  }
}

void AnswerMetric(const std::shared_ptr<Request>& request) {
  std::vector<Tensor> tensors;
  for (const Value& value : request->arguments()) tensors.push_back(*value.get<Tensor>());
  (void)request->Reply({Metric(tensors)});
}

void Check(const Status& status) {
  if (!status.ok()) throw Failed("the run", status);
}

void RunPass(Run& run, size_t pass, const std::vector<Tensor>& values, Outcome& outcome) {
  const Program& program = run.program;
  const auto usable = UsableRoots(program.passes[pass], values);
  if (usable.empty()) return;
  BackwardRequest backward;
  for (size_t r = 0; r < usable.size(); ++r) {
    const Tensor& root = values[usable[r].value];
    backward.roots.push_back(root);
    backward.grads.push_back(usable[r].seeded ? MakeSeed(program, static_cast<int>(pass), static_cast<int>(r), root)
                                              : Tensor());
    outcome.roots.push_back(root.detach());
  }
  for (const int leaf : program.passes[pass].inputs) backward.inputs.push_back(run.leaves[leaf]);
  backward.chosen_inputs = !backward.inputs.empty();
  backward.retain_graph = pass + 1 < program.passes.size();
  Worker& worker = run.group.worker(program.functions[0].worker);
  auto future = worker.StartBackward(run.context, std::move(backward), 0);
  Check(future.ok() ? OkStatus() : future.status());
  const Future::Outcome ended = Await(worker.clock(), **future, StrCat("pass ", pass));
  Check(ended.ok() ? OkStatus() : ended.status());
}

// On a thread of the leaf's worker, within a pass.
void Reenter(Run& run, int leaf) {
  Worker& worker = run.group.worker(run.program.leaves[leaf].worker);
  auto context = worker.FindContext(run.context->id());
  Check(context.ok() ? OkStatus() : context.status());
  BackwardRequest backward;
  {
    c10::AutoGradMode recording(true);
    backward.roots = {run.leaves[leaf].mul(run.leaves[leaf]).sum()};
  }
  backward.grads.resize(1);
  auto future = worker.StartBackward(*std::move(context), std::move(backward), 0);
  Check(future.ok() ? OkStatus() : future.status());
  Executor::BlockingScope scope;
  Check(scope.status());
  (*future)->Wait(kNever, scope.held_clock());
  Check((*future)->outcome().ok() ? OkStatus() : (*future)->outcome().status());
}

Tensor GradientOf(Run& run, size_t leaf) {
  auto context = run.group.worker(run.program.leaves[leaf].worker).FindContext(run.context->id());
  return context.ok() ? (*context)->Gradient(run.leaves[leaf]) : Tensor();
}

bool NothingIsLeft() {
  return LiveCount(LiveKind::kSendFunctions) == 0 && LiveCount(LiveKind::kRecvFunctions) == 0 &&
         LiveCount(LiveKind::kPasses) == 0 && LiveCount(LiveKind::kAutogradContexts) == 0;
}

// Ends the run also when something in it failed.
class Ending {
 public:
  Ending(Worker& worker, const Run& run) : worker_(worker), run_(run) {}
  ~Ending() {
    current_run.Set(nullptr);
    (void)worker_.ReleaseContext(run_.context->id());
  }

 private:
  Worker& worker_;
  const Run& run_;
};

}  // namespace

void AddHandlers(Group& group) {
  for (int i = 0; i < group.size(); ++i) {
    Worker* const worker = &group.worker(i);
    Threads* const threads = &group.threads();
    auto run = [i, worker, threads](std::shared_ptr<Request> request) {
      worker->clock().Hold(+1);
      threads->Run([i, worker, request = std::move(request)]() mutable {
        Answer(i, request);
        request = nullptr;
        worker->clock().Hold(-1);
      });
    };
    Check(worker->AddHandler("run", {run, /*on_pool=*/i % 2 == 0}));
    Check(worker->AddHandler("run_direct", {[i](std::shared_ptr<Request> request) { Answer(i, request); }, true}));
    Check(worker->AddHandler("metric", {[](std::shared_ptr<Request> request) { AnswerMetric(request); }, true}));
  }
}

namespace {

Outcome RunInContext(const Program& program, Group& group) {
  Outcome outcome;
  {
    auto run = std::make_shared<Run>(Run{program, group, {}, outcome.observations, nullptr});
    run->observations.OnReenter([weak = std::weak_ptr<Run>(run)](int leaf) {
      if (auto alive = weak.lock()) Reenter(*alive, leaf);
    });
    for (size_t i = 0; i < program.leaves.size(); ++i) {
      run->leaves.push_back(MakeLeaf(program, static_cast<int>(i)));
      if (program.leaves[i].hook != 0) {
        run->observations.AddHook(run->leaves[i], LeafHook(static_cast<int>(i)), 0, program.leaves[i].hook);
      }
    }
    Worker& worker = group.worker(program.functions[0].worker);
    Holding holding(worker.clock());
    auto context = worker.NewContext();
    Check(context.ok() ? OkStatus() : context.status());
    run->context = *std::move(context);
    current_run.Set(run);
    const Ending ending(worker, *run);
    OnWorker environment(*run, program.functions[0].worker, nullptr);
    const Frame frame = RunFrame(run->program, 0, {}, environment, run->observations);
    for (size_t p = 0; p < program.passes.size(); ++p) RunPass(*run, p, frame.values, outcome);
    for (size_t i = 0; i < program.leaves.size(); ++i) outcome.gradients.push_back(GradientOf(*run, i));
  }
  outcome.observations.Settle();
  return outcome;
}

}  // namespace

Outcome RunCut(const Program& program, Group& group) {
  Outcome outcome;
  try {
    outcome = RunInContext(program, group);
  } catch (const Failed&) {
    AwaitCondition(NothingIsLeft, "the clean-up after a failure");
    throw;
  }
  AwaitCondition(NothingIsLeft, "the clean-up of the context");
  return outcome;
}

}  // namespace gradferry::property
