#!/usr/bin/env python3
"""Records test/golden/detr/*.json: losses, gradients and detections of Deformable DETR (plain, with box
refinement, in two stages), of DINO (4 scales) and of DAB-DETR in PyTorch.

The networks are in detr_network.py and dab_detr_network.py; matching is scipy's. Choices that rounding could turn (which tokens
start a query, who is matched, what is found) are refused unless they are clear. Weights, images and boxes
follow from formulas, so that the files stay small. detr_checks.py checks the networks by themselves.

  python3 scripts/golden/detr.py      needs torch, torchvision and scipy; the tests need none of them
"""
import json
import os

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

import retinanet as base
from dab_detr_network import DabDetr
from detr_network import CLASSES, DECODERS, EMBED, ENCODERS, FFN, HEADS, POINTS, QUERIES, Detr, centers, corners, giou, real
from retinanet import hashed

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "detr")
MAX_PER_IMAGE = 40


def network(o):
    return DabDetr(o) if o["kind"] == "dab" else Detr(o)


def match(logits, boxes, gt, labels, size, eps):
    """Per query its object, or -1."""
    owner = torch.full((len(boxes),), -1)
    if not len(gt):
        return owner
    h, w = size
    scale = real([w, h, w, h])
    p = logits.detach().sigmoid()[:, labels]
    focal = 0.25 * (1 - p) ** 2 * -(p + eps).log() - 0.75 * p**2 * -(1 - p + eps).log()
    l1 = (boxes.detach()[:, None] - centers(gt / scale)[None]).abs().sum(-1)
    overlap = giou(corners(boxes.detach())[:, None] * scale, gt[None], 1e-6)
    cost = (2 * focal + 5 * l1 - 2 * overlap).numpy()
    rows, columns = linear_sum_assignment(cost)
    least = cost[rows, columns].sum()
    for r, c in zip(rows, columns):  # the best that does without one of the pairs
        other = cost.copy()
        other[r, c] = 1e6
        i, j = linear_sum_assignment(other)
        assert other[i, j].sum() - least > 0.02, "assignments tie"
    owner[rows] = torch.tensor(columns)
    return owner


def query_losses(logits, boxes, owners, targets, sizes, cls_weight):
    cls = l1 = iou = 0.0
    count = sum(int((o >= 0).sum()) for o in owners)
    for n, (gt, labels) in enumerate(targets):
        h, w = sizes[n]
        scale = real([w, h, w, h])
        pos = torch.nonzero(owners[n] >= 0)[:, 0]
        y = torch.zeros_like(logits[n])
        if len(pos):
            mine = owners[n][pos]
            y[pos, labels[mine]] = 1
            l1 = l1 + (boxes[n][pos] - centers(gt[mine] / scale)).abs().sum()
            iou = iou + (1 - giou(corners(boxes[n][pos]) * scale, gt[mine], 1e-7)).sum()
        p = logits[n].sigmoid()
        weight = torch.where(y > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
        cls = cls + (weight * F.binary_cross_entropy_with_logits(logits[n], y, reduction="none")).sum()
    count = max(count, 1)
    return cls_weight * cls / count, 5 * l1 / count, 2 * iou / count


def losses(net, out, targets, sizes):
    layers, encoder, noisy = out
    result = {}

    def add(prefix, logits, boxes, owners, truth=targets):
        values = query_losses(logits, boxes, owners, truth, sizes, net.focal_weight)
        result.update({prefix + k: v for k, v in zip(("loss_cls", "loss_bbox", "loss_iou"), values)})

    matched = lambda logits, boxes, truth: [match(logits[n], boxes[n], *truth[n], sizes[n], net.focal_eps) for n in range(len(sizes))]
    last = DECODERS - 1
    first = noisy["labels"].shape[1] if noisy else 0
    for i in [last, *range(last)]:
        logits, boxes = layers[i][0][:, first:], layers[i][1][:, first:]
        add("" if i == last else f"d{i}.", logits, boxes, matched(logits, boxes, targets))
    if encoder:
        # To Deformable DETR's encoder all objects are of the first class.
        truth = targets if net.dino else [(b, torch.zeros_like(l)) for b, l in targets]
        add("enc_", *encoder, matched(*encoder, truth), truth)
    if noisy:
        for i in [last, *range(last)]:
            add("dn_" if i == last else f"d{i}.dn_", layers[i][0][:, :first], layers[i][1][:, :first], noisy["owner"])
    return result


def detect(layer, n, size):
    h, w = size
    s = layer[0][n].sigmoid().flatten()
    order = s.argsort(descending=True, stable=True)
    assert s[order[MAX_PER_IMAGE - 1]] - s[order[MAX_PER_IMAGE]] > 1e-4, "detections tie"
    order = order[:MAX_PER_IMAGE]
    scale = real([w, h, w, h])
    b = corners(layer[1][n][order // CLASSES]) * scale
    return torch.minimum(b.clamp(min=0), scale), s[order], order % CLASSES


NETWORK = dict(numClasses=CLASSES, channels=EMBED, heads=HEADS, points=POINTS, ffnChannels=FFN, encoderLayers=ENCODERS, decoderLayers=DECODERS,
               queries=QUERIES, maxPerImage=MAX_PER_IMAGE)
OBJECTS = ([[10, 12, 60, 70], [40, 30, 90, 88], [70, 5, 86, 20]], [0, 3, 4])
THIN = [100, 20, 100.125, 60]  # below what an inverse sigmoid of DINO's keeps
PADDED = dict(NETWORK, height=97, width=131, sizes=[(97, 101), (75, 131)], targets=[OBJECTS, ([], [])])
WHOLE = dict(NETWORK, height=96, width=128, sizes=[(96, 128), (96, 128)], targets=[OBJECTS, ([[3, 4, 44, 39], THIN], [2, 1])])
# Wide enough for cells that are too near the left and right edge to propose a box.
WIDE = dict(NETWORK, height=40, width=424, sizes=[(40, 424), (33, 300)], targets=[([[10, 2, 90, 38], [150, 8, 260, 30], [300, 5, 420, 33]], [0, 3, 4]), ([], [])])
# Images that leave all choices clear, and where no ReLU's input and no sampling place is within 3e-6
# of a kink: what f32 makes of a gradient is then near what float64 does (see detr_checks.py).
CASES = {
    "plain": dict(PADDED, kind="plain", image="image 39"),
    "plain-unpadded": dict(WHOLE, kind="plain", image="image 36"),
    "refined": dict(PADDED, kind="refined", image="image 30"),
    "two-stage": dict(WIDE, kind="two-stage", image="image 266"),
    "dino": dict(PADDED, kind="dino", denoising=0, image="image 143"),
    "dino-denoising": dict(PADDED, kind="dino", denoising=8, image="image 143"),
    "dino-unpadded": dict(WHOLE, kind="dino", denoising=8, image="image 365"),
    "dab": dict(PADDED, kind="dab", image="image 12"),
    "dab-unpadded": dict(WHOLE, kind="dab", image="image 3"),
}


def inputs(o):
    """The batch, 0 where it is padded, and its objects."""
    n, h, w = len(o["sizes"]), o["height"], o["width"]
    image = real(hashed(o["image"], n * h * w * 3).astype(np.float32)).reshape(n, h, w, 3)
    for i, (rows, columns) in enumerate(o["sizes"]):
        image[i, rows:], image[i, :, columns:] = 0, 0
    return image.permute(0, 3, 1, 2), [(real(b).reshape(-1, 4), torch.tensor(l, dtype=torch.long)) for b, l in o["targets"]]


def run(o):
    image, targets = inputs(o)
    net = network(o)
    out = net.forward(image, o["sizes"], targets)
    values = losses(net, out, targets, o["sizes"])
    sum(values.values()).backward()
    with torch.no_grad():
        layer = net.forward(image, o["sizes"])[0][-1]
        return net, out, values, [detect(layer, n, size) for n, size in enumerate(o["sizes"])]


def record():
    for name, o in CASES.items():
        net, (_, _, noisy), values, found = run(o)
        whole = dict(torch=torch.__version__, scipy=scipy.__version__, options=o)
        if noisy:  # what the decoder gets: noisy classes, and boxes in shares of the image
            whole["denoising"] = dict(groups=noisy["groups"], size=noisy["size"], labels=noisy["labels"].tolist(),
                                      references=noisy["references"].round(decimals=7).tolist())
        whole.update(
            losses={k: float(v) for k, v in values.items()}, gradients=base.digests(net, hashed),
            detections=[dict(boxes=b[:20].round(decimals=5).tolist(), scores=s[:20].round(decimals=7).tolist(), labels=y[:20].tolist(), count=len(s)) for b, s, y in found])
        os.makedirs(OUT, exist_ok=True)
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
            f.write("\n")
        print(name, {k: round(v, 4) for k, v in whole["losses"].items()}, len(net.p.values), [d["scores"][:2] for d in whole["detections"]])


if __name__ == "__main__":
    base.main(CASES, record, lambda o: base.digests(run(o)[0], hashed))
