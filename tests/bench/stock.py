"""PyTorch's own RPC from Python, as a subject (subject.h).

    /usr/bin/python3 stock.py driver|peer FOLDER TRANSPORTS CHANNELS     names joined by commas; "default" for its choice
"""
import json
import os
import sys
import threading
import time

MIB = 1 << 20
IN_FLIGHT = 128
BURST = 8 * IN_FLIGHT
CHAIN = 50
out_of_time = 0


def answer(value):
    print(json.dumps(value), flush=True)


def timed(count, operation):
    samples = []
    before = time.monotonic_ns()
    for _ in range(count):
        operation()
        after = time.monotonic_ns()
        samples.append(after - before)
        before = after
        if after > out_of_time:
            break
    return samples


def size_of(tensors):
    return len(tensors)


class Driver:
    def __init__(self):
        self.plain = torch.ones(64)
        self.leaf = torch.ones(64, requires_grad=True)
        self.large = torch.ones(1)

    def call(self, tensor):
        return rpc.rpc_sync("peer", torch.add, args=(tensor, self.plain))

    def add(self, count):
        return timed(count, lambda: self.call(self.plain))

    def add_context(self, count):
        with autograd.context():
            return timed(count, lambda: self.call(self.leaf))

    def step(self, count):
        def once():
            with autograd.context() as context:
                autograd.backward(context, [self.call(self.leaf).sum()])
        return timed(count, once)

    def chain(self, count):
        samples = []
        while len(samples) < count and time.monotonic_ns() < out_of_time:
            with autograd.context() as context:
                end = self.leaf
                for _ in range(CHAIN):
                    end = self.call(end)
                root = end.sum()
                before = time.monotonic_ns()
                autograd.backward(context, [root])
                samples.append(time.monotonic_ns() - before)
        return samples

    def in_flight(self, count):
        def burst():
            places = threading.Semaphore(IN_FLIGHT)
            for _ in range(BURST):
                places.acquire()
                rpc.rpc_async("peer", torch.add, args=(self.plain, self.plain)).add_done_callback(
                    lambda _: places.release())
            for _ in range(IN_FLIGHT):
                places.acquire()
        return [burst // BURST for burst in timed(count, burst)]

    def send(self, count, size):
        if self.large.numel() * 4 != size:
            self.large = None
            self.large = torch.ones(size // 4)
        return timed(count, lambda: rpc.rpc_sync("peer", size_of, args=(self.large,)))

    def send_64mib(self, count):
        return self.send(count, 64 * MIB)

    def send_256mib(self, count):
        return self.send(count, 256 * MIB)

    def many_tensors(self, count):
        tensors = [torch.ones(256) for _ in range(10000)]
        return timed(count, lambda: rpc.rpc_sync("peer", size_of, args=(tensors,)))


MEASUREMENTS = ["add", "add_context", "step", "chain", "in_flight", "send_64mib", "send_256mib", "many_tensors"]


def drive():
    global out_of_time
    driver = Driver()
    answer({"ready": MEASUREMENTS})
    for line in sys.stdin:
        name, count, seconds = line.split()
        out_of_time = time.monotonic_ns() + int(float(seconds) * 1e9)
        try:
            answer({"ns": getattr(driver, name)(int(count))})
        except Exception as error:
            answer({"error": str(error)})


def names(joined):
    return None if joined == "default" else joined.split(",")


def main():
    role, folder, transports, channels = sys.argv[1:]
    options = rpc.TensorPipeRpcBackendOptions(init_method="file://" + folder + "/store",
                                              _transports=names(transports), _channels=names(channels))
    rpc.init_rpc(role, rank=0 if role == "driver" else 1, world_size=2, rpc_backend_options=options)
    if role == "driver":
        drive()
    else:
        answer({"ready": []})
        sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    # The functions that the peer is to call are found by the name of this module there.
    import torch
    import torch.distributed.autograd as autograd
    import torch.distributed.rpc as rpc

    main()
