"""DINO R50 (4 levels, 900 queries) as the benches run it: training step and inference, in f32.

The network is that of scripts/golden/detr_network.py, which writes DINO plainly in PyTorch (deformable
attention by grid_sample, level after level; no kernels of its own), at its full size. Matching is scipy's.
"""
import os
import sys

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
import detr_network as d

torch.set_default_dtype(torch.float32)  # the golden network's is f64
d.EMBED, d.HEADS, d.POINTS, d.LEVELS, d.FFN, d.CLASSES, d.QUERIES = 256, 8, 4, 4, 2048, 90, 900
d.ENCODERS, d.DECODERS = 6, 6
d.BACKBONE = dict(depth=50, style="pytorch", norm="frozen-bn", frozenStages=1, baseWidth=64)


def fill(name, shape):
    """Small random weights: times do not hang on them."""
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return torch.ones(shape)
    if len(shape) == 1:
        return torch.zeros(shape)
    return torch.randn(shape) * (2 / (torch.Size(shape).numel() / shape[0])) ** 0.5 * 0.5


class Dino(d.Detr):
    def proposed(self, memory, grid):
        """Without the golden network's refusal of ties."""
        boxes, silent = grid.proposals()
        x = self.linear(memory.masked_fill(silent[..., None], 0), "memory_trans_fc", d.EMBED)
        x = self.layer_norm(x, "memory_trans_norm")
        logits, boxes = self.cls(d.DECODERS, x), self.reg(d.DECODERS, x) + boxes
        return logits, boxes, logits.max(-1)[0].topk(d.QUERIES, dim=1)[1]


def match(logits, boxes, gt, labels, scale):
    p = logits.detach().sigmoid()[:, labels]
    focal = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log() - 0.75 * p**2 * -(1 - p + 1e-12).log()
    l1 = torch.cdist(boxes.detach(), d.centers(gt / scale), p=1)
    overlap = d.giou(d.corners(boxes.detach())[:, None] * scale, gt[None], 1e-6)
    rows, columns = linear_sum_assignment((2 * focal + 5 * l1 - 2 * overlap).cpu())
    owner = torch.full((len(boxes),), -1)
    owner[rows] = torch.tensor(columns)
    return owner


def loss_of(logits, boxes, owners, targets, scale):
    """Of one layer: focal, L1 and GIoU, each over the number of matches."""
    total = 0.0
    for n, (gt, labels) in enumerate(targets):
        pos = (owners[n] >= 0).nonzero()[:, 0]
        mine, y = owners[n][pos], torch.zeros_like(logits[n])
        y[pos, labels[mine]] = 1
        p = logits[n].sigmoid()
        weight = torch.where(y > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
        total = total + (weight * F.binary_cross_entropy_with_logits(logits[n], y, reduction="none")).sum()
        total = total + 5 * (boxes[n][pos] - d.centers(gt[mine] / scale)).abs().sum()
        total = total + 2 * (1 - d.giou(d.corners(boxes[n][pos]) * scale, gt[mine], 1e-7)).sum()
    return total / max(sum(int((o >= 0).sum()) for o in owners), 1)


def losses(out, targets, scale):
    layers, encoder, noisy = out
    first = noisy["labels"].shape[1] if noisy else 0
    matched = lambda logits, boxes: [match(logits[n], boxes[n], *t, scale) for n, t in enumerate(targets)]
    total = loss_of(*encoder, matched(*encoder), targets, scale)
    for logits, boxes in layers:
        own = logits[:, first:], boxes[:, first:]
        total = total + loss_of(*own, matched(*own), targets, scale)
        if noisy:
            total = total + loss_of(logits[:, :first], boxes[:, :first], noisy["owner"], targets, scale)
    return total


def make(kind, size, images):
    """A function that runs the step once and says whether its result is sound. kind: train, infer"""
    d.base.fill = fill
    h, w = size
    net = Dino(dict(kind="dino", denoising=100))
    scale = torch.tensor([w, h, w, h], dtype=torch.float32)
    x, sizes = torch.rand(images, 3, h, w), [(h, w)] * images

    def infer():
        with torch.no_grad():
            logits, boxes = net.forward(x, sizes)[0][-1]
            scores, best = logits.sigmoid().flatten(1).topk(100)
            found = d.corners(boxes.gather(1, (best // d.CLASSES)[..., None].expand(-1, -1, 4))) * scale
            return bool(torch.isfinite(found).all() and torch.isfinite(scores).all())

    if kind == "infer":
        return infer

    def target():
        xy = torch.rand(7, 2) * torch.tensor([w * 0.7, h * 0.7])
        wh = (0.03 + 0.27 * torch.rand(7, 2)) * torch.tensor([float(w), float(h)])
        return torch.cat([xy, xy + wh], 1), torch.randint(0, d.CLASSES, (7,))

    targets = [target() for _ in range(images)]
    infer()  # makes the weights
    params, opt = [], None

    def train():
        nonlocal params, opt
        loss = losses(net.forward(x, sizes, targets), targets, scale)
        loss.backward()
        if opt is None:  # once those of training are there
            params = [p for p in net.p.values.values() if p.grad is not None]
            opt = torch.optim.AdamW(params, lr=1e-4, weight_decay=1e-4, foreach=True)
        torch.nn.utils.clip_grad_norm_(params, 0.1)
        opt.step()
        opt.zero_grad(set_to_none=True)
        return bool(torch.isfinite(loss))

    return train
