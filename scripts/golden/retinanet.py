#!/usr/bin/env python3
"""Records test/golden/retinanet/*.json: losses, gradients and detections of RetinaNet in PyTorch.

The network is written here in float64 from its description (ResNet, FPN, RetinaNet head, max-IoU
assignment, focal and L1 loss as in mmdetection), independently of the native code. Weights, images and
boxes follow from formulas, so that the files stay small.

  python3 scripts/golden/retinanet.py                  needs torch and torchvision; the tests need neither
  python3 scripts/golden/retinanet.py look [NAME...]   for images that rounding changes little, see main()
"""
import json
import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

torch.set_default_dtype(torch.float64)
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "retinanet")


def name_hash(name):
    h = 7
    for c in name.encode():
        h = (h * 31 + c) % 65521
    return h


def formula(name, count):
    """Numbers in (-1, 1) that look random: the same formula stands in the test."""
    i = np.arange(count, dtype=np.float64)
    return np.sin((i + 1) * 12.9898 + name_hash(name) * 0.618) * np.cos((i + 1) * 0.7321 + name_hash(name))


def hashed(name, count):
    """The same from integers: no matrix of them is of low rank, as one of products of waves is."""
    x = np.arange(count, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(name_hash(name) * 40503)
    for _ in range(2):
        x = (x ^ (x >> np.uint32(16))) * np.uint32(0x45D9F3B)
    return (x ^ (x >> np.uint32(16))) / 2.0**31 - 1


def fill(name, shape):
    """OIHW values from the formula in OHWI order, rounded to f32."""
    count = int(np.prod(shape))
    v = formula(name, count)
    if name.endswith("running_var"):
        v = 1 + 0.5 * v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif len(shape) == 1 and name.endswith("weight"):
        v = 1 + 0.2 * v
    elif name.endswith(("_cls.bias", "cls_prob_module.2.bias")):
        v = -2.0 + 0.3 * v
    elif len(shape) == 0:
        v = 1 + 0.2 * v
    elif len(shape) == 1:
        v = 0.1 * v
    else:
        fan_in = shape[1] * shape[2] * shape[3]
        v = v * math.sqrt(6.0 / fan_in)
    v = v.astype(np.float32).astype(np.float64)
    if len(shape) == 4:
        k, c, r, s = shape
        v = v.reshape(k, r, s, c).transpose(0, 3, 1, 2)
    return torch.tensor(np.ascontiguousarray(v)).reshape(shape)


NUDGE = 0


def nudged(name, values):
    """Moved by a few last places of f32, other ones for each NUDGE; by none for 0."""
    return values * (1 + 2.0**-21 * hashed(f"{name} {NUDGE}", values.size).reshape(values.shape)) if NUDGE else values


class Store:
    def __init__(self):
        self.values, self.trained = {}, {}

    def get(self, name, shape, trained=True):
        if name not in self.values:
            t = torch.from_numpy(np.asarray(nudged(name, fill(name, shape).numpy())))
            if trained:
                t.requires_grad_(True)
            self.values[name], self.trained[name] = t, trained
        return self.values[name]


def unsteadiness(gradients, draws=8):
    """How far gradients() of nudged weights, {name: [norm, probe]}, are away from themselves, as a share of their
    norms (of 1e-4 where these are less). A ReLU that a nudge switches, as rounding may, makes that 100 times as much."""
    global NUDGE
    want, worst = gradients(), 0.0
    try:
        for NUDGE in range(1, draws + 1):
            got = gradients()
            assert all(np.isfinite(got[name]).all() for name in got), "not finite"
            worst = max(worst, *(abs(g - w) / max(want[name][0], 1e-4) for name in want for g, w in zip(got[name], want[name])))
    finally:
        NUDGE = 0
    return worst


class Net:
    def __init__(self, o):
        self.o, self.p = o, Store()

    def conv(self, x, path, cin, cout, k, stride=1, bias=False, trained=True):
        w = self.p.get(path + ".weight", (cout, cin, k, k), trained)
        b = self.p.get(path + ".bias", (cout,), trained) if bias else None
        return F.conv2d(x, w, b, stride, k // 2)

    def norm(self, x, path, c, trained):
        kind = self.o["norm"]
        affine = trained and kind != "frozen-bn"
        g, b = self.p.get(path + ".weight", (c,), affine), self.p.get(path + ".bias", (c,), affine)
        if kind == "gn":
            return F.group_norm(x, math.gcd(32, c), g, b, 1e-5)
        m, v = self.p.get(path + ".running_mean", (c,), False), self.p.get(path + ".running_var", (c,), False)
        return F.batch_norm(x, m, v, g, b, False, 0.0, 1e-5)

    def backbone(self, x):
        o = self.o
        n = "gn" if o["norm"] == "gn" else "bn"
        bw = o["baseWidth"]
        trained = o["frozenStages"] < 0
        x = F.relu(self.norm(self.conv(x, "backbone.conv1", 3, bw, 7, 2, trained=trained), f"backbone.{n}1", bw, trained))
        x = F.max_pool2d(x, 3, 2, 1)
        cin, outs = bw, []
        for stage, blocks in enumerate({18: [2, 2, 2, 2], 50: [3, 4, 6, 3]}[o["depth"]]):
            trained = o["frozenStages"] <= stage
            w = bw << stage
            cout = 4 * w if o["depth"] >= 50 else w
            for i in range(blocks):
                at = f"backbone.layer{stage + 1}.{i}"
                s = 2 if i == 0 and stage > 0 else 1
                skip = x
                if o["depth"] >= 50:
                    s1, s2 = (s, 1) if o["style"] == "caffe" else (1, s)
                    plan = [(1, cin, w, s1), (3, w, w, s2), (1, w, cout, 1)]
                else:
                    plan = [(3, cin, w, s), (3, w, w, 1)]
                y = x
                for j, (k, a, b, st) in enumerate(plan):
                    y = self.norm(self.conv(y, f"{at}.conv{j + 1}", a, b, k, st, trained=trained), f"{at}.{n}{j + 1}", b, trained)
                    if j < len(plan) - 1:
                        y = F.relu(y)
                if i == 0 and (s != 1 or cin != cout):
                    skip = self.norm(self.conv(x, f"{at}.downsample.0", cin, cout, 1, s, trained=trained), f"{at}.downsample.1", cout, trained)
                x = F.relu(y + skip)
                cin = cout
            outs.append(x)
        return outs

    def forward(self, x):
        o = self.o
        c = self.backbone(x)[1:]
        ch = o["channels"]
        inner = [self.conv(v, f"neck.lateral_convs.{i}.conv", v.shape[1], ch, 1, bias=True) for i, v in enumerate(c)]
        for i in (1, 0):
            inner[i] = inner[i] + F.interpolate(inner[i + 1], size=inner[i].shape[-2:], mode="nearest")
        p = [self.conv(v, f"neck.fpn_convs.{i}.conv", ch, ch, 3, bias=True) for i, v in enumerate(inner)]
        p.append(self.conv(c[-1], "neck.fpn_convs.3.conv", c[-1].shape[1], ch, 3, 2, bias=True))
        p.append(self.conv(p[-1], "neck.fpn_convs.4.conv", ch, ch, 3, 2, bias=True))
        cls, reg = [], []
        for v in p:
            a = b = v
            for i in range(o["stackedConvs"]):
                a = F.relu(self.conv(a, f"bbox_head.cls_convs.{i}.conv", ch, ch, 3, bias=True))
                b = F.relu(self.conv(b, f"bbox_head.reg_convs.{i}.conv", ch, ch, 3, bias=True))
            cls.append(self.conv(a, "bbox_head.retina_cls", ch, 9 * o["numClasses"], 3, bias=True))
            reg.append(self.conv(b, "bbox_head.retina_reg", ch, 36, 3, bias=True))
        return cls, reg


STRIDES = [8, 16, 32, 64, 128]


def anchors(level, h, w):
    base = []
    for r in (0.5, 1.0, 2.0):
        for i in range(3):
            size = STRIDES[level] * 4 * 2 ** (i / 3)
            base.append((size / math.sqrt(r), size * math.sqrt(r)))
    out = [(x * STRIDES[level] - bw / 2, y * STRIDES[level] - bh / 2, x * STRIDES[level] + bw / 2, y * STRIDES[level] + bh / 2)
           for y in range(h) for x in range(w) for bw, bh in base]
    return torch.tensor(out)


def assign(a, boxes):
    if len(boxes) == 0:
        return torch.full((len(a),), -1, dtype=torch.long)
    # In f32, as every implementation does it: which anchors tie a box's best IoU depends on it.
    p, q = boxes.float()[:, None], a.float()[None]
    wh = (torch.minimum(p[..., 2:], q[..., 2:]) - torch.maximum(p[..., :2], q[..., :2])).clamp(min=0)
    inter = wh[..., 0] * wh[..., 1]
    area = lambda b: (b[..., 2] - b[..., 0]) * (b[..., 3] - b[..., 1])
    iou = inter / (area(p) + area(q) - inter).clamp(min=1e-6)
    best, arg = iou.max(0)
    out = torch.full((len(a),), -2, dtype=torch.long)
    out[best < 0.4] = -1
    out[best >= 0.5] = arg[best >= 0.5]
    for g in range(len(boxes)):
        out[iou[g] == iou[g].max()] = g
    return out


def losses(net, x, targets):
    cls, reg = net.forward(x)
    k = net.o["numClasses"]
    total_cls = total_reg = 0.0
    norm = 0
    for n, (boxes, labels) in enumerate(targets):
        a = torch.cat([anchors(l, v.shape[2], v.shape[3]) for l, v in enumerate(cls)])
        logit = torch.cat([v[n].permute(1, 2, 0).reshape(-1, k) for v in cls])
        delta = torch.cat([v[n].permute(1, 2, 0).reshape(-1, 4) for v in reg])
        owner = assign(a, boxes)
        y = torch.zeros_like(logit)
        pos = owner >= 0
        y[pos, labels[owner[pos]]] = 1
        p = torch.sigmoid(logit)
        pt = torch.where(y > 0, p, 1 - p)
        alpha = torch.where(y > 0, 0.25, 0.75)
        loss = alpha * (1 - pt) ** 2 * F.binary_cross_entropy_with_logits(logit, y, reduction="none")
        total_cls = total_cls + loss[owner != -2].sum()
        if pos.any():
            b, q = boxes[owner[pos]], a[pos]
            aw, ah = q[:, 2] - q[:, 0], q[:, 3] - q[:, 1]
            t = torch.stack([((b[:, 0] + b[:, 2]) - (q[:, 0] + q[:, 2])) / 2 / aw, ((b[:, 1] + b[:, 3]) - (q[:, 1] + q[:, 3])) / 2 / ah,
                             torch.log((b[:, 2] - b[:, 0]) / aw), torch.log((b[:, 3] - b[:, 1]) / ah)], 1)
            total_reg = total_reg + (delta[pos] - t).abs().sum()
        norm += max(int(pos.sum()), 1)
    return total_cls / norm, total_reg / norm + 0 * total_cls, cls, reg


def detect(cls, reg, n, k, h, w):
    boxes, scores, labels = [], [], []
    for l, (c, r) in enumerate(zip(cls, reg)):
        a = anchors(l, c.shape[2], c.shape[3])
        s = torch.sigmoid(c[n].permute(1, 2, 0).reshape(-1))
        d = r[n].permute(1, 2, 0).reshape(-1, 4)
        keep = torch.nonzero(s > 0.05)[:, 0]
        order = keep[torch.argsort(s[keep], descending=True, stable=True)][:1000]
        i = order // k
        q, e = a[i], d[i]
        aw, ah = q[:, 2] - q[:, 0], q[:, 3] - q[:, 1]
        lim = abs(math.log(16 / 1000))
        cx, cy = (q[:, 0] + q[:, 2]) / 2 + e[:, 0] * aw, (q[:, 1] + q[:, 3]) / 2 + e[:, 1] * ah
        bw, bh = aw * e[:, 2].clamp(-lim, lim).exp(), ah * e[:, 3].clamp(-lim, lim).exp()
        b = torch.stack([(cx - bw / 2).clamp(0, w), (cy - bh / 2).clamp(0, h), (cx + bw / 2).clamp(0, w), (cy + bh / 2).clamp(0, h)], 1)
        ok = (b[:, 2] > b[:, 0]) & (b[:, 3] > b[:, 1])
        boxes.append(b[ok]), scores.append(s[order][ok]), labels.append((order % k)[ok])
    b, s, y = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    keep = torchvision.ops.nms(b + y[:, None] * (b.max() + 1), s, 0.5)[:100]
    return b[keep], s[keep], y[keep]


def noise(numbers, o):
    """Three pictures, no part of them padded, of the numbers that o["image"] stands for."""
    h, w = o["height"], o["width"]
    pixels = numbers(o["image"], 3 * h * w * 3).astype(np.float32).astype(np.float64)
    return torch.tensor(pixels).reshape(3, h, w, 3).permute(0, 3, 1, 2)


def tensors(targets):
    return [(torch.tensor(b).double().reshape(-1, 4), torch.tensor(l, dtype=torch.long)) for b, l in targets]


def digests(net, numbers):
    """Of each trained parameter: the gradient's norm, and its inner product (in OHWI order) with its name's numbers."""
    result = {}
    for key, t in net.p.values.items():
        if net.p.trained[key]:
            g = t.grad if t.grad is not None else torch.zeros_like(t)
            flat = (g.permute(0, 2, 3, 1) if g.dim() == 4 else g).reshape(-1)
            result[key] = [float(flat.norm()), float((flat * torch.tensor(numbers(key + "#", flat.numel()))).sum())]
    return result


CASES = {
    "r18-gn": dict(depth=18, style="pytorch", norm="gn", frozenStages=-1, baseWidth=8, channels=16, stackedConvs=1, numClasses=3, height=96, width=128, image="image"),
    "r50-caffe-frozen": dict(depth=50, style="caffe", norm="frozen-bn", frozenStages=1, baseWidth=8, channels=16, stackedConvs=2, numClasses=4, height=128, width=96, image="image 3"),
    "r50-pytorch-eval": dict(depth=50, style="pytorch", norm="bn-eval", frozenStages=0, baseWidth=8, channels=16, stackedConvs=1, numClasses=2, height=97, width=131, image="image"),
}
TARGETS = [([[10, 12, 60, 70], [40, 30, 90, 88], [70, 5, 86, 20]], [0, 1, 1]), ([], []), ([[3, 4, 44, 39]], [1])]


def trained(o):
    """With the gradients of its losses, which follow it, and what it predicted."""
    net = Net(o)
    lc, lr, cls, reg = losses(net, noise(formula, o), tensors(TARGETS))
    (lc + lr).backward()
    return net, lc, lr, cls, reg


def record():
    for name, o in CASES.items():
        net, lc, lr, cls, reg = trained(o)
        h, w = o["height"], o["width"]
        with torch.no_grad():
            found = [dict(boxes=[[round(v, 5) for v in b] for b in b_.tolist()], scores=[round(v, 7) for v in s_.tolist()], labels=y_.tolist())
                     for b_, s_, y_ in (detect(cls, reg, n, o["numClasses"], h, w) for n in range(3))]
        whole = dict(torch=torch.__version__, torchvision=torchvision.__version__, options=o, targets=TARGETS,
                      loss_cls=float(lc), loss_bbox=float(lr), gradients=digests(net, formula),
                      detections=[dict(boxes=f["boxes"][:20], scores=f["scores"][:20], labels=f["labels"][:20], count=len(f["scores"])) for f in found])
        os.makedirs(OUT, exist_ok=True)
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
        print(name, float(lc), float(lr), [len(f["scores"]) for f in found], len(net.p.values))


def main(cases, record, gradients, limit=3e-4):
    """`look [NAME...]`: for images, "image 0" on, whose gradients, gradients(o), are steady. Networks may refuse one by
    an assertion."""
    if sys.argv[1:2] != ["look"]:
        return record()
    for name in sys.argv[2:] or cases:
        for i in range(1000):
            o = dict(cases[name], image=f"image {i}")
            try:
                worst = unsteadiness(lambda: gradients(o))
            except AssertionError:
                continue
            print(name, o["image"], worst, flush=True)
            if worst < limit:
                break


if __name__ == "__main__":
    main(CASES, record, lambda o: digests(trained(o)[0], formula))
