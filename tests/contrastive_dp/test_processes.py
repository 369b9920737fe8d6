"""Gradients of several processes: the mean of what each finds alone, in every step and however often a pass runs the network."""

import multiprocessing
import os
import socket
import time

import pytest
import torch
from torch import nn

from contrastive_dp import Processes
from contrastive_dp.processes import ProcessLostError, normalise_across


class Net(nn.Module):
    """A parameter that no loss needs, as networks of users have."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        return self.used(x)


def gradient(network, passes, x, backward):
    """Of a loss that runs the network twice, as TRADES does, with an attack on another path between."""
    network.requires_grad_(False)
    near = x.clone().requires_grad_(True)
    (push,) = torch.autograd.grad(network(near).square().sum(), near)
    network.requires_grad_(True)
    network.zero_grad()
    backward((passes(x) - passes(x + 0.1 * push.sign())).square().mean() + passes(x).exp().mean())
    return [p.grad.clone() for p in network.used.parameters()]


def one_of_two(rank, port, found, dies):
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    processes = Processes(rank, 2, torch.distributed.new_group(backend="gloo"))
    torch.manual_seed(rank)
    network = Net()
    passes = processes.sharing_gradients(network)
    assert processes.told("of the first" if rank == 0 else None) == "of the first"
    assert processes.all_of(rank) == [0, 1]
    for step in range(3):
        x = torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * step + rank))
        if dies and step == 1 and rank == 1:
            found.close()
            found.join_thread()
            os._exit(0)
        try:
            together = gradient(network, passes, x, processes.backward)
        except ProcessLostError as error:
            found.put(str(error))
            break
        loss = torch.tensor(float(rank))
        processes.mean(loss)
        found.put((rank, step, network.used.weight.detach().numpy(), [g.numpy() for g in together], float(loss)))
    else:
        processes.all_of(None)
    time.sleep(0.2)  # or the group waits for its threads, which wait for Python, until torch 2.7
    torch.distributed.destroy_process_group()  # left to the end of Python, gloo's threads abort a process now and then


def one_that_normalises(rank, port, found, dies):
    """Batch norm over both processes, of which the second ends before its turn: in the forward pass already the first waits for it."""
    torch.distributed.init_process_group("gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    processes = Processes(rank, 2, torch.distributed.new_group(backend="gloo"))
    network = normalise_across(nn.BatchNorm2d(3), processes)
    processes.all_of(rank)
    if rank == 1:
        os._exit(0)
    try:
        with processes.listening():
            network(torch.randn(4, 3, 2, 2))
    except ProcessLostError as error:
        found.put(str(error))
    time.sleep(0.2)
    torch.distributed.destroy_process_group()


def run_two(dies, work=one_of_two, answers=6):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    found = context.Queue()
    both = [context.Process(target=work, args=(rank, port, found, dies)) for rank in range(2)]
    for one in both:
        one.start()
    results = [found.get(timeout=60) for _ in range(answers)]
    for one in both:
        one.join(60)
    return results, [one.exitcode for one in both]


def test_gradients_are_the_mean_over_processes_in_every_step():
    results, codes = run_two(dies=False)
    assert codes == [0, 0]
    torch.manual_seed(0)
    network = Net()  # the first process's, which the other takes over
    for step in range(3):
        alone = [
            gradient(
                network,
                network,
                torch.randn(4, 3, generator=torch.Generator().manual_seed(10 * step + rank)),
                torch.Tensor.backward,
            )
            for rank in range(2)
        ]
        mean = [(a + b) / 2 for a, b in zip(*alone, strict=True)]
        for rank in range(2):
            weight, gradients, loss = next(found[2:] for found in results if found[:2] == (rank, step))
            assert (torch.from_numpy(weight) == network.used.weight).all()
            for got, expected in zip(gradients, mean, strict=True):
                torch.testing.assert_close(torch.from_numpy(got), expected, rtol=1e-6, atol=1e-7)
            assert loss == 0.5


def test_a_process_that_is_gone_is_told():
    results, codes = run_two(dies=True, answers=3)
    assert codes == [0, 0]
    (message,) = (found for found in results if isinstance(found, str))
    assert "another process of this run is gone" in message


def test_a_process_that_is_gone_is_told_in_batch_norm():
    (message,), codes = run_two(dies=True, work=one_that_normalises, answers=1)
    assert codes == [0, 0]
    assert "another process of this run is gone" in message


def test_an_error_of_ones_own_is_not_a_lost_process():
    """A loss without a graph, memory that runs out: the error is what it is."""
    with pytest.raises(RuntimeError, match="does not require grad"):
        Processes(0, 2).backward(torch.ones(1))


def test_one_process_shares_nothing():
    network = Net()
    assert Processes().sharing_gradients(network) is network
    with pytest.raises(ValueError, match=r"rank=2 must lie in 0..1"):
        Processes(2, 2)
