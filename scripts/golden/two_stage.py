#!/usr/bin/env python3
"""Records test/golden/two-stage/*.json: Faster and Cascade R-CNN with mmdetection's choices, in PyTorch.

The network is written here in float64 from its description, independently
of the native code; RoIAlign and NMS are torchvision's. The samplers take everything, so nothing is left to
chance. Weights, images and boxes follow from formulas, so that the files stay small.

  python3 scripts/golden/two_stage.py      needs torch and torchvision; the tests need neither
"""
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from torchvision.ops import nms, roi_align

import retinanet as base
from retinanet import hashed

torch.set_default_dtype(torch.float64)
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "two-stage")
LIMIT = abs(math.log(16 / 1000))
BACKBONE = dict(depth=18, style="pytorch", norm="gn", frozenStages=-1, baseWidth=8)
CHANNELS, FC, CLASSES, HEIGHT, WIDTH = 16, 32, 4, 96, 128
STRIDES = [4, 8, 16, 32, 64]
TARGETS = [([[10, 12, 60, 70], [40, 30, 90, 88], [70, 5, 86, 20]], [0, 1, 3]), ([], []), ([[3, 4, 44, 39]], [2])]
TRAIN, TEST = dict(pre=300, post=80), dict(pre=100, post=60)


def fill(name, shape):
    """In our layout: OHWI; the first layer of a box head over [bins, bins, C]."""
    v = hashed(name, int(np.prod(shape)))
    if len(shape) == 1 and ".gn" in name and name.endswith("weight"):
        v = 1 + 0.2 * v
    elif len(shape) == 1:
        v = 0.1 * v
    else:
        fan_in = np.prod(shape) / shape[0]
        v = v * math.sqrt(6.0 / fan_in)
        if "rpn_reg" in name or "fc_reg" in name:
            v = 0.05 * v  # boxes near their anchors
        if "rpn_cls" in name or "fc_cls" in name:
            v = 0.2 * v  # scores away from 0 and 1
    v = torch.tensor(v.astype(np.float32).astype(np.float64))
    if len(shape) == 4:
        k, c, r, s = shape
        return v.reshape(k, r, s, c).permute(0, 3, 1, 2).contiguous()
    return v.reshape(shape)


base.fill = fill


def weight(net, name, shape):
    return net.p.get(name, shape)


def linear(net, x, path, cin, cout):
    return x @ weight(net, path + ".weight", (cout, cin)).T + weight(net, path + ".bias", (cout,))


def pyramid(net, x):
    c = net.backbone(x)
    inner = [net.conv(v, f"neck.lateral_convs.{i}.conv", v.shape[1], CHANNELS, 1, bias=True) for i, v in enumerate(c)]
    for i in (2, 1, 0):
        inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
    p = [net.conv(v, f"neck.fpn_convs.{i}.conv", CHANNELS, CHANNELS, 3, bias=True) for i, v in enumerate(inner)]
    return p + [p[-1][:, :, ::2, ::2]]


def anchors(level, h, w):
    side, out = 8 * STRIDES[level], []
    for y in range(h):
        for x in range(w):
            for r in (0.5, 1.0, 2.0):
                bw, bh = side / math.sqrt(r), side * math.sqrt(r)
                cx, cy = x * STRIDES[level], y * STRIDES[level]
                out.append((cx - bw / 2, cy - bh / 2, cx + bw / 2, cy + bh / 2))
    return torch.tensor(out)


def encode(a, b, stds=(1, 1, 1, 1)):
    aw, ah = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    d = torch.stack([((b[:, 0] + b[:, 2]) - (a[:, 0] + a[:, 2])) / 2 / aw, ((b[:, 1] + b[:, 3]) - (a[:, 1] + a[:, 3])) / 2 / ah,
                     torch.log((b[:, 2] - b[:, 0]) / aw), torch.log((b[:, 3] - b[:, 1]) / ah)], 1)
    return d / torch.tensor(stds)


def decode(a, d, stds=(1, 1, 1, 1)):
    d = d * torch.tensor(stds)
    aw, ah = a[:, 2] - a[:, 0], a[:, 3] - a[:, 1]
    cx, cy = (a[:, 0] + a[:, 2]) / 2 + d[:, 0] * aw, (a[:, 1] + a[:, 3]) / 2 + d[:, 1] * ah
    w, h = aw * d[:, 2].clamp(-LIMIT, LIMIT).exp(), ah * d[:, 3].clamp(-LIMIT, LIMIT).exp()
    b = torch.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], 1)
    return torch.stack([b[:, 0].clamp(0, WIDTH), b[:, 1].clamp(0, HEIGHT), b[:, 2].clamp(0, WIDTH), b[:, 3].clamp(0, HEIGHT)], 1)


def smooth_l1(d, beta):
    d = d.abs()
    return d if beta == 0 else torch.where(d < beta, 0.5 * d * d / beta, d - 0.5 * beta)


def overlaps(a, b):
    a, b = a.float()[:, None], b.float()[None]
    wh = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = wh[..., 0] * wh[..., 1]
    area = lambda x: (x[..., 2] - x[..., 0]) * (x[..., 3] - x[..., 1])
    return inter / (area(a) + area(b) - inter).clamp(min=1e-6)


def assign(a, boxes, pos, neg, least, low_quality):
    """-1 negative, -2 ignored, else the box."""
    if len(boxes) == 0:
        return torch.full((len(a),), -1, dtype=torch.long)
    iou = overlaps(boxes, a)
    best, arg = iou.max(0)
    out = torch.full((len(a),), -2, dtype=torch.long)
    out[best < neg] = -1
    out[best >= pos] = arg[best >= pos]
    for g in range(len(boxes) if low_quality else 0):
        if iou[g].max() >= least:
            out[iou[g] == iou[g].max()] = g
    return out


def rpn(net, levels):
    outs = []
    for v in levels:
        v = F.relu(net.conv(v, "rpn_head.rpn_conv", CHANNELS, CHANNELS, 3, bias=True))
        outs.append((net.conv(v, "rpn_head.rpn_cls", CHANNELS, 3, 1, bias=True), net.conv(v, "rpn_head.rpn_reg", CHANNELS, 12, 1, bias=True)))
    return outs


def rows(t, n, each):
    return t[n].permute(1, 2, 0).reshape(-1, each)


def rpn_losses(outs, targets, o):
    cls = reg = 0.0
    count = 0
    for n, (boxes, _) in enumerate(targets):
        a = torch.cat([anchors(l, c.shape[2], c.shape[3]) for l, (c, _) in enumerate(outs)])
        logit = torch.cat([rows(c, n, 1) for c, _ in outs])[:, 0]
        delta = torch.cat([rows(r, n, 4) for _, r in outs])
        inside = torch.ones(len(a), dtype=torch.bool)
        if o["border"] >= 0:
            inside = (a[:, 0] >= 0) & (a[:, 1] >= 0) & (a[:, 2] < WIDTH) & (a[:, 3] < HEIGHT)
        owner = torch.full((len(a),), -2, dtype=torch.long)
        owner[inside] = assign(a[inside], boxes, 0.7, 0.3, 0.3, True)
        used, pos = owner != -2, owner >= 0
        cls = cls + F.binary_cross_entropy_with_logits(logit[used], pos[used].double(), reduction="sum")
        if pos.any():
            reg = reg + smooth_l1(delta[pos] - encode(a[pos], boxes[owner[pos]]), o["rpn_beta"]).sum()
        # mmdetection: an image's positives and negatives count as at least 1 each.
        count += max(int(pos.sum()), 1) + max(int((used & ~pos).sum()), 1)
    return cls / count, reg / count


def propose(outs, n, limits):
    boxes, scores, levels = [], [], []
    for l, (c, r) in enumerate(outs):
        s = torch.sigmoid(rows(c, n, 1)[:, 0])
        order = torch.argsort(s, descending=True, stable=True)[: limits["pre"]]
        b = decode(anchors(l, c.shape[2], c.shape[3])[order], rows(r, n, 4)[order])
        ok = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
        boxes.append(b[ok]), scores.append(s[order][ok]), levels.append(torch.full((int(ok.sum()),), l))
    b, s, l = torch.cat(boxes), torch.cat(scores), torch.cat(levels)
    return b[nms(b + l[:, None] * 1000.0, s, 0.7)[: limits["post"]]].detach()


def region_features(levels, boxes, image):
    out = torch.zeros(len(boxes), CHANNELS, 7, 7)
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    which = torch.floor(torch.log2(side / 56 + 1e-6)).clamp(0, 3)
    for l in range(4):
        own = torch.nonzero(which == l)[:, 0]
        if len(own):
            regions = torch.cat([image[own, None].double(), boxes[own]], 1)
            out = out.index_put((own,), roi_align(levels[l], regions, (7, 7), 1 / STRIDES[l], -1, True))
    return out.permute(0, 2, 3, 1).reshape(len(boxes), -1)  # channels last, as our weights have it


def head(net, x, at, boxes_each):
    x = F.relu(linear(net, x, at + ".shared_fcs.0", CHANNELS * 49, FC))
    x = F.relu(linear(net, x, at + ".shared_fcs.1", FC, FC))
    return linear(net, x, at + ".fc_cls", FC, CLASSES + 1), linear(net, x, at + ".fc_reg", FC, 4 * boxes_each)


def regions_of(proposals, targets, iou):
    boxes, image, labels, owner, truth = [], [], [], [], []
    for n, (gt, gt_labels) in enumerate(targets):
        every = torch.cat([gt, proposals[n]])
        a = assign(every, gt, iou, iou, iou, False)
        a[: len(gt)] = torch.arange(len(gt))
        boxes.append(every), image.append(torch.full((len(every),), n)), owner.append(a)
        labels.append(torch.where(a >= 0, gt_labels[a.clamp(min=0)] if len(gt) else a, torch.tensor(CLASSES)))
        truth.append(torch.arange(len(every)) < len(gt))
    return torch.cat(boxes), torch.cat(image), torch.cat(labels), torch.cat(owner), torch.cat(truth)


STDS = [(0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067)]


def head_losses(cls, reg, found, targets, stds, beta, agnostic):
    boxes, image, labels, owner, _ = found
    loss_cls = F.cross_entropy(cls, labels, reduction="sum") / len(labels)
    pos = torch.nonzero(owner >= 0)[:, 0]
    goal = torch.stack([targets[int(image[i])][0][owner[i]] for i in pos])
    pred = reg[pos] if agnostic else reg.reshape(len(reg), CLASSES, 4)[pos, labels[pos]]
    return loss_cls, smooth_l1(pred - encode(boxes[pos], goal, stds), beta).sum() / len(labels)


def losses(net, x, targets, o):
    levels = pyramid(net, x)
    outs = rpn(net, levels)
    result = dict(zip(("loss_rpn_cls", "loss_rpn_bbox"), rpn_losses(outs, targets, o)))
    proposals = [propose(outs, n, TRAIN) for n in range(len(targets))]
    if not o["cascade"]:
        found = regions_of(proposals, targets, 0.5)
        cls, reg = head(net, region_features(levels, found[0], found[1]), "roi_head.bbox_head", CLASSES)
        result["loss_cls"], result["loss_bbox"] = head_losses(cls, reg, found, targets, STDS[0], 0, False)
        return result
    for s in range(3):
        found = regions_of(proposals, targets, (0.5, 0.6, 0.7)[s])
        cls, reg = head(net, region_features(levels, found[0], found[1]), f"roi_head.bbox_head.{s}", 1)
        lc, lr = head_losses(cls, reg, found, targets, STDS[s], 1, True)
        factor = (1, 0.5, 0.25)[s]
        result[f"s{s}.loss_cls"], result[f"s{s}.loss_bbox"] = factor * lc, factor * lr
        refined = decode(found[0], reg.detach(), STDS[s])
        proposals = [refined[(found[1] == n) & ~found[4]] for n in range(len(targets))]
    return result


def detect(net, x, n, o):
    levels = pyramid(net, x)
    boxes = propose(rpn(net, levels), n, TEST)
    image = torch.full((len(boxes),), n)
    if not o["cascade"]:
        cls, reg = head(net, region_features(levels, boxes, image), "roi_head.bbox_head", CLASSES)
        per_class = [decode(boxes, reg.reshape(-1, CLASSES, 4)[:, c], STDS[0]) for c in range(CLASSES)]
    else:
        logits = []
        for s in range(3):
            cls, reg = head(net, region_features(levels, boxes, image), f"roi_head.bbox_head.{s}", 1)
            logits.append(cls)
            boxes = decode(boxes, reg, STDS[s])
        cls, per_class = sum(logits) / 3, [boxes] * CLASSES
    p = torch.softmax(cls, 1)
    b = torch.cat([per_class[c][p[:, c] > 0.05] for c in range(CLASSES)])
    s = torch.cat([p[:, c][p[:, c] > 0.05] for c in range(CLASSES)])
    y = torch.cat([torch.full((int((p[:, c] > 0.05).sum()),), c) for c in range(CLASSES)])
    keep = nms(b + y[:, None] * 1000.0, s, 0.5)[:100]
    return b[keep], s[keep], y[keep]


CASES = {
    "faster-rcnn": dict(cascade=False, border=-1, rpn_beta=0, image="image"),
    "cascade-rcnn": dict(cascade=True, border=0, rpn_beta=1 / 9, image="image"),
}


def trained(o):
    """The pictures, and the network with the gradients of its losses."""
    image = base.noise(hashed, dict(o, height=HEIGHT, width=WIDTH))
    net = base.Net(BACKBONE)
    values = losses(net, image, base.tensors(TARGETS), o)
    sum(values.values()).backward()
    return image, net, values


def record():
    for name, o in CASES.items():
        image, net, values = trained(o)
        with torch.no_grad():
            found = [detect(net, image, n, o) for n in range(3)]
        whole = dict(
            torch=torch.__version__, torchvision=torchvision.__version__, targets=TARGETS, height=HEIGHT, width=WIDTH,
            losses={k: float(v) for k, v in values.items()}, gradients=base.digests(net, hashed),
            detections=[dict(boxes=b[:25].round(decimals=5).tolist(), scores=s[:25].round(decimals=7).tolist(), labels=y[:25].tolist(), count=len(s))
                        for b, s, y in found])
        os.makedirs(OUT, exist_ok=True)
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
            f.write("\n")
        print(name, whole["losses"], [d["count"] for d in whole["detections"]], [d["scores"][:3] for d in whole["detections"]])


if __name__ == "__main__":
    base.main(CASES, record, lambda o: base.digests(trained(o)[1], hashed))
