#!/usr/bin/env python3
"""Checks the networks of detr_network.py by themselves, so that what detr.py records can be trusted.

  python3 scripts/golden/detr_checks.py      needs torch, torchvision and scipy; takes a quarter of a minute
"""
import math
import re

import torch

import detr
import detr_network as network
from detr_network import EMBED, HEADS, LEVELS, POINTS, QUERIES, Detr, Grid

# Of DAB-DETR.
WITHOUT_SLOPE = re.compile(r"\.k(content|pos)_proj\.bias$|decoder\.layers\.0\.self_attn\.([qk]\w+_proj|v_proj\.weight$)")
PADDED = {k: o for k, o in detr.CASES.items() if (o["height"], o["width"]) != o["sizes"][1] and k != "dino"}


def largest(a, b):
    return float((a - b).abs().max())


def random(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def prepared(o):
    """A network, its tokens and their grid."""
    net = detr.network(o)
    image, targets = detr.inputs(o)
    maps = net.neck(image)
    grid = Grid([tuple(v.shape[2:]) for v in maps], image.shape[2:], o["sizes"])
    return net, torch.cat([v.flatten(2).transpose(1, 2) for v in maps], 1), grid, targets


def outputs(net, tokens, grid, o, targets=None):
    layers, encoder, noisy = net.transformer(tokens, grid, o["sizes"], targets)
    return torch.stack([torch.cat(l, -1) for l in layers]), encoder, noisy


def alone(tokens, grid, n):
    """An image's tokens without its padding."""
    parts, maps, first = [], [], 0
    for l, (h, w) in enumerate(grid.maps):
        rows, columns = int(grid.rows[n, l]), int(grid.columns[n, l])
        parts.append(tokens[n : n + 1, first : first + h * w].view(1, h, w, -1)[:, :rows, :columns].flatten(1, 2))
        maps.append((rows, columns))
        first += h * w
    # Of one level: the mask of a picture that fills it.
    return torch.cat(parts, 1), Grid(maps, (512, 512), [(512, 512)])


@torch.no_grad()
def padding_is_not_seen():
    for name, o in PADDED.items():
        net, tokens, grid, _ = prepared(o)
        assert grid.padding.any()
        whole, encoder, _ = outputs(net, tokens, grid, o)
        noisy = torch.where(grid.padding[..., None], 10 * random(0, *tokens.shape), tokens)
        other = outputs(net, noisy, grid, o)[0]
        print(f"{name}: other padding", largest(whole, other))
        assert largest(whole, other) < 1e-10
        for n, size in enumerate(o["sizes"]):
            cut, small = alone(tokens, grid, n)
            own, box_waves = dict(o, sizes=[size]), network.box_waves
            if net.dino:  # it encodes boxes in shares of the padded first level, as mmdetection does
                ratio = torch.cat([grid.ratios[n, 0]] * 2)
                network.box_waves = lambda boxes, order: box_waves(boxes * ratio, order)
            single = outputs(net, cut, small, own)[0]
            network.box_waves = box_waves
            print(f"{name}: image {n} alone", largest(whole[:, n], single[:, 0]))
            assert largest(whole[:, n], single[:, 0]) < 1e-9


@torch.no_grad()
def queries_may_stand_in_any_order():
    order = torch.randperm(QUERIES, generator=torch.Generator().manual_seed(1))
    for name in ("plain", "refined"):
        net, tokens, grid, _ = prepared(detr.CASES[name])
        before = outputs(net, tokens, grid, detr.CASES[name])[0]
        net.p.values["query_embedding.weight"] = net.p.values["query_embedding.weight"][order]
        after = outputs(net, tokens, grid, detr.CASES[name])[0]
        print(f"{name}: other order", largest(before[:, :, order], after))
        assert largest(before[:, :, order], after) < 1e-10 < largest(before, after)


@torch.no_grad()
def noisy_queries_are_apart():
    o = detr.CASES["dino-denoising"]
    net, tokens, grid, targets = prepared(o)
    plain = outputs(net, tokens, grid, o)[0]
    both, _, noisy = outputs(net, tokens, grid, o, targets)
    size = noisy["size"]
    assert (noisy["groups"], size) == (2, 6)
    assert noisy["hidden"].sum() == QUERIES * 2 * size + 2 * size * size
    print("matching queries without noisy ones", largest(plain, both[:, :, 2 * size :]))
    assert largest(plain, both[:, :, 2 * size :]) < 1e-10
    real_denoising = network.denoising

    def other(*args):
        d = real_denoising(*args)
        d["references"][:, :size] = torch.tensor([0.3, 0.6, 0.2, 0.4])
        return d

    network.denoising = other
    changed = outputs(net, tokens, grid, o, targets)[0]
    network.denoising = real_denoising
    print("a group when another changes", largest(both[:, :, size:], changed[:, :, size:]))
    assert largest(both[:, :, size:], changed[:, :, size:]) < 1e-10 < largest(both, changed)


@torch.no_grad()
def attention_is_torchs():
    net, x, place = Detr(dict(kind="plain")), random(2, 2, 7, EMBED), random(3, 2, 7, EMBED)
    hidden = random(4, 7, 7) > 1
    hidden.fill_diagonal_(False)
    got = net.attention(x, place, hidden, "a")
    other = torch.nn.MultiheadAttention(EMBED, HEADS, batch_first=True)
    other.load_state_dict({k[2:]: v for k, v in net.p.values.items()})
    want = other.train()(x + place, x + place, x, attn_mask=hidden)[0]
    print("self-attention", largest(got, want))
    assert largest(got, want) < 1e-12


@torch.no_grad()
def sampling_is_bilinear():
    """Deformable attention against loops over heads, levels and points."""
    o = detr.CASES["plain"]
    for numbers in (2, 4):
        net, tokens, grid, _ = prepared(o)
        query = random(5, 2, 3, EMBED)
        references = random(6, 2, 3, 1, numbers).sigmoid() * torch.cat([grid.ratios] * (numbers // 2), -1)[:, None]
        got = net.sampled(query, tokens, references, grid, "s")
        p = {k[2:]: v for k, v in net.p.values.items()}
        apply = lambda v, name: v @ p[name + ".weight"].T + p[name + ".bias"]
        value = apply(tokens, "value_proj") * ~grid.padding[..., None]
        offsets, logits = apply(query, "sampling_offsets"), apply(query, "attention_weights")
        d = EMBED // HEADS
        want = torch.zeros(2, 3, EMBED)
        for n in range(2):
            for q in range(3):
                for m in range(HEADS):
                    weights = logits[n, q, m * LEVELS * POINTS : (m + 1) * LEVELS * POINTS].softmax(0)
                    first = 0
                    for l, (h, w) in enumerate(grid.maps):
                        for k in range(POINTS):
                            i = (m * LEVELS + l) * POINTS + k
                            r = references[n, q, l]
                            dx, dy = offsets[n, q, 2 * i : 2 * i + 2]
                            x, y = (r[0] * w + dx, r[1] * h + dy) if numbers == 2 else (
                                (r[0] + dx / POINTS * r[2] / 2) * w, (r[1] + dy / POINTS * r[3] / 2) * h)
                            x, y = float(x) - 0.5, float(y) - 0.5
                            for row in (math.floor(y), math.floor(y) + 1):
                                for column in (math.floor(x), math.floor(x) + 1):
                                    if 0 <= row < h and 0 <= column < w:
                                        share = (1 - abs(y - row)) * (1 - abs(x - column)) * weights[l * POINTS + k]
                                        want[n, q, m * d : (m + 1) * d] += share * value[n, first + row * w + column, m * d : (m + 1) * d]
                        first += h * w
        want = apply(want, "output_proj")
        print(f"deformable attention, references of {numbers}", largest(got, want))
        assert largest(got, want) < 1e-12


def gradients_are_slopes():
    """Of the network that detaches nothing: central differences along a random direction."""
    o = detr.CASES["plain"]
    net, _, _, _ = detr.run(o)
    image, targets = detr.inputs(o)
    total = lambda: float(sum(detr.losses(net, net.forward(image, o["sizes"], targets), targets, o["sizes"]).values()))
    for group in ("backbone", "neck", "level_embed", "encoder", "query_embedding", "reference_points", "decoder", "bbox_head"):
        own = {k: v for k, v in net.p.values.items() if k.startswith(group)}
        way = {k: random(i, *v.shape) for i, (k, v) in enumerate(own.items())}
        slope, step = sum(float((way[k] * v.grad).sum()) for k, v in own.items()), 1e-9
        with torch.no_grad():
            ends = []
            for sign in (1, -2):
                for k, v in own.items():
                    v += sign * step * way[k]
                ends.append(total())
            for k, v in own.items():
                v += step * way[k]
        found = (ends[0] - ends[1]) / (2 * step)
        steepest = math.sqrt(sum(float((v.grad**2).sum()) for v in own.values()))
        print(f"slope over {group}", slope, found - slope, "of", steepest)
        assert abs(found - slope) < 1e-5 * steepest


def detection_error(found, other):
    """Of the best 20: how far in pixels the same one is elsewhere. Rounding may change their places."""
    worst = 0
    for box, score, label in list(zip(*found))[:20]:
        same = (other[2] == label) & ((other[1] - score).abs() < 1e-4)
        worst = max(worst, float((other[0] - box).abs().max(1)[0][same].min()))
    return worst


def f32_is_near():
    """What the tests ask of a network in f32 can be had."""
    for name, o in detr.CASES.items():
        net, _, values, found = detr.run(o)
        digests = detr.digests(net)
        assert all(math.isfinite(v) for d in digests.values() for v in d)
        still = [k for k, (norm, _) in digests.items() if norm < 1e-12]
        if o["kind"] == "dab":
            # A bias of keys moves all scores of a query alike; queries without content all see the same values.
            assert sorted(still) == sorted(k for k in digests if WITHOUT_SLOPE.search(k)), still
        else:
            assert still == (["dn_query_generator.label_embedding.weight"] if name == "dino" else []), still
        torch.set_default_dtype(torch.float32)
        net, _, values32, found32 = detr.run(o)
        digests32 = detr.digests(net)
        torch.set_default_dtype(torch.float64)
        loss = max(abs(float(values32[k]) / float(v) - 1) for k, v in values.items())
        worst = max((max(abs(a - b) for a, b in zip(digests[k], digests32[k])) / (digests[k][0] + 1e-4), k) for k in digests if k not in still)
        seen = max(detection_error(*pair) for pair in zip(found, found32))
        print(f"{name} in f32: losses {loss:.1e}, gradients {worst[0]:.1e} of their norm ({worst[1]}), boxes {seen:.1e} pixels")
        assert loss < 5e-5 and worst[0] < 5e-4 and seen < 5e-5 * o["width"]


attention_is_torchs()
sampling_is_bilinear()
padding_is_not_seen()
queries_may_stand_in_any_order()
noisy_queries_are_apart()
gradients_are_slopes()
f32_is_near()
