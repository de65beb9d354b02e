// One of the workers of kill_training_test: trains a small model whose layers lie on all other workers, while those
// train theirs over it, until something fails; then says how it failed, when no call, no pass and no context is left
// here, and, told who is dead, whether the next step over the survivors has the gradients of one process.
//
//   trainer_main <way> <rank> <world size> <file for reports> [key=value]...
//
// A report is one line of JSON. Standard input brings "begin\n", "<rank of the dead>\n" and its end.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "tests/support/c_abi/group.h"
#include "tests/support/c_abi/handlers.h"
#include "tests/support/c_abi/ways.h"

namespace gf {
namespace {

int64_t Now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

std::string NameOf(int rank) { return "worker" + std::to_string(rank); }

Tensor Copy(const Tensor& tensor) { return TensorAt(CallOperator("aten::clone", ListOf(tensor), GF_GRAD_OFF), 0); }

Tensor Layer(const Tensor& x, const Tensor& weight, uint32_t grad) {
  const Tensor product = TensorAt(CallOperator("aten::matmul", ListOf(x, weight), grad), 0);
  return TensorAt(CallOperator("aten::tanh", ListOf(product), grad), 0);
}

class Trainer {
 public:
  Trainer(int rank, int size, const std::string& reports, const Config& config)
      : rank_(rank), size_(size), reports_(reports) {
    for (int trainer = 0; trainer < size; ++trainer) {
      weights_.push_back(WithGrad(Random({8, 8}, static_cast<uint32_t>(100 * rank + trainer))));
      const std::string spec = "sgd = { lr = 0.01 }";
      optimizers_.emplace_back();
      Call(gf_optimizer_new, spec.data(), spec.size(), ListOf(weights_.back()), optimizers_.back().out());
    }
    Call(gf_worker_create, config, worker_.out());
    server_ = std::make_unique<Server>(worker_, 16);
    AddHandlers();
    Call(gf_worker_start, worker_);
  }

  void Run() {
    // A worker knows the others when it has started, and not all have.
    Report({{"event", "ready"}});
    std::string word;
    std::cin >> word;
    Report({{"event", "failed"}, {"error", TrainUntilItFails()}});
    // Of its own steps and of those of all others, the dead one's included.
    const bool clean = Eventually([] {
      for (const uint32_t kind :
           {GF_LIVE_CALLS, GF_LIVE_PASSES, GF_LIVE_AUTOGRAD_CONTEXTS, GF_LIVE_SEND_FUNCTIONS, GF_LIVE_RECV_FUNCTIONS}) {
        if (gf_live_objects(kind) != 0) return false;
      }
      return true;
    });
    if (!clean) return Report({{"event", "left"}, {"live", LiveObjects()}});
    Report({{"event", "clean"}});
    int dead = -1;
    std::cin >> dead;
    std::vector<int> others;
    for (int i = 1; i < size_; ++i) {
      if ((rank_ + i) % size_ != dead) others.push_back((rank_ + i) % size_);
    }
    const bool exact = IsExact(others);
    for (int i = 0; i < 5; ++i) Step(others);
    Report({{"event", "went on"}, {"exact", exact}});
    std::cin >> word;
    Call(gf_worker_close, worker_, kPatience);
    server_.reset();
  }

 private:
  void Report(nlohmann::json report) {
    report["at"] = Now();
    std::ofstream(reports_, std::ios::app) << report.dump() + "\n";
  }

  void AddHandlers() {
    // (trainer, x, [worker, ...]): through the layer of that trainer here, then through those of these workers.
    server_->On("forward", [this](const Request& request) {
      const List arguments = Arguments(request);
      const int64_t trainer = IntAt(arguments, 0);
      const Tensor y =
          Layer(TensorAt(arguments, 1), weights_.at(static_cast<size_t>(trainer)), gf_request_grad(request));
      const List path = ListAt(arguments, 2);
      if (Size(path) == 0) return ListOf(y);
      const List rest = NewList();
      for (size_t i = 1; i < Size(path); ++i) Push(rest, StringAt(path, i));
      return CallWorker(worker_, StringAt(path, 0), "forward", ListOf(trainer, y, rest), CallOptions().Parent(request));
    });
    // (context, trainer)
    server_->On("step", [this](const Request& request) {
      const List arguments = Arguments(request);
      Call(gf_optimizer_step, optimizers_.at(static_cast<size_t>(IntAt(arguments, 1))),
           FindContext(worker_, IntAt(arguments, 0)));
      return NewList();
    });
    server_->On("weight and gradient", [this](const Request& request) {
      const List arguments = Arguments(request);
      const Tensor& weight = weights_.at(static_cast<size_t>(IntAt(arguments, 1)));
      return ListOf(Copy(weight), Copy(Gradient(FindContext(worker_, IntAt(arguments, 0)), weight)));
    });
  }

  Tensor Input() { return WithGrad(Random({4, 8}, static_cast<uint32_t>(1000 * rank_ + steps_))); }

  // The root of a pass over the layers of these workers, one calling the next.
  Tensor Forward(const Context& context, const Tensor& x, const std::vector<int>& others) {
    const List rest = NewList();
    for (size_t i = 1; i < others.size(); ++i) Push(rest, NameOf(others[i]));
    const Tensor y =
        TensorAt(CallWorker(worker_, NameOf(others[0]), "forward", ListOf(rank_, x, rest), In(context)), 0);
    return Sum(Mul(y, y));
  }

  void Step(const std::vector<int>& others) {
    const Context context = NewContext(worker_);
    Backward(context, {Forward(context, Input(), others)});
    for (int other : others) {
      CallWorker(worker_, NameOf(other), "step", ListOf(gf_context_id(context), rank_));
    }
    Release(context);
    ++steps_;
  }

  std::string TrainUntilItFails() {
    std::vector<int> others;
    for (int i = 1; i < size_; ++i) others.push_back((rank_ + i) % size_);
    for (;;) {
      const Error error = ErrorOf([&] { Step(others); });
      if (error.code != GF_OK) return std::string(gf_code_name(error.code)) + ": " + error.description;
      if (steps_ == 3) Report({{"event", "trains"}});
    }
  }

  // A step over these workers against the same one by operators of this process alone, bit for bit.
  bool IsExact(const std::vector<int>& others) {
    const Context context = NewContext(worker_), here = NewContext(worker_);
    const Tensor x = Input(), x_here = Input();
    Backward(context, {Forward(context, x, others)});
    Tensor y = x_here;
    std::vector<Tensor> weights, gradients;
    for (int other : others) {
      const List there =
          CallWorker(worker_, NameOf(other), "weight and gradient", ListOf(gf_context_id(context), rank_));
      weights.push_back(WithGrad(TensorAt(there, 0)));
      gradients.push_back(TensorAt(there, 1));
      y = Layer(y, weights.back(), GF_GRAD_RECORD);
    }
    Backward(here, {Sum(Mul(y, y))});
    bool exact = ReadFloats(Gradient(context, x)) == ReadFloats(Gradient(here, x_here));
    for (size_t i = 0; i < weights.size(); ++i) {
      exact = exact && ReadFloats(gradients[i]) == ReadFloats(Gradient(here, weights[i]));
    }
    return exact;
  }

  const int rank_, size_;
  const std::string reports_;
  int steps_ = 0;
  // By trainer; only what that trainer asks for uses or changes them.
  std::vector<Tensor> weights_;
  std::vector<Optimizer> optimizers_;
  Worker worker_;
  std::unique_ptr<Server> server_;
};

int Main(int argc, char** argv) {
  const auto before = LiveObjects();
  {
    const Config config = NewConfig();
    UseWay(config, argv[1], NameOf(std::atoi(argv[2])));
    Set(config, "group.rank", argv[2]);
    Set(config, "group.world_size", argv[3]);
    for (int i = 5; i < argc; ++i) {
      const std::string setting = argv[i];
      const size_t equals = setting.find('=');
      Set(config, setting.substr(0, equals), setting.substr(equals + 1));
    }
    Trainer(std::atoi(argv[2]), std::atoi(argv[3]), argv[4], config).Run();
  }
  const std::string left = LeftBehind(before);
  if (left.empty()) return 0;
  std::fprintf(stderr, "worker%s left behind: %s\n", argv[2], left.c_str());
  return 2;
}

}  // namespace
}  // namespace gf

int main(int argc, char** argv) {
  if (argc < 5) return 64;
  try {
    return gf::Main(argc, argv);
  } catch (const std::exception& exception) {
    std::fprintf(stderr, "worker%s: %s\n", argv[2], exception.what());
    return 1;
  }
}
