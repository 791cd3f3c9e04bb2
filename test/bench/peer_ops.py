"""PyTorch's side of ops.mjs: reads case names from stdin, answers milliseconds (or null) a line."""

import json
import sys
import time

import torch
import torch.nn.functional as F
import torchvision

torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[1]))
SHAPE = (2, 256, 100, 168)


def make(name):
    op, dtype, mode = name.split()
    backward = mode == "fwd+bwd"
    if dtype != "f32":
        return None  # torch 1.13 on CPU has no bf16 for most of these
    if op == "focal":
        x = ((torch.rand(201600, 90) - 0.5) * 12).requires_grad_(backward)
        y = torch.zeros(201600, 90)
        y[torch.arange(0, 201600, 1000), 1] = 1
        leaves, dout = [x], torch.tensor(0.01)
        run = lambda: torchvision.ops.sigmoid_focal_loss(x, y, reduction="sum")
    else:
        # torch's own layout: what its users run; channels_last GroupNorm copies in torch 1.13.
        x = (torch.rand(SHAPE) * 2 - 1).requires_grad_(backward)
        gamma = torch.ones(256, requires_grad=backward)
        beta = torch.zeros(256, requires_grad=backward)
        mean, var, dout = torch.zeros(256), torch.ones(256), torch.rand(SHAPE)
        top = torch.rand(2, 256, 50, 84, requires_grad=backward)
        leaves = {"relu": [x], "upsampleAdd": [x, top]}.get(op, [x, gamma, beta])
        run = {
            "groupNorm": lambda: F.group_norm(x, 32, gamma, beta),
            "batchNorm": lambda: F.batch_norm(x, mean, var, gamma, beta, True),
            "relu": lambda: F.relu(x),
            "upsampleAdd": lambda: x + F.interpolate(top, size=SHAPE[2:], mode="nearest"),
        }[op]

    def once():
        for leaf in leaves:
            leaf.grad = None
        start = time.perf_counter()
        out = run()
        if backward:
            out.backward(dout)
        return (time.perf_counter() - start) * 1e3

    once()
    return once


current, once = None, None
for line in sys.stdin:
    name = line.strip()
    if name == "version":
        answer = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    else:
        if name != current:
            once = None
            current, once = name, make(name)
        answer = once() if once else None
    print(json.dumps(answer), flush=True)
