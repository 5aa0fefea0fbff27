"""The network of benches/mlp.rs in PyTorch, on one thread: 20-512-512-512-16 with a target network.

Reads names of cases, one a line; answers each with one JSON object of rates a second of processor time, one for each way
that PyTorch offers.
"""

import json
import sys
import time

import torch
from torch import nn

torch.set_num_threads(1)
torch.manual_seed(1)
INPUTS, HIDDEN, ACTIONS, GAMMA, RADIUS = 20, [512, 512, 512], 16, 0.95, 10.0


def net():
    sizes, layers = [INPUTS, *HIDDEN], []
    for a, b in zip(sizes, sizes[1:]):
        layers += [nn.Linear(a, b), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], ACTIONS))


def rate(work, seconds=0.3):
    n, start = 0, time.thread_time()
    while time.thread_time() - start < seconds:
        work()
        n += 1
    return n / (time.thread_time() - start)


def data(batch):
    return (
        torch.randn(batch, INPUTS),
        torch.randint(0, ACTIONS, (batch, 1)),
        torch.rand(batch),
        torch.randn(batch, INPUTS),
    )


def updates(batch, optimiser, project=False):
    online, target = net(), net()
    target.load_state_dict(online.state_dict())
    parameters = list(online.parameters())
    step = optimiser(parameters)
    centre = [p.detach().clone() for p in parameters]
    o, a, r, after = data(batch)

    def work():
        with torch.no_grad():
            y = r + GAMMA * target(after).max(1).values
        loss = 0.5 * (online(o).gather(1, a).squeeze(1) - y).square().mean()
        step.zero_grad(set_to_none=True)
        loss.backward()
        step.step()
        if project:
            with torch.no_grad():
                away = torch._foreach_sub(parameters, centre)
                distance = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(away)))
                if distance > RADIUS:
                    torch._foreach_mul_(away, (RADIUS / distance).item())
                    for p, c, d in zip(parameters, centre, away):
                        torch.add(c, d, out=p)

    return work


def choices():
    online, o = net(), data(1)[0]

    def work():
        with torch.inference_mode():
            return int(online(o).argmax(1))

    return work


adams = {
    "default": lambda p: torch.optim.Adam(p, lr=1e-3),
    "foreach": lambda p: torch.optim.Adam(p, lr=1e-3, foreach=True),
    "fused": lambda p: torch.optim.Adam(p, lr=1e-3, fused=True),
}
sgds = {
    "default": lambda p: torch.optim.SGD(p, lr=1e-3),
    "foreach": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=True),
    "fused": lambda p: torch.optim.SGD(p, lr=1e-3, fused=True),
}

cases = {
    "adam-32": {name: updates(32, make) for name, make in adams.items()},
    "adam-1": {name: updates(1, make) for name, make in adams.items()},
    "sgd-1": {name: updates(1, make, project=True) for name, make in sgds.items()},
    "choices": {"default": choices()},
}
for line in sys.stdin:
    print(json.dumps({name: rate(work) for name, work in cases[line.strip()].items()}), flush=True)
