"""Records golden values of the norm and loss ops from PyTorch and torchvision.

    /usr/bin/python3 scripts/golden/ops.py            # writes test/golden/ops/*.json

Versions and seeds are inside the files; the product and its tests need no Python. Activations are
recorded channels last, as mixpl keeps them.
"""

import json
import pathlib

import torch
import torch.nn.functional as F
import torchvision
from torchvision import ops

OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "ops"
SEED = 20231122


def array(t):
    t = t.detach()
    integer = t.dtype in (torch.int32, torch.int64)
    values = [int(v) if integer else float(f"{v:.9g}") for v in t.reshape(-1).tolist()]
    return {"shape": list(t.shape), "dtype": "i32" if integer else "f32", "data": values}


def last(t):  # NCHW -> NHWC
    return t.permute(0, 2, 3, 1).contiguous()


def write(name, source, cases, by="scripts/golden/ops.py"):
    record = {
        "recordedBy": by,
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "source": source,
        "seed": SEED,
        "cases": cases,
    }
    OUT.mkdir(parents=True, exist_ok=True)
    path = OUT / f"{name}.json"
    path.write_text(json.dumps(record, separators=(",", ":")) + "\n")
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def case(name, inputs, options, outputs, gradients, dout=None, training=False, after=None):
    """`after`: inputs that the op overwrites, with their values after the call."""
    return {
        "name": name,
        "options": options,
        "training": training,
        "inputs": {k: array(v) for k, v in inputs.items()},
        **({"dout": array(dout)} if dout is not None else {}),
        "output": array(outputs),
        "gradients": {k: array(v) for k, v in gradients.items()},
        "after": {k: array(v) for k, v in (after or {}).items()},
    }


def focal():
    torch.manual_seed(SEED)
    cases = []
    for classes, options in ((5, {}), (5, {"gamma": 0}), (3, {"gamma": 1, "alpha": 0.5}),
                             (4, {"gamma": 3.5, "alpha": 1}), (1, {})):
        logits = (torch.randn(2, 3, 2, classes) * 4).requires_grad_()
        labels = torch.randint(-1, classes + 1, (2, 3, 2), dtype=torch.int32)
        onehot = torch.zeros(2, 3, 2, classes + 1)
        onehot.scatter_(-1, labels.clamp(min=0).long()[..., None], 1)
        loss = ops.sigmoid_focal_loss(logits, onehot[..., :classes],
                                      alpha=options.get("alpha", 0.25), gamma=options.get("gamma", 2))
        loss = (loss * (labels >= 0)[..., None]).sum()
        loss.backward()
        cases.append(case(f"C={classes} {options}", {"logits": logits, "labels": labels}, options,
                          loss, {"logits": logits.grad}))
    write("focal-loss", "torchvision.ops.sigmoid_focal_loss", cases)


def boxes(n, scale):
    corner = torch.rand(n, 2) * 200
    return torch.cat([corner, corner + torch.rand(n, 2) * scale + 2], 1)


def overlap():
    torch.manual_seed(SEED + 1)
    functions = {"giou": ops.generalized_box_iou_loss, "diou": ops.distance_box_iou_loss,
                 "ciou": ops.complete_box_iou_loss}
    cases = []
    for kind, function in functions.items():
        target = boxes(12, 150)
        pred = target + torch.randn(12, 4) * 8
        pred[:4] = boxes(4, 40)          # mostly apart
        pred[4] = target[4]              # equal: every maximum is a tie
        pred[5, 0] = target[5, 0]        # one shared edge
        pred[6] = target[6] + torch.tensor([-10.0, -10, 10, 10])  # encloses
        pred[:, 2:] = torch.maximum(pred[:, 2:], pred[:, :2] + 1)  # torchvision wants x1 < x2
        pred.requires_grad_()
        weight = torch.rand(12)
        weight[7] = 0
        loss = (function(pred, target) * weight).sum()
        loss.backward()
        cases.append(case(kind, {"pred": pred, "target": target, "weight": weight},
                          {"kind": kind}, loss, {"pred": pred.grad}))
    write("iou-loss", "torchvision.ops.{generalized,distance,complete}_box_iou_loss", cases)


def smooth_l1():
    torch.manual_seed(SEED + 2)
    cases = []
    for beta in (0.0, 1 / 9, 1.0):
        pred = torch.randn(7, 4, requires_grad=True)
        target = torch.randn(7, 4)
        target[0] = pred[0].detach()
        weight = torch.rand(7)
        weight[3] = 0
        # smooth_l1_loss of beta 0 has slope -1 at 0 in torch 1.13; l1_loss has 0, as mixpl.
        each = (F.smooth_l1_loss(pred, target, reduction="none", beta=beta) if beta
                else F.l1_loss(pred, target, reduction="none"))
        loss = (each * weight[:, None]).sum()
        loss.backward()
        cases.append(case(f"beta={beta:.3g}", {"pred": pred, "target": target, "weight": weight},
                          {"beta": beta}, loss, {"pred": pred.grad}))
    write("smooth-l1-loss", "torch.nn.functional.{smooth_l1_loss,l1_loss}", cases)


def norm_inputs(channels, size=(2, 3, 4), offset=0.0):
    x = torch.randn(size[0], channels, *size[1:]) * 2 + offset
    gamma, beta = torch.rand(channels) + 0.5, torch.randn(channels)
    return x, gamma, beta, torch.randn_like(x), torch.randn_like(x)


def group_norm():
    torch.manual_seed(SEED + 3)
    cases = []
    for channels, groups, relu, with_residual, offset in ((8, 4, False, False, 0.0),
                                                          (32, 8, True, False, 3.0),
                                                          (12, 3, True, True, 0.0),
                                                          (6, 6, False, True, 0.0)):
        x, gamma, beta, residual, dout = norm_inputs(channels, offset=offset)
        leaves = [t.requires_grad_() for t in (x, gamma, beta, residual)]
        y = F.group_norm(x, groups, gamma, beta, 1e-5)
        if with_residual:
            y = y + residual
        if relu:
            y = y.relu()
        y.backward(dout)
        inputs = {"x": last(x), "gamma": gamma, "beta": beta}
        gradients = {"x": last(x.grad), "gamma": gamma.grad, "beta": beta.grad}
        if with_residual:
            inputs["residual"] = last(residual)
            gradients["residual"] = last(leaves[3].grad)
        cases.append(case(f"C={channels} groups={groups} relu={relu} residual={with_residual}",
                          inputs, {"groups": groups, "eps": 1e-5, "relu": relu}, last(y), gradients,
                          last(dout)))
    write("group-norm", "torch.nn.functional.group_norm", cases)


def batch_norm():
    torch.manual_seed(SEED + 4)
    cases = []
    for training in (True, False):
        for channels, relu, with_residual in ((5, False, False), (16, True, True), (9, True, False)):
            x, gamma, beta, residual, dout = norm_inputs(channels, offset=1.0)
            for t in (x, gamma, beta, residual):
                t.requires_grad_()
            mean, var = torch.randn(channels), torch.rand(channels) + 0.5
            before = {"runningMean": mean.clone(), "runningVar": var.clone()}
            y = F.batch_norm(x, mean, var, gamma, beta, training, 0.1, 1e-5)
            if with_residual:
                y = y + residual
            if relu:
                y = y.relu()
            y.backward(dout)
            inputs = {"x": last(x), "gamma": gamma, "beta": beta, **before}
            gradients = {"x": last(x.grad), "gamma": gamma.grad, "beta": beta.grad}
            if with_residual:
                inputs["residual"] = last(residual)
                gradients["residual"] = last(residual.grad)
            cases.append(case(f"C={channels} relu={relu} residual={with_residual} training={training}",
                              inputs, {"eps": 1e-5, "momentum": 0.1, "relu": relu}, last(y),
                              gradients, last(dout), training,
                              {"runningMean": mean, "runningVar": var}))
    write("batch-norm", "torch.nn.functional.batch_norm", cases)


def upsample():
    torch.manual_seed(SEED + 5)
    cases = []
    for size, top_size in (((6, 8), (3, 4)), ((7, 5), (4, 3)), ((3, 3), (5, 4)), ((25, 13), (13, 7))):
        lateral = torch.randn(1, 3, *size, requires_grad=True)
        top = torch.randn(1, 3, *top_size, requires_grad=True)
        dout = torch.randn_like(lateral)
        y = lateral + F.interpolate(top, size=size, mode="nearest")
        y.backward(dout)
        cases.append(case(f"{top_size} to {size}", {"lateral": last(lateral), "top": last(top)}, {},
                          last(y), {"lateral": last(lateral.grad), "top": last(top.grad)},
                          last(dout)))
    write("upsample-add", "torch.nn.functional.interpolate, nearest", cases)


def deform_sampling():
    """A deformable 1x1 convolution with one group a channel and unit weights."""
    torch.manual_seed(SEED + 6)
    cases = []
    for size, channels, scale in (((6, 7), 4, 1.0), ((5, 4), 4, 4.0), ((1, 3), 2, 0.7)):
        values = (3 * torch.randn(2, channels, *size)).requires_grad_()
        offsets = (scale * torch.randn(2, 2 * channels, *size)).requires_grad_()
        weight = torch.ones(channels, 1, 1, 1)
        y = ops.deform_conv2d(values, offsets, weight)
        dout = torch.randn_like(y)
        y.backward(dout)
        cases.append(case(f"{channels} channels of {size}, offsets of {scale}",
                          {"values": last(values), "offsets": last(offsets)}, {}, last(y),
                          {"values": last(values.grad), "offsets": last(offsets.grad)},
                          last(dout)))
    write("deform-sampling", "torchvision.ops.deform_conv2d, 1x1, one group a channel", cases)


def deformable_attention():
    """mmcv's multi_scale_deformable_attn_pytorch: grid_sample level by level."""
    torch.manual_seed(SEED + 31)
    cases = []
    for maps, heads, depth, points, sides in (
            (((5, 6), (3, 3)), 2, 8, 4, 2), (((4, 3),), 1, 4, 2, 4), (((2, 5), (1, 2), (1, 1)), 2, 3, 3, 4)):
        images, queries, levels = 2, 5, len(maps)
        cells = sum(h * w for h, w in maps)
        value = torch.randn(images, cells, heads * depth, requires_grad=True)
        offsets = (1.5 * torch.randn(images, queries, heads * levels * points * 2)).requires_grad_()
        logits = torch.randn(images, queries, heads * levels * points, requires_grad=True)
        references = (0.05 + 0.9 * torch.rand(images, queries, sides)).requires_grad_()
        ratios = 0.6 + 0.4 * torch.rand(images, levels, 2)
        at = references[:, :, None] * ratios.repeat(1, 1, sides // 2)[:, None]  # [N, Q, L, 2 | 4]
        o = offsets.view(images, queries, heads, levels, points, 2)
        if sides == 2:
            size = torch.tensor([[w, h] for h, w in maps], dtype=torch.float32)
            places = at[:, :, None, :, None, :] + o / size[:, None]
        else:
            places = at[:, :, None, :, None, :2] + o / points * at[:, :, None, :, None, 2:] * 0.5
        weights = logits.view(images, queries, heads, -1).softmax(-1).view(o.shape[:-1])
        grid, out, first = 2 * places - 1, 0, 0
        for l, (h, w) in enumerate(maps):
            level = value[:, first:first + h * w].reshape(images, h, w, heads, depth)
            level = level.permute(0, 3, 4, 1, 2).flatten(0, 1)
            samples = F.grid_sample(level, grid[:, :, :, l].transpose(1, 2).flatten(0, 1),
                                    mode="bilinear", padding_mode="zeros", align_corners=False)
            out = out + (samples * weights[:, :, :, l].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
            first += h * w
        y = out.view(images, heads * depth, queries).transpose(1, 2).contiguous()
        dout = torch.randn_like(y)
        y.backward(dout)
        inputs = {"value": value, "offsets": offsets, "logits": logits, "references": references}
        cases.append(case(f"{maps}, {heads} heads of {depth}, {points} points, {sides} numbers",
                          {**inputs, "ratios": ratios},
                          {"maps": [side for size in maps for side in size], "heads": heads}, y,
                          {k: v.grad for k, v in inputs.items()}, dout))
    write("deformable-attention", "mmcv's PyTorch fallback on grid_sample", cases)


def quality_focal():
    """|t - p|^beta BCE(x, t), by autograd."""
    torch.manual_seed(SEED + 7)
    cases = []
    for classes, beta in ((5, 2.0), (3, 1.0), (1, 3.0)):
        logits = (torch.randn(2, 3, 4, classes) * 3).requires_grad_()
        labels = torch.randint(-1, classes + 1, (2, 3, 4), dtype=torch.int32)
        quality = torch.rand(2, 3, 4)
        target = torch.zeros(2, 3, 4, classes + 1)
        target.scatter_(-1, labels.clamp(min=0).long()[..., None], quality[..., None])
        target = target[..., :classes]
        each = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
        each = each * (target - logits.sigmoid()).abs().pow(beta)
        loss = (each * (labels >= 0)[..., None]).sum()
        loss.backward()
        cases.append(case(f"C={classes} beta={beta}",
                          {"logits": logits, "labels": labels, "quality": quality},
                          {"beta": beta}, loss, {"logits": logits.grad}))
    write("quality-focal-loss", "torch.nn.functional.binary_cross_entropy_with_logits", cases)


def side_distributions():
    torch.manual_seed(SEED + 8)
    expected, focal_cases = [], []
    for bins in (17, 2, 9):
        logits = (torch.randn(6, 4 * bins) * 2).requires_grad_()
        values = torch.arange(bins).float()
        dout = torch.randn(6, 4)
        sides = F.linear(logits.reshape(-1, bins).softmax(-1), values[None]).reshape(6, 4)
        sides.backward(dout)
        expected.append(case(f"{bins} bins", {"logits": logits, "values": values}, {}, sides,
                             {"logits": logits.grad}, dout))
        logits = logits.detach().clone().requires_grad_()
        weight = torch.rand(6)
        weight[1] = 0
        sides = torch.rand(6, 4) * (bins - 1.1)
        left, y = sides.floor().long().reshape(-1), sides.reshape(-1)
        rows = logits.reshape(-1, bins)
        each = (F.cross_entropy(rows, left, reduction="none") * (left + 1 - y)
                + F.cross_entropy(rows, left + 1, reduction="none") * (y - left))
        loss = (each.reshape(6, 4) * weight[:, None]).sum()
        loss.backward()
        focal_cases.append(case(f"{bins} bins",
                                {"logits": logits, "sides": sides, "weight": weight}, {}, loss,
                                {"logits": logits.grad}))
    write("expected-sides", "torch.softmax and torch.nn.functional.linear", expected)
    write("distribution-focal-loss", "torch.nn.functional.cross_entropy", focal_cases)


def layer_norm():
    torch.manual_seed(SEED + 20)
    cases = []
    for channels, eps, with_residual, offset in ((24, 1e-5, False, 0.0), (64, 1e-5, True, 3.0),
                                                 (13, 1e-2, True, 0.0)):
        x = (torch.randn(2, 5, channels) * 2 + offset).requires_grad_()
        inputs = {"x": x, "gamma": torch.randn(channels, requires_grad=True),
                  "beta": torch.randn(channels, requires_grad=True)}
        if with_residual:
            inputs["residual"] = torch.randn(2, 5, channels, requires_grad=True)
        total = x + inputs["residual"] if with_residual else x
        y = F.layer_norm(total, (channels,), inputs["gamma"], inputs["beta"], eps)
        dout = torch.randn_like(y)
        y.backward(dout)
        cases.append(case(f"C={channels} eps={eps} residual={with_residual}", inputs, {"eps": eps}, y,
                          {name: t.grad for name, t in inputs.items()}, dout))
    write("layer-norm", "torch.nn.functional.layer_norm", cases)


def gelu():
    torch.manual_seed(SEED + 21)
    cases = []
    for scale in (1, 4):
        x = (torch.randn(3, 41) * scale).requires_grad_()
        y = F.gelu(x)
        dout = torch.randn_like(y)
        y.backward(dout)
        cases.append(case(f"scale={scale}", {"x": x}, {}, y, {"x": x.grad}, dout))
    write("gelu", "torch.nn.functional.gelu", cases)


def prelu():
    torch.manual_seed(SEED + 22)
    cases = []
    for slope in (0.25, -0.5):
        x = (2 * torch.randn(3, 41)).requires_grad_()
        weight = torch.tensor([slope], requires_grad=True)
        y = F.prelu(x, weight)
        dout = torch.randn_like(y)
        y.backward(dout)
        cases.append(case(f"slope={slope}", {"x": x, "slope": weight}, {}, y, {"x": x.grad, "slope": weight.grad}, dout))
    write("prelu", "torch.nn.functional.prelu", cases)


def modulated_encoding():
    """As mmdetection's DABDetrTransformerDecoder draws encodings out: y's half comes first."""
    torch.manual_seed(SEED + 23)
    cases = []
    for scaled in (False, True):
        encoding = (2 * torch.rand(2, 5, 48) - 1).requires_grad_()
        sizes = torch.randn(2, 5, 2, requires_grad=True)
        boxes = (0.1 + 0.8 * torch.rand(2, 5, 4)).requires_grad_()
        inputs = {"encoding": encoding, "sizes": sizes, "boxes": boxes}
        y = encoding[..., :24]
        if scaled:
            inputs["scale"] = torch.randn(2, 5, 24, requires_grad=True)
            y = y * inputs["scale"]
        wanted = sizes.sigmoid()
        half_y = y[..., :12] * (wanted[..., 1] / boxes[..., 3])[..., None]
        half_x = y[..., 12:] * (wanted[..., 0] / boxes[..., 2])[..., None]
        y = torch.cat([half_y, half_x], -1)
        dout = torch.randn_like(y)
        y.backward(dout)
        cases.append(case("scaled" if scaled else "the first layer", inputs, {}, y, {k: v.grad for k, v in inputs.items()}, dout))
    write("modulated-encoding", "the same in torch autograd", cases)


def inverse_sigmoid(x, eps):
    """mmdetection's."""
    x = x.clamp(min=0, max=1)
    return torch.log(x.clamp(min=eps) / (1 - x).clamp(min=eps))


def query_boxes():
    """Boxes that decoders refine, as DeformableDETRHead.forward does, and their corners in pixels."""
    torch.manual_seed(SEED + 9)
    refined, corners = [], []
    for width, eps in ((4, 1e-5), (4, 1e-3), (2, 1e-5)):
        deltas = (torch.randn(2, 11, 4) * 2).requires_grad_()
        references = (torch.rand(2, 11, width) * 1.2 - 0.1).requires_grad_()
        logits = inverse_sigmoid(references, eps)
        boxes = torch.cat([deltas[..., :width] + logits, deltas[..., width:]], -1).sigmoid()
        dout = torch.randn_like(boxes)
        boxes.backward(dout)
        refined.append(case(f"{width} numbers, eps {eps}",
                            {"deltas": deltas, "references": references}, {"eps": eps}, boxes,
                            {"deltas": deltas.grad, "references": references.grad}, dout))
    write("refined-boxes", "torch.sigmoid after mmdetection's inverse_sigmoid", refined)
    boxes = (torch.rand(2, 11, 4) * 1.2 - 0.1).requires_grad_()
    sizes = torch.tensor([[480.0, 640.0], [333.0, 200.5]])
    xyxy = ops.box_convert(boxes, "cxcywh", "xyxy") * sizes.flip(-1).repeat(1, 2)[:, None]
    dout = torch.randn_like(xyxy)
    xyxy.backward(dout)
    corners.append(case("two images", {"boxes": boxes, "sizes": sizes}, {}, xyxy,
                        {"boxes": boxes.grad}, dout))
    write("boxes-from-centers", "torchvision.ops.box_convert", corners)


if __name__ == "__main__":
    focal()
    overlap()
    smooth_l1()
    group_norm()
    batch_norm()
    upsample()
    deform_sampling()
    deformable_attention()
    quality_focal()
    side_distributions()
    layer_norm()
    gelu()
    prelu()
    modulated_encoding()
    query_boxes()
