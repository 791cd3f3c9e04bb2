#!/usr/bin/env python3
"""Records test/golden/sparse-rcnn/*.json: losses, gradients and detections of Sparse R-CNN in PyTorch.

The network is written here in float64 from its description (with mmdetection's
choices), independently of the native code; what it has in common with DETR's comes from detr_network.py.
Features of regions are torchvision's, matching is scipy's. Choices that rounding could turn (who is
matched, which level a region is taken from, what is found) are refused unless they are clear. Weights,
images and boxes follow from formulas, so that the files stay small. Images are ones whose gradients stay within 3e-4
of themselves (the large one: 7e-4) where weights are nudged: else a ReLU at 0 would be switched by rounding.

  python3 scripts/golden/sparse_rcnn.py      needs torch, torchvision and scipy; the test needs none of them
  python3 scripts/golden/sparse_rcnn.py look [NAME...]   for images that rounding changes little, see retinanet.py
"""
import json
import math
import os

import numpy as np
import scipy
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torchvision.ops import roi_align

import retinanet as base
from detr_network import CLASSES, EMBED, FFN, HEADS, Detr, centers, corners, giou, real
from detr_network import fill as detr_fill
from retinanet import hashed

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "sparse-rcnn")
STAGES, PROPOSALS, INNER, MAX_PER_IMAGE = 3, 20, 16, 40
STRIDES, BINS, LIMIT = (4, 8, 16, 32), 7, math.log(1000 / 16)


def fill(name, shape):
    """As in detr_network.py, but for what proposals start from, how far they move, and scores. The same stands in the test."""
    v = hashed(name, int(np.prod(shape)))
    if name.endswith("fc_cls.bias"):
        v = 0.5 * v - 1.5
    elif "bboxes" in name:
        v = 0.5 + 0.3 * v
    elif name.endswith("fc_reg.weight"):
        return 0.5 * detr_fill(name, shape)
    elif not name.startswith("rpn_head."):
        return detr_fill(name, shape)
    return real(v.astype(np.float32)).reshape(shape)


base.fill = fill


class SparseRcnn(Detr):
    def __init__(self, o):
        super().__init__(dict(o, kind="plain"))

    def pyramid(self, image):
        c = self.backbone(image)
        inner = [self.conv(v, f"neck.lateral_convs.{i}.conv", v.shape[1], EMBED, 1, bias=True) for i, v in enumerate(c)]
        for i in (2, 1, 0):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
        return [self.conv(v, f"neck.fpn_convs.{i}.conv", EMBED, EMBED, 3, bias=True) for i, v in enumerate(inner)]

    def features(self, levels, boxes):
        """Boxes [N, Q, 4] in pixels -> [N Q, BINS BINS, EMBED], row by row."""
        n, q = boxes.shape[:2]
        flat = boxes.detach().flatten(0, 1)
        side = (flat[:, 2:] - flat[:, :2]).prod(1).sqrt()
        scale = torch.log2(side / 56 + 1e-6)
        assert (scale - scale.round()).abs()[(scale > -0.5) & (scale < 3.5)].min() > 1e-3, "levels tie"
        level = scale.floor().clamp(0, 3)
        regions = torch.cat([torch.arange(n).repeat_interleave(q)[:, None].to(flat), flat], 1)
        out = torch.zeros(n * q, EMBED, BINS, BINS)
        for l, stride in enumerate(STRIDES):
            own = torch.nonzero(level == l)[:, 0]
            if len(own):
                out = out.index_put((own,), roi_align(levels[l], regions[own], BINS, 1 / stride, 2, True))
        self.levels_used |= set(level.long().tolist())
        return out.flatten(2).transpose(1, 2)

    def dynamic(self, query, features, path):
        """Both filters of a region come from its query."""
        parameters = self.linear(query, path + ".dynamic_layer", 2 * EMBED * INNER)
        first = parameters[:, : EMBED * INNER].view(-1, EMBED, INNER)
        second = parameters[:, EMBED * INNER :].view(-1, INNER, EMBED)
        x = F.relu(self.layer_norm(torch.einsum("rpc,rcd->rpd", features, first), path + ".norm_in"))
        x = F.relu(self.layer_norm(torch.einsum("rpd,rdc->rpc", x, second), path + ".norm_out"))
        return F.relu(self.layer_norm(self.linear(x.flatten(1), path + ".fc_layer", EMBED), path + ".fc_norm"))

    def plain(self, x, path, at):
        x = x @ self.p.get(f"{path}.{at}.weight", (EMBED, EMBED)).T
        return F.relu(self.layer_norm(x, f"{path}.{at + 1}"))

    def stage(self, s, x, features):
        at = f"roi_head.bbox_head.{s}"
        x = self.layer_norm(x + self.attention(x, 0, None, at + ".attention.attn"), at + ".attention_norm")
        seen = self.dynamic(x.flatten(0, 1), features, at + ".instance_interactive_conv")
        x = self.layer_norm(x + seen.view_as(x), at + ".instance_interactive_conv_norm")
        x = self.layer_norm(x + self.ffn(x, at + ".ffn"), at + ".ffn_norm")
        cls, reg = self.plain(x, at + ".cls_fcs", 0), x
        for i in range(3):
            reg = self.plain(reg, at + ".reg_fcs", 3 * i)
        return x, self.linear(cls, at + ".fc_cls", CLASSES), self.linear(reg, at + ".fc_reg", 4)

    def forward(self, image, sizes):
        """Of every stage logits and boxes, x1 y1 x2 y2 in pixels."""
        self.levels_used = set()
        levels, n = self.pyramid(image), len(sizes)
        scale = real([[w, h, w, h] for h, w in sizes])[:, None]
        boxes = corners(self.p.get("rpn_head.init_proposal_bboxes.weight", (PROPOSALS, 4)))[None] * scale
        x = self.p.get("rpn_head.init_proposal_features.weight", (PROPOSALS, EMBED)).expand(n, -1, -1)
        found = []
        for s in range(STAGES):
            x, logits, deltas = self.stage(s, x, self.features(levels, boxes))
            boxes = moved(boxes, deltas)
            found.append((logits, boxes))
            boxes = boxes.detach()
        return found


def moved(boxes, deltas):
    shift, grow = (deltas * real([0.5, 0.5, 1, 1])).split(2, -1)
    assert (grow.abs() - LIMIT).abs().min() > 1e-3, "at the limit"
    center, size = centers(boxes).split(2, -1)
    return corners(torch.cat([center + shift * size, size * grow.clamp(-LIMIT, LIMIT).exp()], -1))


def match(logits, boxes, gt, labels, scale):
    """Per proposal its object, or -1."""
    owner = torch.full((len(boxes),), -1)
    if not len(gt):
        return owner
    p = logits.detach().sigmoid()[:, labels]
    focal = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log() - 0.75 * p**2 * -(1 - p + 1e-12).log()
    l1 = (boxes.detach()[:, None] / scale - gt[None] / scale).abs().sum(-1)
    cost = (2 * focal + 5 * l1 - 2 * giou(boxes.detach()[:, None], gt[None], 1e-6)).numpy()
    rows, columns = linear_sum_assignment(cost)
    least = cost[rows, columns].sum()
    for r, c in zip(rows, columns):  # the best that does without one of the pairs
        other = cost.copy()
        other[r, c] = 1e6
        i, j = linear_sum_assignment(other)
        assert other[i, j].sum() - least > 0.02, "assignments tie"
    owner[rows] = torch.tensor(columns)
    return owner


def losses(found, targets, sizes):
    result = {}
    for s, (logits, boxes) in enumerate(found):
        cls = l1 = iou = torch.zeros(())
        count = 0
        for n, (gt, labels) in enumerate(targets):
            h, w = sizes[n]
            scale = real([w, h, w, h])
            owner = match(logits[n], boxes[n], gt, labels, scale)
            pos = torch.nonzero(owner >= 0)[:, 0]
            y = torch.zeros_like(logits[n])
            if len(pos):
                mine = owner[pos]
                y[pos, labels[mine]] = 1
                l1 = l1 + (boxes[n][pos] / scale - gt[mine] / scale).abs().sum()
                iou = iou + (1 - giou(boxes[n][pos], gt[mine], 1e-7)).sum()
            p = logits[n].sigmoid()
            weight = torch.where(y > 0, 0.25 * (1 - p) ** 2, 0.75 * p**2)
            cls = cls + (weight * F.binary_cross_entropy_with_logits(logits[n], y, reduction="none")).sum()
            count += len(pos)
        count = max(count, 1)
        result.update({f"s{s}.loss_cls": 2 * cls / count, f"s{s}.loss_bbox": 5 * l1 / count, f"s{s}.loss_iou": 2 * iou / count})
    return result


def detect(last, n, size):
    """The reference does not clip; whoever asks mixpl gets boxes within the image."""
    s = last[0][n].sigmoid().flatten()
    order = s.argsort(descending=True, stable=True)
    assert s[order[MAX_PER_IMAGE - 1]] - s[order[MAX_PER_IMAGE]] > 1e-4, "detections tie"
    order = order[:MAX_PER_IMAGE]
    h, w = size
    return torch.minimum(last[1][n][order // CLASSES].clamp(min=0), real([w, h, w, h])), s[order], order % CLASSES


NETWORK = dict(numClasses=CLASSES, channels=EMBED, heads=HEADS, ffnChannels=FFN, dynamicChannels=INNER, stages=STAGES, proposals=PROPOSALS, maxPerImage=MAX_PER_IMAGE)
OBJECTS = ([[10, 12, 60, 70], [40, 30, 90, 88], [70, 5, 86, 20]], [0, 3, 4])
CASES = {
    "padded": dict(NETWORK, height=97, width=131, sizes=[(97, 101), (75, 131)], targets=[OBJECTS, ([], [])], image="image 14"),
    "unpadded": dict(NETWORK, height=96, width=128, sizes=[(96, 128), (96, 128)], targets=[OBJECTS, ([[3, 4, 44, 39], [100, 20, 101, 60]], [2, 1])], image="image 23"),
    "large": dict(NETWORK, height=512, width=672, sizes=[(512, 672)], targets=[([[10, 12, 650, 500], [40, 30, 190, 288], [350, 5, 386, 40]], [0, 3, 4])], image="image 0"),
    "no-objects": dict(NETWORK, height=96, width=128, sizes=[(96, 128), (96, 120)], targets=[([], []), ([], [])], image="image 8"),
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
    net = SparseRcnn(o)
    found = net.forward(image, o["sizes"])
    values = losses(found, targets, o["sizes"])
    with torch.no_grad():
        return net, values, [detect(found[-1], n, size) for n, size in enumerate(o["sizes"])]


def record():
    os.makedirs(OUT, exist_ok=True)
    for name, o in CASES.items():
        net, values, found = run(o)
        sum(values.values()).backward()
        whole = dict(
            torch=torch.__version__, scipy=scipy.__version__, options=o, losses={k: float(v) for k, v in values.items()}, gradients=base.digests(net, hashed),
            detections=[dict(boxes=b[:20].round(decimals=5).tolist(), scores=s[:20].round(decimals=7).tolist(), labels=y[:20].tolist(), count=len(s)) for b, s, y in found])
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
            f.write("\n")
        print(name, {k: round(v, 4) for k, v in whole["losses"].items()}, len(net.p.values), "levels", sorted(net.levels_used), [d["scores"][:2] for d in whole["detections"]])


def gradients(o):
    net, values, _ = run(o)
    sum(values.values()).backward()
    return base.digests(net, hashed)


if __name__ == "__main__":
    base.main(CASES, record, gradients)
