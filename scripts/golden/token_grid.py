"""Records what torch gives for the tokens of a pyramid: masks resized by nearest neighbours, shares of
picture, sine encodings, references, proposals, and encodings of boxes with their gradient; written from
the definitions that mmdetection's transformers use (SinePositionalEncoding with normalize,
gen_encoder_output_proposals, get_valid_ratio, coordinate_to_encoding, get_proposal_pos_embed).

Only for recording: neither the product nor its tests need Python.

    /usr/bin/python3 scripts/golden/token_grid.py      # writes test/golden/detect/token-grid.json
"""

import json
import math
import os

import torch
import torch.nn.functional as F

SEED = 20240718
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "detect", "token-grid.json")


def wavelengths(count, temperature):
    k = torch.arange(count, dtype=torch.float32)
    return temperature ** (2 * torch.div(k, 2, rounding_mode="floor") / count)


def waves(values, count, temperature):
    """[...] -> [..., count]: sines at even places, cosines at odd ones."""
    angles = values[..., None] / wavelengths(count, temperature)
    return torch.stack((angles[..., 0::2].sin(), angles[..., 1::2].cos()), -1).flatten(-2)


def padding(case):
    height, width = case["padded"]
    mask = torch.ones(len(case["sizes"]), 1, height, width)
    for image, (h, w) in enumerate(case["sizes"]):
        mask[image, :, :h, :w] = 0
    return [F.interpolate(mask, size=tuple(m), mode="nearest")[:, 0].bool() for m in case["maps"]]


def positions(masks, channels, temperature, offset):
    out = []
    for mask in masks:
        half = []
        for axis in (1, 2):
            count = (~mask).cumsum(axis, dtype=torch.float32)
            last = count.select(axis, count.shape[axis] - 1).unsqueeze(axis)
            place = (count + offset) / (last + 1e-6) * (2 * math.pi)
            half.append(waves(place, channels // 2, temperature))
        out.append(torch.cat(half, -1).flatten(1, 2))
    return torch.cat(out, 1)


def shares(masks):
    """[N, L, 2] (x, y)."""
    return torch.stack(
        [
            torch.stack(
                ((~m[:, 0, :]).sum(1).float() / m.shape[2], (~m[:, :, 0]).sum(1).float() / m.shape[1]), -1
            )
            for m in masks
        ],
        1,
    )


def cells(mask):
    """Centres [H, W] of x and y, in cells."""
    h, w = mask.shape[1:]
    y, x = torch.meshgrid(torch.linspace(0.5, h - 0.5, h), torch.linspace(0.5, w - 0.5, w), indexing="ij")
    return x, y


def references(masks, ratios):
    out = []
    for level, mask in enumerate(masks):
        h, w = mask.shape[1:]
        x, y = cells(mask)
        rx, ry = ratios[:, level, 0, None, None], ratios[:, level, 1, None, None]
        out.append(torch.stack((x / (rx * w), y / (ry * h)), -1).flatten(1, 2))
    return torch.cat(out, 1)


def proposals(masks):
    logits, none = [], []
    for level, mask in enumerate(masks):
        x, y = cells(mask)
        columns = (~mask[:, 0, :]).sum(1).float()[:, None, None]
        rows = (~mask[:, :, 0]).sum(1).float()[:, None, None]
        side = torch.full_like(x / columns, 0.05 * 2.0**level)
        box = torch.stack((x / columns, y / rows, side, side), -1)
        inner = ((box > 0.01) & (box < 0.99)).all(-1)
        logits.append(torch.log(box / (1 - box)).flatten(1, 2))
        none.append((mask | ~inner).flatten(1))
    logits, none = torch.cat(logits, 1), torch.cat(none, 1)
    return logits.masked_fill(none[..., None], 0.0), none


def encoding(boxes, each, order):
    numbers = [1, 0, 2, 3][: boxes.shape[-1]] if order == "yxwh" else range(boxes.shape[-1])
    return torch.cat([waves(boxes[..., i] * (2 * math.pi), each, 10000) for i in numbers], -1)


def numbers(t):
    if t.dtype == torch.bool:
        return [int(v) for v in t.flatten().tolist()]
    return [float(f"{v:.9g}") for v in t.flatten().tolist()]


GRIDS = [
    {
        "padded": [60, 84],
        "sizes": [[60, 84], [33, 70]],
        "maps": [[8, 11], [4, 6], [2, 3], [1, 2]],
        "channels": 8,
        "temperature": 10000,
        "offset": -0.5,
    },
    {
        "padded": [96, 64],
        "sizes": [[96, 40], [50, 64], [8, 9]],
        "maps": [[6, 4], [3, 2]],
        "channels": 12,
        "temperature": 20,
        "offset": 0,
    },
]


def main():
    torch.manual_seed(SEED)
    grids = []
    for case in GRIDS:
        masks = padding(case)
        ratios = shares(masks)
        logits, none = proposals(masks)
        grids.append({
            **case,
            "mask": numbers(torch.cat([m.flatten(1) for m in masks], 1)),
            "ratios": numbers(ratios),
            "positions": numbers(positions(masks, case["channels"], case["temperature"], case["offset"])),
            "references": numbers(references(masks, ratios)),
            "logits": numbers(logits),  # 0 where none
            "none": numbers(none),
        })
    encodings = []
    for order, width, each in (("yxwh", 4, 6), ("xywh", 4, 16), ("yxwh", 2, 8)):
        boxes = torch.rand(2, 3, width).requires_grad_()
        out = encoding(boxes, each, order)
        dout = torch.randn_like(out)
        out.backward(dout)
        encodings.append({
            "order": order,
            "each": each,
            "shape": list(boxes.shape),
            "boxes": numbers(boxes.detach()),
            "output": numbers(out.detach()),
            "dout": numbers(dout),
            "gradient": numbers(boxes.grad),
        })
    record = {
        "recordedBy": "scripts/golden/token_grid.py",
        "torch": torch.__version__,
        "seed": SEED,
        "grids": grids,
        "encodings": encodings,
    }
    with open(OUT, "w") as file:
        json.dump(record, file)
        file.write("\n")


if __name__ == "__main__":
    main()
