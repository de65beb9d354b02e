#!/usr/bin/env python3
"""What PyTorch's own distributed autograd does in the cases of docs/compared-with-pytorch.md.

Needs PyTorch for Python (Debian: python3-torch) and nothing of Gradferry. Each case runs in two fresh processes, since many
of them hang or leave something behind; prints one row a case. No test depends on it.

    /usr/bin/python3 tools/stock_pytorch/behaviour.py [ID...]
"""
import concurrent.futures
import os
import subprocess
import sys
import tempfile
import threading
import time

TIMEOUT = 4  # seconds: rpc_timeout
PATIENCE = 12  # seconds after which a case counts as hanging

CASES = {}


def case(name, wanted):
    def add(function):
        CASES[name] = (function, wanted)
        return function
    return add


# Functions that worker1 runs. They are found by name, so they stand at the top level of this file.
def double(t):
    return t * 2


def both(t):
    return t * WEIGHTS[0], t * WEIGHTS[1]


def has_gradient(context_id, index):
    gradients = autograd.get_gradients(context_id)
    gradient = gradients.get(WEIGHTS[index])
    return "none" if gradient is None else "zeros" if not gradient.any() else "right"


def fail(t):
    raise ValueError("meant to fail")


def count(t):
    return t.numel()


class SlowBackward:
    """Made when torch is there: a node whose backward takes longer than the timeout of calls."""


def slow(t):
    return SlowBackward.function.apply(t)


def passes_left():
    return autograd._get_debug_info()["num_current_backward_passes"]


def contexts_left():
    return autograd._get_debug_info()["num_autograd_contexts"]


def nest(depth, here, there):
    if depth:
        rpc.rpc_sync(there, nest, args=(depth - 1, there, here))
    return depth


def gradient_of(context_id, t, wanted):
    gradient = autograd.get_gradients(context_id).get(t)
    if gradient is None:
        return "no gradient"
    return "exact" if torch.equal(gradient, wanted) else "wrong gradient"


# ---- The cases, on worker0 -----------------------------------------------------------------------------------------


@case("E1", "exact")
def unused_beside_used(t):
    with autograd.context() as c:
        rpc.rpc_sync("worker1", double, args=(t,))
        autograd.backward(c, [rpc.rpc_sync("worker1", double, args=(t,)).sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E2", "exact")
def unused_result(t):
    with autograd.context() as c:
        rpc.rpc_sync("worker1", double, args=(t,))
        autograd.backward(c, [(t * 2).sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E3", "exact")
def no_grad_call(t):
    with autograd.context() as c:
        y = rpc.rpc_sync("worker1", double, args=(t,))
        with torch.no_grad():
            rpc.rpc_sync("worker1", double, args=(t,))
        autograd.backward(c, [y.sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E4", "exact")
def failed_call(t):
    with autograd.context() as c:
        try:
            rpc.rpc_sync("worker1", fail, args=(t,))
        except ValueError:
            pass
        autograd.backward(c, [rpc.rpc_sync("worker1", double, args=(t,)).sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E5", "exact")
def second_forward(t):
    with autograd.context() as c:
        for _ in range(2):
            autograd.backward(c, [rpc.rpc_sync("worker1", double, args=(t,)).sum()])
        return gradient_of(c, t, torch.full_like(t, 4))


@case("E6", "no gradient for the unused weight")
def unused_output(t):
    with autograd.context() as c:
        used, _ = rpc.rpc_sync("worker1", both, args=(t,))
        autograd.backward(c, [used.sum()])
        return "unused weight: " + rpc.rpc_sync("worker1", has_gradient, args=(c, 1))


@case("E7", "exact")
def call_in_completion(t):
    with autograd.context() as c:
        future = rpc.rpc_async("worker1", double, args=(t,))
        y = future.then(lambda f: rpc.rpc_sync("worker1", double, args=(f.value(),))).wait()
        autograd.backward(c, [(y + t).sum()])
        return gradient_of(c, t, torch.full_like(t, 5))


@case("E8", "exact")
def call_of_other_thread(t):
    with autograd.context() as c:
        result = []
        thread = threading.Thread(target=lambda: result.append(rpc.rpc_sync("worker1", double, args=(t,))))
        thread.start()
        thread.join()
        autograd.backward(c, [result[0].sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E11", "exact")
def slow_pass(t):
    with autograd.context() as c:
        autograd.backward(c, [rpc.rpc_sync("worker1", slow, args=(t,)).sum()])
        return gradient_of(c, t, torch.ones_like(t))


@case("E12", "both exact")
def two_passes(t):
    with autograd.context() as c:
        roots = [rpc.rpc_sync("worker1", double, args=(t,)).sum() for _ in range(2)]
        errors = []

        def run(root):
            try:
                autograd.backward(c, [root], retain_graph=True)
            except BaseException as error:  # shown in the table
                errors.append(error)
        threads = [threading.Thread(target=run, args=(root,)) for root in roots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        return gradient_of(c, t, torch.full_like(t, 4))


@case("E13", "exact")
def no_tensor(t):
    with autograd.context() as c:
        y = rpc.rpc_sync("worker1", double, args=(t,))
        rpc.rpc_sync("worker1", count, args=(t,))
        autograd.backward(c, [y.sum()])
        return gradient_of(c, t, torch.full_like(t, 2))


@case("E14", "exact, with seeds")
def shaped_root(t):
    with autograd.context() as c:
        autograd.backward(c, [rpc.rpc_sync("worker1", double, args=(t,))])
        return "accepted"


@case("B2", "0 passes left on worker1")
def leaked_pass(t):
    try:
        unused_beside_used(t)
    except RuntimeError:
        pass
    time.sleep(1)
    left = rpc.rpc_sync("worker1", passes_left)
    return f"{left} passes left on worker1, {rpc.rpc_sync('worker1', contexts_left)} contexts"


@case("B8", "depth 256 over one thread")
def nested_calls(t):
    nest(5, "worker0", "worker1")
    return "depth 5 over 2 threads"


@case("B11", "left alone")
def stale_gradient(t):
    from torch.distributed.optim import DistributedOptimizer
    w = torch.ones(3, requires_grad=True)
    optimizer = DistributedOptimizer(Plain.optimizer, [rpc.RRef(w)], lr=0.1)
    with autograd.context() as c:
        autograd.backward(c, [w.sum()])
        optimizer.step(c)
    before = w.detach().clone()
    with autograd.context() as c:
        autograd.backward(c, [(t * 2).sum()])
        optimizer.step(c)
    return "left alone" if torch.equal(w, before) else "stepped again with its last gradient"


class Plain:
    """Made when torch is there: an optimizer class that PyTorch has no functional form of."""


# ---- Running them --------------------------------------------------------------------------------------------------


def child(name, rank, store):
    global torch, rpc, autograd, WEIGHTS
    import warnings
    warnings.filterwarnings("ignore")
    import torch
    import torch.distributed.autograd as autograd
    import torch.distributed.rpc as rpc

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(context, t):
            return t.clone()

        @staticmethod
        def backward(context, gradient):
            time.sleep(TIMEOUT + 2)
            return gradient

    class Descent(torch.optim.Optimizer):
        def __init__(self, parameters, lr):
            super().__init__(parameters, {"lr": lr})

        def step(self, closure=None):
            with torch.no_grad():
                for group in self.param_groups:
                    for p in group["params"]:
                        if p.grad is not None:
                            p.add_(p.grad, alpha=-group["lr"])
    # Pickle finds it by name.
    Descent.__qualname__ = "Descent"
    globals()["Descent"] = Descent
    SlowBackward.function = Slow
    Plain.optimizer = Descent
    torch.manual_seed(0)
    WEIGHTS = [torch.ones(3, 3, requires_grad=True), torch.ones(3, 3, requires_grad=True)]
    options = rpc.TensorPipeRpcBackendOptions(rpc_timeout=TIMEOUT, init_method="file://" + store,
                                              num_worker_threads=2 if name == "B8" else 16)
    rpc.init_rpc(f"worker{rank}", rank=rank, world_size=2, rpc_backend_options=options)
    if rank == 0:
        t = torch.ones(3, 3, requires_grad=True)
        began = time.monotonic()
        try:
            outcome = CASES[name][0](t)
        except BaseException as error:  # shown in the table
            outcome = "error: " + " ".join(str(error).split())[:110]
        print(f"{outcome}\t{time.monotonic() - began:.1f} s", flush=True)
        os._exit(0)
    time.sleep(10 * PATIENCE)


def run(name):
    with tempfile.TemporaryDirectory() as folder:
        store = os.path.join(folder, "store")
        start = lambda rank: subprocess.Popen([sys.executable, os.path.abspath(__file__), "--child", name, str(rank), store],
                                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        workers = [start(0), start(1)]
        try:
            # Starting takes a while on a busy machine.
            output, _ = workers[0].communicate(timeout=PATIENCE + 20)
        except subprocess.TimeoutExpired:
            output = f"still hangs\t> {PATIENCE} s"
        for worker in workers:
            worker.kill()
            worker.wait()
    outcome, _, lasted = output.strip().partition("\t")
    return outcome or "crashed", lasted


def main(names):
    unknown = [name for name in names if name not in CASES]
    if unknown:
        sys.exit(f"there is no case {unknown[0]}; there are {' '.join(CASES)}")
    names = names or list(CASES)
    print("| | PyTorch | after | wanted |\n|---|---|---|---|")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for name, (outcome, lasted) in zip(names, pool.map(run, names)):
            print(f"| {name} | {outcome} | {lasted} | {CASES[name][1]} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        # Pickle finds the functions of this file by its module's name, the same in both processes.
        child(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        main(sys.argv[1:])
