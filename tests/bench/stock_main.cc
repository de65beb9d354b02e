// PyTorch's own RPC as a subject (subject.h): TensorPipeAgent from C++, without Python, as an operator call of a
// TorchScript program makes it.
//
//   stock_main driver|peer FOLDER TRANSPORTS CHANNELS      names joined by commas; "default" for its own choice
//
// Debian's package has the headers of torch/csrc/distributed/rpc but none of distributed autograd. What is used of it
// is declared here, as the installed library exports it (libtorch 1.13).
#ifndef USE_TENSORPIPE
#define USE_TENSORPIPE
#endif
#include <ATen/core/ivalue.h>
#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>
#include <torch/csrc/distributed/rpc/request_callback_no_python.h>
#include <torch/csrc/distributed/rpc/script_call.h>
#include <torch/csrc/distributed/rpc/script_resp.h>
#include <torch/csrc/distributed/rpc/tensorpipe_agent.h>
#include <torch/csrc/distributed/rpc/utils.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <condition_variable>
#include <mutex>
#include <sstream>
#include <stdexcept>
#include <string>
#include <torch/csrc/distributed/c10d/FileStore.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>

#include "tests/bench/subject.h"

namespace torch::distributed::autograd {

// Only ever referred to.
class TORCH_API DistAutogradContext {
 public:
  int64_t contextId() const;
};

class TORCH_API DistAutogradContainer {
 public:
  static DistAutogradContainer& init(int64_t worker_id);
  static DistAutogradContainer& getInstance();
  const std::shared_ptr<DistAutogradContext> newContext();
  void releaseContext(int64_t context_id);
  size_t numAutogradContexts() const;
};

class TORCH_API DistEngine {
 public:
  static DistEngine& getInstance();
  void execute(int64_t context_id, const std::vector<at::Tensor>& roots, bool retain_graph);
};

TORCH_API c10::intrusive_ptr<c10::ivalue::Future> sendMessageWithAutograd(rpc::RpcAgent& agent,
                                                                          const rpc::WorkerInfo& to,
                                                                          c10::intrusive_ptr<rpc::Message> message,
                                                                          bool force_grad_recording, float timeout,
                                                                          bool force_disable_profiling);

}  // namespace torch::distributed::autograd

namespace gradferry::bench {
namespace {

namespace rpc = torch::distributed::rpc;
namespace autograd = torch::distributed::autograd;
using torch::jit::Operator;

// The one type that agents ask for by its name: the map of devices of a call in an autograd context.
c10::StrongTypePtr FindType(const c10::QualifiedName& name) {
  if (name.qualifiedName() != "Dict[str, str]") throw std::runtime_error("no type " + name.qualifiedName());
  return c10::StrongTypePtr(nullptr, c10::DictType::create(c10::StringType::get(), c10::StringType::get()));
}

c10::optional<std::vector<std::string>> Names(const std::string& joined) {
  if (joined == "default") return c10::nullopt;
  std::vector<std::string> names;
  std::istringstream stream(joined);
  for (std::string name; std::getline(stream, name, ',');) names.push_back(name);
  return names;
}

class Stock {
 public:
  Stock(bool driver, const std::string& folder, const std::string& transports, const std::string& channels) {
    const int id = driver ? 0 : 1;
    autograd::DistAutogradContainer::init(id);
    auto store =
        c10::make_intrusive<c10d::PrefixStore>("rpc", c10::make_intrusive<c10d::FileStore>(folder + "/store", 2));
    rpc::TensorPipeRpcBackendOptions options(rpc::kDefaultNumWorkerThreads, Names(transports), Names(channels),
                                             /*rpc_timeout=*/60, /*init_method=*/"");
    agent_ = std::make_shared<rpc::TensorPipeAgent>(
        store, driver ? "driver" : "peer", static_cast<rpc::worker_id_t>(id), 2, options,
        std::unordered_map<std::string, rpc::DeviceMap>(), std::vector<c10::Device>(),
        std::make_unique<rpc::RequestCallbackNoPython>());
    rpc::RpcAgent::setCurrentRpcAgent(agent_);
    agent_->setTypeResolver(std::make_shared<rpc::TypeResolver>(FindType));
    agent_->start();
  }

  c10::intrusive_ptr<c10::ivalue::Future> Start(const std::shared_ptr<Operator>& op, std::vector<at::IValue> stack) {
    auto message = rpc::ScriptCall(op, std::move(stack)).toMessage();
    return autograd::sendMessageWithAutograd(*agent_, agent_->getWorkerInfo("peer"), std::move(message), false,
                                             rpc::kUnsetRpcTimeout, true);
  }

  static at::IValue Result(c10::ivalue::Future& future) {
    future.waitAndThrow();
    const auto message = future.value().toCustomClass<rpc::Message>();
    auto type = message->type();
    // A reply of a call in a context is unwrapped here, too.
    const auto response = rpc::deserializeResponse(*message, type);
    return static_cast<rpc::ScriptResp&>(*response).value();
  }

  at::IValue Call(const std::shared_ptr<Operator>& op, std::vector<at::IValue> stack) {
    return Result(*Start(op, std::move(stack)));
  }

 private:
  std::shared_ptr<rpc::TensorPipeAgent> agent_;
};

std::shared_ptr<Operator> FindOperator(const std::string& schema) {
  const std::string name = schema.substr(0, schema.find_first_of(".("));
  for (const auto& op : torch::jit::getAllOperatorsFor(c10::Symbol::fromQualString(name))) {
    if (c10::toString(op->schema()) == schema) return op;
  }
  throw std::runtime_error("libtorch has no operator " + schema);
}

class Context {
 public:
  Context() : id_(autograd::DistAutogradContainer::getInstance().newContext()->contextId()) {}
  ~Context() { autograd::DistAutogradContainer::getInstance().releaseContext(id_); }
  void Backward(const at::Tensor& root) { autograd::DistEngine::getInstance().execute(id_, {root}, false); }

 private:
  const int64_t id_;
};

class Driver {
 public:
  explicit Driver(Stock& stock) : stock_(stock) {}

  Measurements All() {
    Measurements all;
    all["add"] = [this](int64_t count) { return Time(count, [this] { Add(plain_); }); };
    all["add_context"] = [this](int64_t count) {
      const Context context;
      return Time(count, [this] { Add(leaf_); });
    };
    all["step"] = [this](int64_t count) {
      return Time(count, [this] {
        Context context;
        context.Backward(Add(leaf_).sum());
      });
    };
    all["chain"] = [this](int64_t count) { return Chain(count); };
    all["in_flight"] = [this](int64_t count) { return InFlight(count); };
    all["send_64mib"] = [this](int64_t count) { return Send(64 * kMiB, count); };
    all["send_256mib"] = [this](int64_t count) { return Send(256 * kMiB, count); };
    all["send_1gib"] = [this](int64_t count) { return Send(kGiB, count); };
    all["many_tensors"] = [this](int64_t count) { return ManyTensors(count); };
    all["busy"] = [this](int64_t count) { return Busy(count); };
    all["hold_1gib"] = [this](int64_t) { return Hold(kGiB); };
    all["free"] = [this](int64_t) { return Hold(0); };
    return all;
  }

 private:
  at::Tensor Add(const at::Tensor& tensor) { return stock_.Call(add_, {tensor, plain_, 1}).toTensor(); }

  Samples Chain(int64_t count) {
    Samples samples;
    for (int64_t i = 0; i < count && !OutOfTime(); ++i) {
      Context context;
      at::Tensor end = leaf_;
      for (int64_t j = 0; j < kChain; ++j) end = Add(end);
      const at::Tensor root = end.sum();
      const int64_t before = Now();
      context.Backward(root);
      samples.push_back(Now() - before);
    }
    return samples;
  }

  // A sample: the mean time for each call of a burst with kInFlight under way.
  Samples InFlight(int64_t count) {
    return PerCall(Time(count, [this] {
      std::mutex mutex;
      std::condition_variable some;
      int64_t open = 0;
      for (int64_t i = 0; i < kBurst; ++i) {
        {
          std::unique_lock lock(mutex);
          some.wait(lock, [&] { return open < kInFlight; });
          ++open;
        }
        stock_.Start(add_, {plain_, plain_, 1})->addCallback([&](c10::ivalue::Future& future) {
          (void)Stock::Result(future);
          const std::lock_guard lock(mutex);
          --open;
          some.notify_one();
        });
      }
      std::unique_lock lock(mutex);
      some.wait(lock, [&] { return open == 0; });
    }));
  }

  static Samples PerCall(Samples bursts) {
    for (int64_t& burst : bursts) burst /= kBurst;
    return bursts;
  }

  // Kept until another size is asked for.
  const at::Tensor& Large(int64_t bytes) {
    if (large_.numel() * 4 != bytes) {
      large_ = at::Tensor();
      large_ = at::ones({bytes / 4});
    }
    return large_;
  }

  Samples Hold(int64_t bytes) {
    (void)Large(bytes);
    return {};
  }

  Samples Send(int64_t bytes, int64_t count) {
    const at::Tensor& tensor = Large(bytes);
    return Time(count, [&] { (void)stock_.Call(size_, {tensor, 0}); });
  }

  Samples ManyTensors(int64_t count) {
    c10::List<at::Tensor> tensors;
    for (int64_t i = 0; i < kManyTensors; ++i) tensors.push_back(at::ones({kManyTensorsFloats}));
    return Time(count, [&] { (void)stock_.Call(length_, {tensors}); });
  }

  // Calls while a tensor of 1 GiB is always on its way to the same peer.
  Samples Busy(int64_t count) {
    const at::Tensor& tensor = Large(kGiB);
    auto transfer = stock_.Start(size_, {tensor, 0});
    const Samples samples = Time(count, [&] {
      if (transfer->completed()) transfer = stock_.Start(size_, {tensor, 0});
      Add(plain_);
    });
    transfer->waitAndThrow();
    return samples;
  }

  Stock& stock_;
  const std::shared_ptr<Operator> add_ =
      FindOperator("aten::add.Tensor(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor");
  const std::shared_ptr<Operator> size_ = FindOperator("aten::size.int(Tensor self, int dim) -> int");
  const std::shared_ptr<Operator> length_ = FindOperator("aten::len.t(t[] a) -> int");
  const at::Tensor plain_ = at::ones({kFloats});
  const at::Tensor leaf_ = at::ones({kFloats}).set_requires_grad(true);
  at::Tensor large_ = at::ones({1});
};

void Run(const std::vector<std::string>& arguments) {
  const bool driver = arguments.at(0) == "driver";
  Stock stock(driver, arguments.at(1), arguments.at(2), arguments.at(3));
  if (!driver) Serve();
  Drive(Driver(stock).All());
}

}  // namespace
}  // namespace gradferry::bench

int main(int count, char** arguments) {
  return gradferry::bench::RunEnd([&] { gradferry::bench::Run({arguments + 1, arguments + count}); });
}
