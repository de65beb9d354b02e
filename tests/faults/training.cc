// See training.h.
#include "tests/faults/training.h"

#include <ATen/ops/add.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <chrono>
#include <functional>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <thread>
#include <utility>

#include "impl/base/live.h"

namespace gradferry::faults {
namespace {

using at::Tensor;
using property::Holding;

constexpr char kNoAnswer[] = "never";
// How long a frame is under way at least.
constexpr int64_t kFrameTime = int64_t{100} * 1000;

property::GroupOptions Options(const std::map<int, std::map<std::string, std::string>>& settings, uint64_t seed) {
  property::GroupOptions options;
  options.workers = 3;
  options.threads = {1, 1, 1};
  options.seed = seed;
  options.virtual_time = true;
  options.latency_max_us = 1000;
  options.settings = {{"transport.checksum", "all"},
                      {"transport.sim.latency_min_us", std::to_string(kFrameTime / 1000)},
                      {"transport.sim.stall_ms", "0"},
                      {"call.timeout", std::to_string(kCallTimeout) + "ns"},
                      {"backward.timeout", std::to_string(kPassTimeout) + "ns"}};
  options.of_one = settings;
  return options;
}

// Different values in each, all exact in every order of adding.
Tensor Parameter(int64_t first) { return at::arange(first, first + 3, at::kDouble).set_requires_grad(true); }

Status Failed(const std::exception& error) { return Status(Code::kUnknown, error.what()); }

}  // namespace

Training::Training(const std::map<int, std::map<std::string, std::string>>& settings, uint64_t seed)
    : x_(Parameter(1)), p1_(Parameter(4)), p2_(Parameter(7)), group_(Options(settings, seed)) {
  for (int i = 0; i < 3; ++i) AddHandlers(i);
}

Training::~Training() = default;

void Training::AddHandlers(int index) {
  Worker* const worker = &group_.worker(index);
  // On a thread of its own, because it waits for the calls that it makes.
  auto stage = [this, index, worker](const std::shared_ptr<Request>& request) -> Result<ValueList> {
    c10::AutoGradMode mode(request->facts().record);
    const Tensor& input = *request->arguments().at(0).get<Tensor>();
    if (index == 2) {
      const Tensor output = at::add(at::mul(input, p2_), p2_);
      if (hook_fails_) output.register_hook([](Tensor) -> Tensor { throw std::runtime_error("this hook fails"); });
      return ValueList{output};
    }
    const Tensor y = at::mul(input, p1_);
    CallSpec spec;
    spec.to_id = 2;
    spec.name = "stage";
    spec.arguments = {y};
    spec.parent = request;
    GF_ASSIGN_OR_RETURN(const auto future, worker->StartCall(std::move(spec)));
    const auto results = property::Await(worker->clock(), *future, "the call of w2");
    if (!results.ok()) return results.status();
    return ValueList{results->at(0), at::mul(y, 2)};
  };
  auto pass = [this, worker](const std::shared_ptr<Request>& request) -> Result<ValueList> {
    BackwardRequest backward;
    backward.roots = {at::sum(p1_)};
    backward.grads = {Tensor()};
    const int64_t timeout = request->facts().deadline - worker->clock().Now() - kCallTimeout / 5;
    GF_ASSIGN_OR_RETURN(const auto future,
                        worker->StartBackward(request->facts().context, std::move(backward), timeout));
    return property::Await(worker->clock(), *future, "the pass of w1");
  };
  using Work = std::function<Result<ValueList>(const std::shared_ptr<Request>&)>;
  auto on_thread = [this, worker](Work work) {
    return [this, worker, work = std::move(work)](std::shared_ptr<Request> request) {
      worker->clock().Hold(+1);
      group_.threads().Run([work, worker, request = std::move(request)]() mutable {
        try {
          auto results = work(request);
          (void)(results.ok() ? request->Reply(*std::move(results)) : request->Fail(results.status()));
        } catch (const std::exception& error) {
          (void)request->Fail(Failed(error));
        }
        request = nullptr;
        worker->clock().Hold(-1);
      });
    };
  };
  auto metric = [](const std::shared_ptr<Request>& request) {
    (void)request->Reply({Value(*request->arguments().at(0).get<int64_t>() * 2)});
  };
  // Keeps the request until nobody waits for it.
  auto never = [](const std::shared_ptr<Request>& request) {
    request->OnCancel([request] { (void)request->Fail(Status(Code::kCancelled, "cancelled")); });
  };
  for (const Status& status : {worker->AddHandler("stage", {on_thread(stage), /*on_pool=*/false}),
                               worker->AddHandler("pass", {on_thread(pass), /*on_pool=*/false}),
                               worker->AddHandler("metric", {metric, /*on_pool=*/true}),
                               worker->AddHandler(kNoAnswer, {never, /*on_pool=*/true})}) {
    if (!status.ok()) throw std::runtime_error(status.ToString());
  }
}

namespace {

// Waits for a call or a pass with this time limit.
Result<ValueList> AwaitInTime(Worker& worker, Result<std::shared_ptr<Future>> started, int64_t timeout,
                              const std::string& what, Outcome* outcome) {
  const int64_t began = worker.clock().Now();
  Result<ValueList> ended = started.ok() ? property::Await(worker.clock(), **started, what) : started.status();
  outcome->late = std::max(outcome->late, worker.clock().Now() - began - timeout);
  if (!ended.ok() && outcome->status.ok()) {
    outcome->status = ended.status();
    outcome->what = what;
  }
  return ended;
}

}  // namespace

void Training::Forward(const StepOptions& options, Outcome* outcome) {
  Worker& worker = group_.worker(0);
  CallSpec spec;
  spec.to_id = 1;
  spec.name = "metric";
  spec.arguments = {Value(int64_t{3})};
  const auto metric = AwaitInTime(worker, worker.StartCall(spec), kCallTimeout, "metric", outcome);
  if (!metric.ok()) return;
  if (*metric->at(0).get<int64_t>() != 6) throw std::logic_error("the metric is wrong");

  spec = CallSpec();
  spec.to_id = 1;
  spec.name = "stage";
  spec.arguments = {x_};
  spec.context = context_;
  spec.profile = options.calls_are_profiled;
  const auto stage = AwaitInTime(worker, worker.StartCall(spec), kCallTimeout, "stage", outcome);
  if (!stage.ok()) return;
  spec.to_id = 2;
  spec.target = CallTarget::kOperator;
  spec.name = "aten::mul";
  spec.overload = "Tensor";
  spec.arguments = {stage->at(0), x_};
  const auto product = AwaitInTime(worker, worker.StartCall(spec), kCallTimeout, "aten::mul", outcome);
  if (!product.ok()) return;
  loss_ = at::sum(*product->at(0).get<Tensor>());

  if (options.call_is_cancelled) {
    spec = CallSpec();
    spec.to_id = 1;
    spec.name = kNoAnswer;
    spec.timeout = kCallTimeout / 5;
    Outcome cancelled;
    (void)AwaitInTime(worker, worker.StartCall(spec), spec.timeout, kNoAnswer, &cancelled);
    outcome->late = std::max(outcome->late, cancelled.late);
    if (cancelled.status.code() != Code::kDeadlineExceeded) {
      outcome->status = cancelled.status;
      outcome->what = kNoAnswer;
      return;
    }
  }
  if (options.transfer_is_given_up) {
    // 200 chunks: of them no more than the window reaches w1 before the time is over.
    spec = CallSpec();
    spec.to_id = 1;
    spec.name = kNoAnswer;
    spec.arguments = {at::zeros({200}, at::kDouble)};
    spec.timeout = kFrameTime / 2;
    Outcome given_up;
    (void)AwaitInTime(worker, worker.StartCall(spec), spec.timeout, "large call", &given_up);
    outcome->late = std::max(outcome->late, given_up.late);
    if (given_up.status.code() != Code::kDeadlineExceeded) {
      outcome->status = given_up.status;
      outcome->what = "large call";
    }
  }
}

void Training::Backward(const StepOptions& options, Outcome* outcome) {
  Worker& worker = group_.worker(0);
  if (options.pass_of_w1) {
    CallSpec spec;
    spec.to_id = 1;
    spec.name = "pass";
    spec.context = context_;
    if (!AwaitInTime(worker, worker.StartCall(spec), kCallTimeout, "pass of w1", outcome).ok()) return;
  }
  BackwardRequest request;
  request.roots = {loss_};
  request.grads = {Tensor()};
  request.chosen_inputs = options.chosen_inputs;
  if (options.chosen_inputs) request.inputs = {x_};
  const auto ended =
      AwaitInTime(worker, worker.StartBackward(context_, std::move(request), 0), kPassTimeout, "backward", outcome);
  if (!ended.ok()) return;
  const std::vector<const Tensor*> parameters = {&x_, &p1_, &p2_};
  for (int i = 0; i < 3; ++i) {
    const auto context = group_.worker(i).FindContext(context_->id());
    const Tensor gradient = context.ok() ? (*context)->Gradient(*parameters[i]) : Tensor();
    outcome->gradients.push_back(gradient.defined() ? gradient.clone() : gradient);
  }
}

Outcome Training::Step(const StepOptions& options) {
  Outcome outcome;
  outcome.late = INT64_MIN;
  Worker& worker = group_.worker(0);
  Holding holding(worker.clock());
  hook_fails_ = options.hook_fails;
  if (!context_) {
    auto context = worker.NewContext();
    if (!context.ok()) throw std::runtime_error(context.status().ToString());
    context_ = *std::move(context);
  }
  Forward(options, &outcome);
  if (outcome.status.ok()) Backward(options, &outcome);
  loss_ = Tensor();
  if (!options.context_is_kept) Release();
  return outcome;
}

void Training::ReleaseIfThere() {
  (void)group_.worker(0).ReleaseContext(context_->id());
  context_ = nullptr;
}

void Training::Release() {
  const Status released = group_.worker(0).ReleaseContext(context_->id());
  if (!released.ok()) throw std::runtime_error(released.ToString());
  context_ = nullptr;
}

std::string Training::LeftBehind() {
  const std::vector<std::pair<LiveKind, const char*>> kinds = {{LiveKind::kAutogradContexts, "contexts"},
                                                               {LiveKind::kSendFunctions, "send functions"},
                                                               {LiveKind::kRecvFunctions, "recv functions"},
                                                               {LiveKind::kPasses, "passes"},
                                                               {LiveKind::kCalls, "calls"}};
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  std::string left;
  do {
    left.clear();
    for (const auto& [kind, name] : kinds) {
      if (LiveCount(kind) != 0) left += StrCat(LiveCount(kind), " ", name, "; ");
    }
    for (int i = 0; i < 3; ++i) {
      const auto info = nlohmann::json::parse(group_.worker(i).InfoJson());
      if (info.at("requests") != 0) left += StrCat(info.at("requests").dump(), " requests of w", i, "; ");
    }
    std::this_thread::yield();
  } while (!left.empty() && std::chrono::steady_clock::now() < until);
  return left;
}

int64_t Training::Struck(int worker) {
  const auto info = nlohmann::json::parse(group_.worker(worker).InfoJson());
  return info.at("transport_counters").at("faults").get<int64_t>();
}

std::string Training::Close() {
  std::vector<std::shared_ptr<Future>> ends;
  for (int i = 0; i < 3; ++i) ends.push_back(group_.worker(i).Close(kCallTimeout));
  for (const auto& end : ends) {
    if (!end->Wait(int64_t{30} * 1000000000)) return "a worker did not close";
    if (!end->outcome().ok()) return end->outcome().status().ToString();
  }
  return "";
}

}  // namespace gradferry::faults
