"""Records test/golden/ops/batched-matmul.json from torch.bmm.

    /usr/bin/python3 scripts/golden/batched_matmul.py
"""

import torch

from ops import SEED, case, write


def recorded(name, batches, rows, depth, columns):
    a = torch.randn(batches, rows, depth, requires_grad=True)
    b = torch.randn(batches, depth, columns, requires_grad=True)
    out = torch.bmm(a, b)
    dout = torch.randn_like(out)
    out.backward(dout)
    return case(name, {"a": a, "b": b}, {}, out, {"a": a.grad, "b": b.grad}, dout)


torch.manual_seed(SEED)
write("batched-matmul", "torch.bmm", [
    recorded("whole vectors", 3, 5, 8, 16),
    recorded("odd sizes", 2, 7, 9, 5),
    recorded("one batch", 1, 3, 17, 2),
], by="scripts/golden/batched_matmul.py")
