#!/usr/bin/env python3
"""Records test/golden/swin/*.json: losses, gradients and detections of RetinaNet over small Swin
Transformers in PyTorch, in float64.

The backbone is written here from its description, step by step as mmdetection does
it (padded, rolled, cut into windows, masked by regions, merged by unfolding), independently of the native
code; the detector is retinanet.py's. Weights, images and boxes follow from formulas, so that the files
stay small. Before anything is recorded the backbone is compared with torchvision's swin_t, all of it.

  python3 scripts/golden/swin.py      needs torch and torchvision; the tests need neither
"""
import json
import math
import os

import numpy as np
import torch
import torch.nn.functional as F
import torchvision

import retinanet as base
from retinanet import hashed

torch.set_default_dtype(torch.float64)
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "swin")


def fill(name, shape):
    """In our layout, OHWI, rounded to f32. The same stands in the test."""
    count = int(np.prod(shape))
    v = hashed(name, count)
    if len(shape) == 1:
        v = 1 + 0.2 * v if name.endswith("weight") else -2 + 0.3 * v if name.endswith("_cls.bias") else 0.1 * v
    elif not name.endswith("table"):  # tables keep (-1, 1)
        v = v * math.sqrt(6 * shape[0] / count) * (0.5 if len(shape) == 2 else 0.2 if "retina_" in name else 1)
    v = torch.tensor(v.astype(np.float32).astype(np.float64))
    if len(shape) == 4:
        k, c, r, s = shape
        return v.reshape(k, r, s, c).permute(0, 3, 1, 2).contiguous()
    return v.reshape(shape)


base.fill = fill


def pad_to(x, multiple):
    """[N, H, W, C] with zeros below and to the right."""
    return F.pad(x, (0, 0, 0, -x.shape[2] % multiple, 0, -x.shape[1] % multiple))


def cut(x, w):
    n, h, width, c = x.shape
    return x.view(n, h // w, w, width // w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, c)


def join(windows, w, n, h, width):
    return windows.view(n, h // w, width // w, w, w, -1).permute(0, 1, 3, 2, 4, 5).reshape(n, h, width, -1)


def position_index(w):
    y, x = torch.meshgrid(torch.arange(w), torch.arange(w), indexing="ij")
    y, x = y.reshape(-1), x.reshape(-1)
    return (y[:, None] - y[None] + w - 1) * (2 * w - 1) + x[:, None] - x[None] + w - 1


def merging_order(channels):
    """Of the 4 C numbers of a merged cell: mmdetection's has the channel first, ours the cell."""
    return torch.arange(4 * channels).view(4, channels).t().reshape(-1)


class Swin:
    """Parameters come from `get(name, shape)`, those of patch merging in our order."""

    def __init__(self, get, embed, depths, heads, window, outputs=(0, 1, 2, 3)):
        self.get, self.embed, self.depths, self.heads, self.window, self.outputs = get, embed, depths, heads, window, outputs

    def norm(self, x, path):
        c = x.shape[-1]
        return F.layer_norm(x, (c,), self.get(path + ".weight", (c,)), self.get(path + ".bias", (c,)), 1e-5)

    def linear(self, x, path, out):
        return F.linear(x, self.get(path + ".weight", (out, x.shape[-1])), self.get(path + ".bias", (out,)))

    def attention(self, x, path, heads, shift):
        n, h, width, c = x.shape
        w = self.window
        x = pad_to(x, w)
        rows, columns = x.shape[1:3]
        mask = 0
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
            regions = torch.zeros(1, rows, columns, 1)
            parts = (slice(0, -w), slice(-w, -shift), slice(-shift, None))
            for i, a in enumerate(parts):
                for j, b in enumerate(parts):
                    regions[:, a, b] = 3 * i + j
            regions = cut(regions, w)[..., 0]
            mask = (regions[:, :, None] != regions[:, None]) * -100.0
            mask = mask.repeat(n, 1, 1)[:, None]
        windows = cut(x, w)
        q, k, v = self.linear(windows, path + ".qkv", 3 * c).view(-1, w * w, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        table = self.get(path + ".relative_position_bias_table", ((2 * w - 1) ** 2, heads))
        scores = q @ k.transpose(-1, -2) * (c // heads) ** -0.5 + table[position_index(w)].permute(2, 0, 1) + mask
        seen = (scores.softmax(-1) @ v).transpose(1, 2).reshape(-1, w * w, c)
        x = join(self.linear(seen, path + ".proj", c), w, n, rows, columns)
        if shift:
            x = torch.roll(x, (shift, shift), (1, 2))
        return x[:, :h, :width]

    def merge(self, x, path):
        x = pad_to(x, 2)
        n, h, width, c = x.shape
        cells = F.unfold(x.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2).view(n, h // 2, width // 2, 4 * c)
        order = merging_order(c)
        gamma, beta = (self.get(f"{path}.norm.{k}", (4 * c,))[order] for k in ("weight", "bias"))
        reduction = self.get(path + ".reduction.weight", (2 * c, 4 * c))[:, order]
        return F.linear(F.layer_norm(cells, (4 * c,), gamma, beta, 1e-5), reduction)

    def __call__(self, images):
        """[N, 3, H, W] -> maps [N, C, H, W], None for those that are no outputs."""
        x = F.pad(images, (0, -images.shape[3] % 4, 0, -images.shape[2] % 4))
        path = "patch_embed.projection"
        x = F.conv2d(x, self.get(path + ".weight", (self.embed, 3, 4, 4)), self.get(path + ".bias", (self.embed,)), 4)
        x = self.norm(x.permute(0, 2, 3, 1), "patch_embed.norm")
        maps = []
        for s, depth in enumerate(self.depths):
            for b in range(depth):
                at = f"stages.{s}.blocks.{b}"
                shift = self.window // 2 if b % 2 else 0
                x = x + self.attention(self.norm(x, at + ".norm1"), at + ".attn.w_msa", self.heads[s], shift)
                y = F.gelu(self.linear(self.norm(x, at + ".norm2"), at + ".ffn.layers.0.0", 4 * x.shape[-1]))
                x = x + self.linear(y, at + ".ffn.layers.1", x.shape[-1])
            maps.append(self.norm(x, f"norm{s}").permute(0, 3, 1, 2) if s in self.outputs else None)
            if s < 3:
                x = self.merge(x, f"stages.{s}.downsample")
        return maps


def check_torchvision():
    """All of swin_t with random weights, at a size whose maps are larger than a window and need padding."""
    torch.manual_seed(1)
    model = torchvision.models.swin_t().eval().double()
    for name, p in model.named_parameters():
        torch.nn.init.normal_(p, 1.0 if p.dim() == 1 and "norm" in name else 0.0, 0.3 if p.dim() == 1 else 0.05)
    state = model.state_dict()

    def get(name, shape):
        if name == "norm3.weight" or name == "norm3.bias":
            return state[name.replace("norm3", "norm")]
        own = name.replace("patch_embed.projection", "features.0.0").replace("patch_embed.norm", "features.0.2")
        parts = own.split(".")
        if parts[0] == "stages":
            stage = 2 * int(parts[1]) + 1
            own = ".".join([f"features.{stage + 1}"] + parts[3:] if parts[2] == "downsample" else [f"features.{stage}"] + parts[3:])
        for a, b in (("attn.w_msa", "attn"), ("ffn.layers.0.0", "mlp.0"), ("ffn.layers.1", "mlp.3")):
            own = own.replace(a, b)
        value = state[own]
        if "downsample" in name:  # cells (0, 0), (1, 0), (0, 1), (1, 1) of the official order
            c = value.shape[-1] // 4
            value = value.view(*value.shape[:-1], 4, c)[..., [0, 2, 1, 3], :].reshape(value.shape)
        assert tuple(value.shape) == shape, (name, value.shape, shape)
        return value

    x = torch.randn(2, 3, 453, 512)
    with torch.no_grad():
        want = model.norm(model.features(F.pad(x, (0, 0, 0, 3)))).permute(0, 3, 1, 2)
        got = Swin(get, 96, (2, 2, 6, 2), (3, 6, 12, 24), 7, (3,))(x)[3]
    error = float((got - want).abs().max())
    print(f"torchvision {torchvision.__version__} swin_t, {tuple(want.shape)}: largest difference {error:.1e}")
    assert error < 1e-10


class Net(base.Net):
    def backbone(self, x):
        o = self.o

        def get(name, shape):
            stage = name.split(".")[1] if name.startswith("stages") else name[4] if name.startswith("norm") else -1
            return self.p.get("backbone." + name, shape, o["frozenStages"] <= int(stage))

        # RetinaNet takes C3 … C5.
        return Swin(get, o["embed"], o["depths"], o["heads"], o["window"], (1, 2, 3))(x)


CASES = {
    "window-7": dict(embed=24, depths=(2, 2, 2, 2), heads=(2, 3, 6, 12), window=7, frozenStages=-1, channels=16, stackedConvs=1, numClasses=3, height=97, width=131, image="image"),
    "window-4": dict(embed=16, depths=(1, 2, 3, 2), heads=(1, 2, 4, 8), window=4, frozenStages=1, channels=16, stackedConvs=1, numClasses=2, height=96, width=128, image="image"),
}


def trained(o):
    """With the gradients of its losses, which follow it, and what it predicted."""
    net = Net(o)
    lc, lr, cls, reg = base.losses(net, base.noise(base.formula, o), base.tensors(base.TARGETS))
    (lc + lr).backward()
    return net, lc, lr, cls, reg


def record():
    check_torchvision()
    for name, o in CASES.items():
        net, lc, lr, cls, reg = trained(o)
        h, w = o["height"], o["width"]
        with torch.no_grad():
            found = [base.detect(cls, reg, n, o["numClasses"], h, w) for n in range(3)]
        whole = dict(torch=torch.__version__, torchvision=torchvision.__version__, options=o, targets=base.TARGETS,
                     loss_cls=float(lc), loss_bbox=float(lr), gradients=base.digests(net, hashed),
                     detections=[dict(boxes=[[round(v, 5) for v in b] for b in boxes[:20].tolist()], scores=[round(v, 7) for v in scores[:20].tolist()],
                                      labels=labels[:20].tolist(), count=len(scores)) for boxes, scores, labels in found])
        os.makedirs(OUT, exist_ok=True)
        with open(os.path.join(OUT, name + ".json"), "w") as f:
            json.dump(whole, f)
        print(name, float(lc), float(lr), [len(f[1]) for f in found], len(net.p.values))


if __name__ == "__main__":
    base.main(CASES, record, lambda o: base.digests(trained(o)[0], hashed))
