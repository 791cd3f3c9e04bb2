#!/usr/bin/env python3
"""Records test/golden/ops/random-cases.json: thousands of random cases of torchvision's ops, as digests.

Inputs follow from a formula that the test has, too (test/unit/ops/random-cases.test.ts). A block of cases
leaves its loss and the inner product of its gradient with the formula's numbers; a set of boxes leaves how
many of them suppression keeps, and a checksum of which in which order.

  python3 scripts/golden/op_cases.py      needs torch and torchvision; ops run in float64, suppression in float32
"""
import json
import os

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torchvision import ops

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "ops", "random-cases.json")


def formula(name, count):
    """Numbers in (-1, 1) that look random."""
    h = 7
    for c in name.encode():
        h = (h * 31 + c) % 65521
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(h * 40503)
    for _ in range(2):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return (x ^ (x >> np.uint32(16))) / 2.0**31 - 1


def single(values):
    return torch.from_numpy(np.asarray(values, np.float64).astype(np.float32).astype(np.float64))


def boxes(name, count):
    u = formula(name, 4 * count).reshape(count, 4)
    x, y = 100 * (u[:, 0] + 1), 100 * (u[:, 1] + 1)
    return np.stack([x, y, x + 2 + 75 * (u[:, 2] + 1), y + 2 + 75 * (u[:, 3] + 1)], 1)


def near(name, target):
    """Every fourth box is anywhere, the others are moved by up to 12 pixels a side."""
    moved = target + 12 * formula(name + "#moved", target.size).reshape(-1, 4)
    moved[::4] = boxes(name + "#free", len(target))[::4]
    moved[:, 2:] = np.maximum(moved[:, 2:], moved[:, :2] + 1)
    return moved


def digest(name, loss, leaf):
    (gradient,) = torch.autograd.grad(loss, leaf)
    gradient = gradient.permute(0, 2, 3, 1) if gradient.dim() == 4 else gradient
    probe = gradient.numpy().ravel() @ formula(name + "#probe", gradient.numel())
    return [float(f"{v:.9g}") for v in (loss.item(), probe, gradient.norm().item())]


def overlap(kind, function):
    out = []
    for b in range(80):
        name = f"{kind}{b}"
        target = boxes(name, 25)
        pred, target = single(near(name, target)).requires_grad_(), single(target)
        weight = single(1 + 0.5 * formula(name + "#weight", 25))
        out.append(digest(name, (function(pred, target) * weight).sum(), pred))
    return out


def focal():
    out = []
    for b in range(80):
        name = f"focal{b}"
        gamma, alpha = [2, 0, 1, 3.5][b % 4], [0.25, 0.5, 1, 0.75][b % 4]
        logits = single(8 * formula(name, 100)).reshape(25, 4).requires_grad_()
        labels = torch.from_numpy(np.floor(3 * (formula(name + "#labels", 25) + 1)).astype(np.int64)) - 1
        onehot = F.one_hot(labels.clamp(min=0), 6)[:, :4].double()
        each = ops.sigmoid_focal_loss(logits, onehot, alpha=alpha, gamma=gamma)
        out.append(digest(name, (each * (labels >= 0)[:, None]).sum(), logits))
    return out


def smooth_l1():
    out = []
    for b in range(80):
        name = f"l1{b}"
        beta = [0, 1 / 9, 1][b % 3]
        pred, target = single(formula(name, 100)).reshape(25, 4).requires_grad_(), single(formula(name + "#target", 100))
        weight = single(1 + 0.5 * formula(name + "#weight", 25))
        function = F.smooth_l1_loss if beta else F.l1_loss
        each = function(pred, target.reshape(25, 4), reduction="none", **({"beta": beta} if beta else {}))
        out.append(digest(name, (each * weight[:, None]).sum(), pred))
    return out


def roi_align():
    out = []
    for b in range(40):
        name = f"roi{b}"
        features = single(formula(name + "#features", 13 * 17 * 3)).reshape(1, 13, 17, 3)
        leaf = features.permute(0, 3, 1, 2).contiguous().requires_grad_()
        rois = single(boxes(name, 50) * 0.75 - 20)  # some beyond the borders
        y = ops.roi_align(leaf, [rois], 7, 0.125, [0, 2][b % 2], [False, True][b // 2 % 2])
        y = y.permute(0, 2, 3, 1)
        dout = single(formula(name + "#dout", y.numel())).reshape(y.shape)
        out.append(digest(name, (y * dout).sum(), leaf))
    return out


def suppression():
    out = []
    for b in range(1000):
        name = f"nms{b}"
        crowd = single(boxes(name, 30) * 0.5).float()
        scores = single((formula(name + "#scores", 30) + 1) / 2).float()
        kept = ops.nms(crowd, scores, [0.1, 0.3, 0.5, 0.7][b % 4]).tolist()
        out.append([len(kept), sum((i + 1) * (k + 1) for i, k in enumerate(kept))])
    return out


record = {
    "recordedBy": "scripts/golden/op_cases.py", "torch": torch.__version__, "torchvision": torchvision.__version__,
    "giou": overlap("giou", ops.generalized_box_iou_loss), "diou": overlap("diou", ops.distance_box_iou_loss),
    "ciou": overlap("ciou", ops.complete_box_iou_loss), "focal": focal(), "smoothL1": smooth_l1(),
    "roiAlign": roi_align(), "nms": suppression(),
}
with open(OUT, "w") as f:
    json.dump(record, f, separators=(",", ":"))
    f.write("\n")
print(os.path.getsize(OUT))
