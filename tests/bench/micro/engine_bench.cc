// A pass over a graph of this worker alone.
#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>
#include <benchmark/benchmark.h>
#include <torch/csrc/autograd/variable.h>

#include "impl/engine/local_graph.h"

namespace gradferry {
namespace {

void LocalPass(benchmark::State& state) {
  const at::Tensor leaf = at::ones({64}).set_requires_grad(true);
  at::Tensor end = leaf;
  for (int64_t i = 0; i < state.range(0); ++i) end = at::add(end, leaf);
  const edge_list roots = {torch::autograd::impl::gradient_edge(end)};
  const at::Tensor seed = at::ones({64});
  for (auto _ : state) {
    LocalGraph::Sinks sinks;
    sinks.leaf = [](const at::Tensor&, at::Tensor) {};
    sinks.recv = [](RecvRpcBackward&, variable_list) { return OkStatus(); };
    LocalGraph graph(/*retain_graph=*/true, /*chosen_inputs=*/false, std::move(sinks));
    benchmark::DoNotOptimize(graph.Start(roots));
    Status status = graph.Deliver(roots, {seed});
    while (status.ok() && graph.HasReady()) status = graph.RunOne();
    if (!status.ok()) return state.SkipWithError(status.ToString().c_str());
  }
}
BENCHMARK(LocalPass)->Arg(1)->Arg(50)->Arg(1000);

}  // namespace
}  // namespace gradferry

BENCHMARK_MAIN();
