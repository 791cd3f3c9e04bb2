"""Deformable DETR and DINO (4 scales) with mmdetection's choices, small, in float64: see detr.py.

Written from the descriptions of DETR, Deformable DETR and DINO, independently of the native code;
deformable attention samples with torch's grid_sample. There is no dropout, and no noise in DINO's
denoising queries, so that nothing is left to chance.

Compared with mmdetection 3.1.0 itself, which was given the same weights and features of the backbone: the
names of parameters and losses are its own, losses agree within 2e-7, gradients within 4e-6 of their norm
(its positions are f32).
"""
import math

import numpy as np
import torch
import torch.nn.functional as F

import retinanet as base
from retinanet import hashed

torch.set_default_dtype(torch.float64)
EMBED, HEADS, POINTS, LEVELS, FFN, CLASSES, QUERIES = 64, 4, 4, 4, 96, 5, 20
ENCODERS, DECODERS = 2, 3
BACKBONE = dict(depth=18, style="pytorch", norm="gn", frozenStages=-1, baseWidth=8)


def fill(name, shape):
    """In our layout, OHWI, rounded to f32. The same stands in the test."""
    v = hashed(name, int(np.prod(shape)))
    if len(shape) == 1:
        if name.endswith("layers.0.1.weight"):
            v = 0.25 + 0.1 * v  # of a PReLU
        elif name.endswith("weight"):
            v = 1 + 0.2 * v
        elif name.endswith("sampling_offsets.bias"):
            v = 2 * v  # pixels
        elif "cls_branches" in name or "fc_cls" in name:
            v = 0.5 * v - 1.5  # scores away from 0 and 1
        elif name == "memory_trans_fc.bias":
            v = 0.001 * v  # all that tokens without a proposal have: they should not be the best
        else:
            v = 0.1 * v
    elif "embed" in name:  # tables keep (-1, 1), those of boxes get wider
        v = 2 * v if shape[-1] == 4 else v
    else:
        v = v * math.sqrt(6 * shape[0] / np.prod(shape))
        if not any(k in name for k in ("reg_branches", "reference_points_fc", "fc_reg")) and len(shape) == 2:
            v = 0.5 * v
        if name == f"bbox_head.reg_branches.{DECODERS}.4.weight":
            v = 2 * v  # references beyond 1e-3 and 1 - 1e-3
    v = real(v.astype(np.float32))
    if len(shape) == 4:
        k, c, r, s = shape
        return v.reshape(k, r, s, c).permute(0, 3, 1, 2).contiguous()
    return v.reshape(shape)


base.fill = fill


def real(x):
    return torch.as_tensor(x).to(torch.get_default_dtype())


def inverse_sigmoid(x, eps=1e-5):
    x = x.clamp(0, 1)
    return (x.clamp(min=eps) / (1 - x).clamp(min=eps)).log()


def waves(x, each, temperature=10000):
    """[..., K] -> [..., K, each]: sines at even places, cosines at odd ones."""
    k = torch.arange(each)
    angle = x[..., None] / real(temperature) ** (2 * (k // 2) / each)
    return torch.where(k % 2 == 0, angle.sin(), angle.cos())


def box_waves(boxes, order):
    """Of (cx, cy, w, h), in another order, EMBED / 2 channels each."""
    return waves(boxes[..., order] * 2 * math.pi, EMBED // 2).flatten(-2)


def corners(b):  # (cx, cy, w, h) -> (x1, y1, x2, y2)
    return torch.cat([b[..., :2] - b[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2], -1)


def centers(b):
    return torch.cat([(b[..., :2] + b[..., 2:]) / 2, b[..., 2:] - b[..., :2]], -1)


def giou(a, b, eps):
    hull = (torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1).clamp(min=eps)
    inter = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0).prod(-1)
    area = lambda v: (v[..., 2] - v[..., 0]) * (v[..., 3] - v[..., 1])
    union = (area(a) + area(b) - inter).clamp(min=eps)
    return inter / union - (hull - union) / hull


class Grid:
    """Tokens of all levels of a batch: which are picture, where they lie, what they propose."""

    def __init__(self, maps, padded, sizes):
        pixels = torch.ones(len(sizes), *padded)
        for n, (h, w) in enumerate(sizes):
            pixels[n, :h, :w] = 0
        self.maps = maps
        masks = [F.interpolate(pixels[None], size=m)[0].bool() for m in maps]
        self.padding = torch.cat([m.flatten(1) for m in masks], 1)
        self.rows = real(torch.stack([(~m[:, :, 0]).sum(1) for m in masks], 1))  # [N, L]
        self.columns = real(torch.stack([(~m[:, 0]).sum(1) for m in masks], 1))
        full = real(maps)
        self.ratios = torch.stack([self.columns / full[:, 1], self.rows / full[:, 0]], 2)  # [N, L, (x, y)]

    def places(self):
        """1-based row and column of every token, and how many its level has of them: [N, S]."""
        y, x, rows, columns = [], [], [], []
        for l, (h, w) in enumerate(self.maps):
            y.append(torch.arange(1, h + 1).repeat_interleave(w)), x.append(torch.arange(1, w + 1).repeat(h))
            rows.append(self.rows[:, l : l + 1].expand(-1, h * w)), columns.append(self.columns[:, l : l + 1].expand(-1, h * w))
        return torch.cat(y)[None], torch.cat(x)[None], torch.cat(rows, 1), torch.cat(columns, 1)

    def positions(self, temperature, offset):
        y, x, rows, columns = self.places()
        # Behind the last valid cell the count stands still; what is there, nobody reads.
        count = lambda place, last: (torch.minimum(real(place), last) + offset) / (last + 1e-6) * 2 * math.pi
        return torch.cat([waves(count(y, rows), EMBED // 2, temperature), waves(count(x, columns), EMBED // 2, temperature)], -1)

    def references(self):
        y, x, rows, columns = self.places()
        return torch.stack([(x - 0.5) / columns, (y - 0.5) / rows], -1)

    def proposals(self):
        """Logits of boxes, +inf where a token proposes nothing; which tokens those are."""
        side = torch.cat([torch.full((h * w,), 0.05 * 2**l) for l, (h, w) in enumerate(self.maps)])
        p = torch.cat([self.references(), side[None, :, None].expand(len(self.rows), -1, 2)], -1)
        silent = self.padding | ~((p > 0.01) & (p < 0.99)).all(-1)
        return (p / (1 - p)).log().masked_fill(silent[..., None], math.inf), silent


class Detr(base.Net):
    focal_eps = 1e-12  # of the cost of a match

    def __init__(self, o):
        super().__init__(dict(BACKBONE, **o))
        self.dino = o["kind"] == "dino"
        self.refine = o["kind"] != "plain"
        self.two_stage = o["kind"] in ("two-stage", "dino")
        self.focal_weight = 1 if o["kind"] in ("dino", "dab") else 2

    def linear(self, x, path, cout):
        return F.linear(x, self.p.get(path + ".weight", (cout, x.shape[-1])), self.p.get(path + ".bias", (cout,)))

    def layer_norm(self, x, path):
        c = x.shape[-1:]
        return F.layer_norm(x, c, self.p.get(path + ".weight", c), self.p.get(path + ".bias", c), 1e-5)

    def neck(self, image):
        def mapped(x, path, k, stride):
            x = self.conv(x, path + ".conv", x.shape[1], EMBED, k, stride)
            g, b = self.p.get(path + ".gn.weight", (EMBED,)), self.p.get(path + ".gn.bias", (EMBED,))
            return F.group_norm(x, 32, g, b, 1e-5)

        c = self.backbone(image)[1:]
        maps = [mapped(v, f"neck.convs.{i}", 1, 1) for i, v in enumerate(c)]
        return maps + [mapped(c[-1], "neck.extra_convs.0", 3, 2)]

    def sampled(self, query, memory, references, grid, path):
        """Deformable attention, without its residual. References [N, Q, L, 2 | 4], shares of the padded maps."""
        n, q = query.shape[:2]
        value = self.linear(memory, path + ".value_proj", EMBED).masked_fill(grid.padding[..., None], 0)
        offsets = self.linear(query, path + ".sampling_offsets", HEADS * LEVELS * POINTS * 2).view(n, q, HEADS, LEVELS, POINTS, 2)
        weights = self.linear(query, path + ".attention_weights", HEADS * LEVELS * POINTS).view(n, q, HEADS, -1).softmax(-1)
        r = references[:, :, None, :, None]
        if r.shape[-1] == 2:
            at = r + offsets / real([[w, h] for h, w in grid.maps])[:, None]
        else:
            at = r[..., :2] + offsets / POINTS * r[..., 2:] * 0.5
        out, first = 0, 0
        for l, (h, w) in enumerate(grid.maps):
            v = value[:, first : first + h * w].view(n, h, w, HEADS, -1).permute(0, 3, 4, 1, 2).flatten(0, 1)
            found = F.grid_sample(v, 2 * at[:, :, :, l].transpose(1, 2).flatten(0, 1) - 1, align_corners=False)  # [N M, D, Q, P]
            share = weights.view(n, q, HEADS, LEVELS, POINTS)[:, :, :, l].transpose(1, 2).flatten(0, 1)
            out = out + (found * share[:, None]).sum(-1)
            first += h * w
        out = out.view(n, HEADS, -1, q).permute(0, 3, 1, 2).flatten(2)
        return self.linear(out, path + ".output_proj", EMBED)

    def attention(self, x, place, hidden, path):
        """Self-attention, without its residual: places count in queries and keys, not in values."""
        w, b = self.p.get(path + ".in_proj_weight", (3 * EMBED, EMBED)), self.p.get(path + ".in_proj_bias", (3 * EMBED,))
        split = lambda v, i: F.linear(v, w[i * EMBED : (i + 1) * EMBED], b[i * EMBED : (i + 1) * EMBED]).unflatten(-1, (HEADS, -1)).transpose(1, 2)
        q, k, v = split(x + place, 0), split(x + place, 1), split(x, 2)
        score = q @ k.transpose(-1, -2) / math.sqrt(EMBED // HEADS)
        if hidden is not None:
            score = score.masked_fill(hidden, -math.inf)
        return self.linear((score.softmax(-1) @ v).transpose(1, 2).flatten(2), path + ".out_proj", EMBED)

    def ffn(self, x, path):
        return self.linear(F.relu(self.linear(x, path + ".layers.0.0", FFN)), path + ".layers.1", EMBED)

    def cls(self, i, x):
        return self.linear(x, f"bbox_head.cls_branches.{i if self.refine else 0}", CLASSES)

    def reg(self, i, x):
        path = f"bbox_head.reg_branches.{i if self.refine else 0}"
        x = F.relu(self.linear(F.relu(self.linear(x, path + ".0", EMBED)), path + ".2", EMBED))
        return self.linear(x, path + ".4", 4)

    def encode(self, x, grid):
        place = grid.positions(20, 0) if self.dino else grid.positions(10000, -0.5)
        level = self.p.get("level_embed", (LEVELS, EMBED))
        place = place + torch.cat([level[l].expand(h * w, -1) for l, (h, w) in enumerate(grid.maps)])
        references = grid.references()[:, :, None] * grid.ratios[:, None]
        for i in range(ENCODERS):
            at = f"encoder.layers.{i}"
            x = self.layer_norm(x + self.sampled(x + place, x, references, grid, at + ".self_attn"), at + ".norms.0")
            x = self.layer_norm(x + self.ffn(x, at + ".ffn"), at + ".norms.1")
        return x

    def proposed(self, memory, grid):
        """The encoder's own logits and box logits, and the QUERIES best tokens of each image."""
        boxes, silent = grid.proposals()
        x = self.linear(memory.masked_fill(silent[..., None], 0), "memory_trans_fc", EMBED)
        x = self.layer_norm(x, "memory_trans_norm")
        logits, boxes = self.cls(DECODERS, x), self.reg(DECODERS, x) + boxes
        score = logits.max(-1)[0] if self.dino else logits[..., 0]
        order = score.argsort(dim=1, descending=True, stable=True)[:, : QUERIES + 1]
        # Rounding must not turn their order, nor let tokens in that propose nothing: all those are equal.
        assert -score.gather(1, order).diff(dim=1).max() > 1e-3, "tokens tie"
        return logits, boxes, order[:, :QUERIES]

    def decode(self, x, place, references, memory, grid, hidden=None):
        """Per layer the state and the references that its heads start from."""
        states, starts = [], [references]
        ratios = torch.cat([grid.ratios, grid.ratios], -1)[:, None, :, : references.shape[-1]]
        for i in range(DECODERS):
            at = f"decoder.layers.{i}"
            scaled = references[:, :, None] * ratios
            if self.dino:
                place = box_waves(scaled[:, :, 0], [1, 0, 2, 3])
                place = F.relu(self.linear(place, "decoder.ref_point_head.layers.0", EMBED))
                place = self.linear(place, "decoder.ref_point_head.layers.1", EMBED)
            x = self.layer_norm(x + self.attention(x, place, hidden, at + ".self_attn.attn"), at + ".norms.0")
            x = self.layer_norm(x + self.sampled(x + place, memory, scaled, grid, at + ".cross_attn"), at + ".norms.1")
            x = self.layer_norm(x + self.ffn(x, at + ".ffn"), at + ".norms.2")
            states.append(self.layer_norm(x, "decoder.norm") if self.dino else x)
            moved = references
            if self.refine:
                moved = self.moved(self.reg(i, x), references, 1e-3 if self.dino else 1e-5)
                references = moved.detach()
            # DINO looks forward twice: the next layer's loss reaches this layer's box branch.
            starts.append(moved if self.dino else references)
            ratios = torch.cat([grid.ratios, grid.ratios], -1)[:, None, :, : references.shape[-1]]
        return states, starts

    def moved(self, deltas, references, eps):
        start = inverse_sigmoid(references, eps)
        return (deltas + F.pad(start, (0, 4 - start.shape[-1]))).sigmoid()

    def forward(self, image, sizes, targets=None):
        """Of every decoder layer logits and boxes; the encoder's; how many of the queries are noisy ones."""
        maps = self.neck(image)
        grid = Grid([v.shape[2:] for v in maps], image.shape[2:], sizes)
        return self.transformer(torch.cat([v.flatten(2).transpose(1, 2) for v in maps], 1), grid, sizes, targets)

    def transformer(self, tokens, grid, sizes, targets=None):
        n, encoder, noisy, hidden = len(tokens), None, None, None
        memory = self.encode(tokens, grid)
        if self.two_stage:
            logits, boxes, best = self.proposed(memory, grid)
            chosen = boxes.gather(1, best[..., None].expand(-1, -1, 4))
            start = chosen.detach().sigmoid()
            if self.dino:  # its encoder learns from what it chose, Deformable DETR's from all tokens
                encoder = logits.gather(1, best[..., None].expand(-1, -1, CLASSES)), chosen.sigmoid()
                place, x = None, self.p.get("query_embedding.weight", (QUERIES, EMBED)).expand(n, -1, -1)
                labels = self.p.get("dn_query_generator.label_embedding.weight", (CLASSES, EMBED))
                if targets is not None and self.o["denoising"]:
                    noisy = denoising(targets, sizes, self.o["denoising"])
                    used = noisy["labels"] >= 0
                    x = torch.cat([labels[noisy["labels"].clamp(min=0)] * used[..., None], x], 1)
                    start = torch.cat([noisy["references"], start], 1)
                    hidden = noisy["hidden"]
            else:
                encoder = logits, boxes.sigmoid()
                embedded = self.linear(box_waves(start, [0, 1, 2, 3]), "pos_trans_fc", 2 * EMBED)
                place, x = self.layer_norm(embedded, "pos_trans_norm").split(EMBED, -1)
        else:
            place, x = self.p.get("query_embedding.weight", (QUERIES, 2 * EMBED)).expand(n, -1, -1).split(EMBED, -1)
            start = self.linear(place, "reference_points_fc", 2).sigmoid()
        states, starts = self.decode(x, place, start, memory, grid, hidden)
        layers = [(self.cls(i, s), self.moved(self.reg(i, s), r, 1e-5)) for i, (s, r) in enumerate(zip(states, starts))]
        return layers, encoder, noisy


def denoising(targets, sizes, queries):
    """DINO's denoising queries where both noises are 0: positives and negatives are the objects themselves."""
    most = max(len(b) for b, _ in targets)
    groups = max(1, queries // most)
    n, size = len(targets), 2 * most
    labels, owner = torch.full((n, groups, size), -1), torch.full((n, groups, size), -1)
    references = torch.full((n, groups, size, 4), 0.5)
    for i, (boxes, classes) in enumerate(targets):
        g, (h, w) = len(boxes), sizes[i]
        own = inverse_sigmoid(centers(boxes / real([w, h, w, h])), 1e-3).sigmoid()
        for half in (0, most):
            labels[i, :, half : half + g], references[i, :, half : half + g] = classes, own
        owner[i, :, :g] = torch.arange(g)
    count = groups * size
    group = torch.cat([torch.arange(groups).repeat_interleave(size), torch.full((QUERIES,), -1)])
    hidden = (group[:, None] != group[None]) & (group[None] >= 0)  # [query, key]: every one sees the matching ones
    return dict(groups=groups, size=size, labels=labels.view(n, count), references=references.view(n, count, 4), owner=owner.view(n, count), hidden=hidden)
