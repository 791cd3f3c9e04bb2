#!/usr/bin/env python3
"""Records test/golden/dense/*.json: losses, gradients and detections of CenterNet and TOOD in PyTorch.

The heads, assignments and losses are written here in float64 from their description (CenterNet as
updated in CenterNet2 and TOOD, both with mmdetection's choices), independently of the native code.
Weights, images and boxes follow from formulas, see retinanet.py.

  python3 scripts/golden/dense_detectors.py      needs torch and torchvision; the tests need neither
"""
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

from retinanet import STRIDES, TARGETS, Net, digests, formula, main, noise, tensors

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "dense")


def giou_loss(p, t):
    lo, hi = torch.maximum(p[:, :2], t[:, :2]), torch.minimum(p[:, 2:], t[:, 2:])
    inter = (hi - lo).clamp(min=0).prod(1)
    area = lambda b: (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    union = area(p) + area(t) - inter
    hull = (torch.maximum(p[:, 2:], t[:, 2:]) - torch.minimum(p[:, :2], t[:, :2])).prod(1)
    return 1 - inter / (union + 1e-7) + (hull - union) / (hull + 1e-7)


def iou(a, b):  # [A, 4], [B, 4] -> [A, B]
    wh = (torch.minimum(a[:, None, 2:], b[None, :, 2:]) - torch.maximum(a[:, None, :2], b[None, :, :2])).clamp(min=0)
    inter = wh.prod(2)
    area = lambda v: (v[:, 2] - v[:, 0]) * (v[:, 3] - v[:, 1])
    return inter / (area(a)[:, None] + area(b)[None] - inter).clamp(min=1e-6)


def rows(t, n):  # one image of [N, C, H, W] as [H W, C]
    return t[n].permute(1, 2, 0).reshape(-1, t.shape[1])


class Dense(Net):
    def neck(self, x, relu):
        ch = self.o["channels"]
        c = self.backbone(x)[1:]
        inner = [self.conv(v, f"neck.lateral_convs.{i}.conv", v.shape[1], ch, 1, bias=True) for i, v in enumerate(c)]
        for i in (1, 0):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
        p = [self.conv(v, f"neck.fpn_convs.{i}.conv", ch, ch, 3, bias=True) for i, v in enumerate(inner)]
        p.append(self.conv(p[-1], "neck.fpn_convs.3.conv", ch, ch, 3, 2, bias=True))
        p.append(self.conv(F.relu(p[-1]) if relu else p[-1], "neck.fpn_convs.4.conv", ch, ch, 3, 2, bias=True))
        return p

    def gn(self, x, path):
        c = x.shape[1]
        g, b = self.p.get(path + ".weight", (c,)), self.p.get(path + ".bias", (c,))
        return F.relu(F.group_norm(x, math.gcd(32, c), g, b, 1e-5))

    def layer(self, x, path):
        ch = self.o["channels"]
        return self.gn(self.conv(x, path + ".conv", ch, ch, 3), path + ".gn")


class CenterNet(Dense):
    def forward(self, x):
        """Logits, and distances to the sides in strides."""
        o, head = self.o, "bbox_head."
        logits, sides = [], []
        for l, v in enumerate(self.neck(x, True)):
            a = b = v
            for i in range(o["stackedConvs"]):
                a, b = self.layer(a, f"{head}cls_convs.{i}"), self.layer(b, f"{head}reg_convs.{i}")
            logits.append(self.conv(a, head + "conv_cls", o["channels"], o["numClasses"], 3, bias=True))
            reg = self.conv(b, head + "conv_reg", o["channels"], 4, 3, bias=True)
            sides.append((self.p.get(f"{head}scales.{l}.scale", ()) * reg).clamp(min=0))
        return logits, sides

    def decoded(self, out):
        """Per level and image: scores [A, K], boxes [A, 4] in pixels."""
        logits, sides = out
        result = []
        for l, (c, s) in enumerate(zip(logits, sides)):
            h, w = c.shape[2:]
            x = (torch.arange(w).double() + 0.5).repeat(h) * STRIDES[l]
            y = (torch.arange(h).double() + 0.5).repeat_interleave(w) * STRIDES[l]
            point = torch.stack([x, y], 1)
            result.append([(rows(c, n).sigmoid(), torch.cat([point - rows(s, n)[:, :2] * STRIDES[l], point + rows(s, n)[:, 2:] * STRIDES[l]], 1))
                           for n in range(len(c))])
        return result

    def losses(self, x, targets):
        o, k = self.o, self.o["numClasses"]
        out = self.forward(x)
        negative = positive = box_loss = 0.0
        num_cls = num_box = 0
        delta = (1 - 0.8) / (1 + 0.8)
        for n, (boxes, labels) in enumerate(targets):
            cells = []  # per box: (loss, level, cell), over all levels
            g = len(boxes)
            wh = boxes[:, 2:] - boxes[:, :2]
            centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, (wh ** 2).sum(1).sqrt() / 2
            spread = (2 * delta ** 2 * wh.prod(1)).clamp(min=16)
            candidates = [[] for _ in range(g)]
            for l, stride in enumerate(STRIDES):
                logit, side = rows(out[0][l], n), rows(out[1][l], n)
                h, w = out[0][l].shape[2:]
                x_, y_ = torch.arange(w).repeat(h), torch.arange(h).repeat_interleave(w)
                point = (torch.stack([x_, y_], 1).double() + 0.5) * stride
                low, high = ([0] + o["from"])[l], (o["to"] + [1e9])[l]
                heat = torch.zeros(h * w, k)
                best, owner = torch.full((h * w,), math.inf), torch.full((h * w,), -1)
                for j in range(g):
                    at = torch.trunc(centre[j] / stride)
                    peak = (x_ == at[0]) & (y_ == at[1])
                    d = ((point - centre[j]) ** 2).sum(1) / spread[j]
                    d = torch.where(peak, torch.zeros_like(d), d)
                    value = torch.exp(-d)
                    heat[:, labels[j]] = torch.maximum(heat[:, labels[j]], torch.where(value < 1e-4, torch.zeros_like(value), value))
                    near = ((x_ - at[0]).abs() <= 1) & ((y_ - at[1]).abs() <= 1)
                    lt, rb = point - boxes[j, :2], boxes[j, 2:] - point
                    fits = bool(half[j] >= low) and bool(half[j] <= high)
                    inside = torch.cat([lt, rb], 1).min(1)[0]
                    mine = near & (inside > 0) & (d < best) if fits else torch.zeros_like(near)
                    best, owner = torch.where(mine, d, best), torch.where(mine, torch.full_like(owner, j), owner)
                    with torch.no_grad():
                        want = torch.cat([-lt, rb], 1) / stride
                        loss = giou_loss(torch.cat([-side[:, :2], side[:, 2:]], 1), want)
                        if fits:
                            loss[peak] = 0
                        candidates[j] += [(float(loss[i]), l, int(i)) for i in torch.nonzero(near & (inside >= 0))[:, 0]]
                p = logit.sigmoid().clamp(1e-4, 1 - 1e-4)
                negative = negative - ((1 - p).log() * p ** 2 * (1 - heat) ** 4).sum()
                pos = owner >= 0
                if pos.any():
                    b = boxes[owner[pos]]
                    want = torch.cat([b[:, :2] - point[pos], b[:, 2:] - point[pos]], 1) / stride
                    got = torch.cat([-side[pos][:, :2], side[pos][:, 2:]], 1)
                    box_loss = box_loss + giou_loss(got, want).sum()
                    num_box += int(pos.sum())
            for j, list_ in enumerate(candidates):
                order = sorted(c[0] for c in list_)
                limit = min(order[8] if len(order) > 8 else math.inf, o["moreLoss"])
                for loss, l, i in list_:
                    if loss < limit:
                        p = rows(out[0][l], n)[i, labels[j]].sigmoid().clamp(1e-4, 1 - 1e-4)
                        positive = positive - p.log() * (1 - p) ** 2
                        num_cls += 1
        print("   positives", num_cls, num_box)
        return (0.25 * positive + 0.75 * negative) / max(num_cls, 1), 2 * box_loss / max(num_box, 1), out


class Tood(Dense):
    def decomposition(self, feature, average, path):
        o = self.o
        c, s = o["channels"], o["stackedConvs"]
        a = F.relu(self.conv(average, path + ".layer_attention.0", c * s, c // 8, 1, bias=True))
        a = self.conv(a, path + ".layer_attention.2", c // 8, s, 1, bias=True).sigmoid()
        weighted = feature * a.repeat_interleave(c, 1)
        return self.gn(self.conv(weighted, path + ".reduction_conv.conv", c * s, c, 1), path + ".reduction_conv.gn")

    def forward(self, x):
        """Probabilities, and boxes in strides, [N, 4, H, W]."""
        o, head = self.o, "bbox_head."
        c, all_ = o["channels"], o["channels"] * o["stackedConvs"]
        scores, boxes = [], []
        for l, v in enumerate(self.neck(x, False)):
            maps = []
            for i in range(o["stackedConvs"]):
                v = self.layer(v, f"{head}inter_convs.{i}")
                maps.append(v)
            f = torch.cat(maps, 1)
            average = f.mean((2, 3), keepdim=True)
            two = lambda name, out: self.conv(F.relu(self.conv(f, f"{head}{name}.0", all_, c // 4, 1, bias=True)), f"{head}{name}.2", c // 4, out, 3, bias=True)
            logit = self.conv(self.decomposition(f, average, head + "cls_decomp"), head + "tood_cls", c, o["numClasses"], 3, bias=True)
            scores.append((logit.sigmoid() * two("cls_prob_module", 1).sigmoid()).sqrt())
            reg = self.conv(self.decomposition(f, average, head + "reg_decomp"), head + "tood_reg", c, 4, 3, bias=True)
            d = self.p.get(f"{head}scales.{l}.scale", ()) * reg.exp()
            h, w = d.shape[2:]
            x_, y_ = torch.arange(w).double().expand(h, w), torch.arange(h).double()[:, None].expand(h, w)
            box = torch.stack([x_ - d[:, 0], y_ - d[:, 1], x_ + d[:, 2], y_ + d[:, 3]], 1)
            moved = torchvision.ops.deform_conv2d(box, two("reg_offset_module", 8), torch.ones(4, 1, 1, 1))
            wrong = (moved[:, 0] > moved[:, 2]) | (moved[:, 1] > moved[:, 3])
            boxes.append(torch.where(wrong[:, None], box, moved))
        return scores, boxes

    def decoded(self, out):
        return [[(rows(s, n), rows(b, n) * STRIDES[l]) for n in range(len(s))] for l, (s, b) in enumerate(zip(*out))]

    def anchors(self, out):
        per = []
        for l, s in enumerate(out[0]):
            h, w = s.shape[2:]
            x_, y_ = torch.arange(w).double().repeat(h) * STRIDES[l], torch.arange(h).double().repeat_interleave(w) * STRIDES[l]
            half = STRIDES[l] * 8 / 2
            per.append(torch.stack([x_ - half, y_ - half, x_ + half, y_ + half], 1))
        return per

    def atss(self, anchors, boxes):
        """Per anchor its box, or -1."""
        all_ = torch.cat(anchors)
        point = (all_[:, :2] + all_[:, 2:]) / 2
        overlap = iou(all_, boxes)
        owner, best = torch.full((len(all_),), -1), torch.full((len(all_),), -1.0)
        for j, b in enumerate(boxes):
            chosen, first = [], 0
            for level in anchors:
                d = (point[first:first + len(level)] - (b[:2] + b[2:]) / 2).pow(2).sum(1)
                chosen.append(first + torch.argsort(d, stable=True)[:9])
                first += len(level)
            chosen = torch.cat(chosen)
            v = overlap[chosen, j]
            for i in chosen[v >= v.mean() + v.std()]:
                inside = torch.cat([point[i] - b[:2], b[2:] - point[i]]).min() > 0.01
                if inside and overlap[i, j] > best[i]:
                    owner[i], best[i] = j, overlap[i, j]
        return owner

    def aligned(self, anchors, scores, predicted, boxes, labels):
        all_ = torch.cat(anchors)
        point = (all_[:, :2] + all_[:, 2:]) / 2
        overlap = iou(predicted, boxes)
        t = scores[:, labels] * overlap ** 6
        owner, best = torch.full((len(all_),), -1), torch.zeros(len(all_))
        for j, b in enumerate(boxes):
            for i in torch.argsort(t[:, j], descending=True, stable=True)[:13]:
                inside = torch.cat([point[i] - b[:2], b[2:] - point[i]]).min() > 0.01
                if inside and t[i, j] > 0 and overlap[i, j] > best[i]:
                    owner[i], best[i] = j, overlap[i, j]
        quality = torch.zeros(len(all_))
        for j in range(len(boxes)):
            own = owner == j
            if own.any():
                quality[own] = t[own, j] / (t[own, j].max() + 1e-7) * overlap[own, j].max()
        return owner, quality

    def losses(self, x, targets):
        k = self.o["numClasses"]
        out = self.forward(x)
        anchors = self.anchors(out)
        all_ = torch.cat(anchors)
        stride = torch.cat([torch.full((len(a),), float(s)) for a, s in zip(anchors, STRIDES)])
        cls = reg = cls_sum = box_sum = 0.0
        for n, (boxes, labels) in enumerate(targets):
            p = torch.cat([rows(s, n) for s in out[0]])
            box = torch.cat([rows(b, n) for b in out[1]])
            if self.o["aligned"]:
                with torch.no_grad():
                    owner, quality = self.aligned(anchors, p, box * stride[:, None], boxes, labels)
            else:
                owner = self.atss(anchors, boxes) if len(boxes) else torch.full((len(all_),), -1)
            pos = owner >= 0
            target = torch.zeros_like(p)
            if self.o["aligned"]:
                target[pos, labels[owner[pos]]] = quality[pos]
                weight = (target - p).abs() ** 2
                cls_sum += float(quality.sum())
            else:
                target[pos, labels[owner[pos]]] = 1
                pt = torch.where(target > 0, 1 - p, p)
                weight = torch.where(target > 0, 0.25, 0.75) * pt ** 2
                cls_sum += int(pos.sum())
            cls = cls + (weight * F.binary_cross_entropy(p, target, reduction="none")).sum()
            if pos.any():
                b = boxes[owner[pos]]
                if self.o["aligned"]:
                    w = quality[pos]
                else:
                    c = (all_[pos, :2] + all_[pos, 2:]) / 2
                    lt, rb = c - b[:, :2], b[:, 2:] - c
                    w = (torch.minimum(lt, rb) / torch.maximum(lt, rb)).prod(1).sqrt()
                reg = reg + (w * giou_loss(box[pos], b / stride[pos, None])).sum()
                box_sum += float(w.sum())
        print("   sums", cls_sum, box_sum)
        return cls / max(cls_sum, 1), 2 * reg / max(box_sum, 1), out


def detect(levels, n, k, h, w):
    boxes, scores, labels = [], [], []
    for images in levels:
        s, b = images[n]
        s = s.reshape(-1)
        keep = torch.nonzero(s > 0.05)[:, 0]
        order = keep[torch.argsort(s[keep], descending=True, stable=True)][:1000]
        b = b[order // k]
        b = torch.stack([b[:, 0].clamp(0, w), b[:, 1].clamp(0, h), b[:, 2].clamp(0, w), b[:, 3].clamp(0, h)], 1)
        ok = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
        boxes.append(b[ok]), scores.append(s[order][ok]), labels.append((order % k)[ok])
    b, s, y = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    keep = torchvision.ops.nms(b + y[:, None] * (b.max() + 1), s, 0.6)
    return b[keep], s[keep], y[keep]


SMALL = dict(depth=18, style="pytorch", norm="gn", frozenStages=-1, baseWidth=8, channels=16, numClasses=3, height=96, width=128, image="image")
CASES = {
    "centernet": dict(SMALL, stackedConvs=2, moreLoss=1.4, **{"from": [20, 30, 60, 120], "to": [25, 35, 70, 140]}),
    "tood-warm-up": dict(SMALL, stackedConvs=3, aligned=False),
    "tood-aligned": dict(SMALL, stackedConvs=3, aligned=True, image="image 4"),
}


def trained(o):
    """With the gradients of its losses, which follow it, and what it predicted."""
    net = (Tood if "aligned" in o else CenterNet)(o)
    lc, lr, out = net.losses(noise(formula, o), tensors(TARGETS))
    (lc + lr).backward()
    return net, lc, lr, out


def record():
    for name, o in CASES.items():
        net, lc, lr, out = trained(o)
        h, w = o["height"], o["width"]
        with torch.no_grad():
            found = [detect(net.decoded(out), n, o["numClasses"], h, w) for n in range(3)]
        whole = dict(torch=torch.__version__, torchvision=torchvision.__version__, options=o, targets=TARGETS,
                     loss_cls=float(lc), loss_bbox=float(lr), gradients=digests(net, formula),
                     detections=[dict(boxes=[[round(v, 5) for v in b] for b in b_[:20].tolist()], scores=[round(v, 7) for v in s_[:20].tolist()],
                                      labels=y_[:20].tolist(), count=min(len(s_), 100)) for b_, s_, y_ in found])
        os.makedirs(OUT, exist_ok=True)
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
        print(name, float(lc), float(lr), [len(s_) for _, s_, _ in found], len(net.p.values))


if __name__ == "__main__":
    main(CASES, record, lambda o: digests(trained(o)[0], formula))
