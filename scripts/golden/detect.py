"""Records boxes, matching, suppression and optimizers of torch and torchvision.

Only for recording: neither the product nor its tests need Python.

    /usr/bin/python3 scripts/golden/detect.py      # writes test/golden/detect/{boxes,optimizers}.json
"""

import json
import os

import numpy
import torch
import torchvision
from torchvision.models.detection import _utils
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList

SEED = 20240311
FOLDER = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "detect")


def flat(tensor):
    """Numbers in row-major order; 9 digits tell every f32 apart."""
    values = tensor.detach().reshape(-1).tolist()
    return [float(f"{v:.9g}") if isinstance(v, float) else v for v in values]


def random_boxes(count, extent=100.0, least=2.0):
    corner = torch.rand(count, 2) * extent
    size = least + torch.rand(count, 2) * extent * 0.4
    return torch.cat([corner, corner + size], 1)


def record_boxes():
    torch.manual_seed(SEED)
    a, b = random_boxes(12), random_boxes(9)
    out = {"a": flat(a), "b": flat(b)}
    ops = torchvision.ops
    out["iou"] = flat(ops.box_iou(a, b))
    out["giou"] = flat(ops.generalized_box_iou(a, b))
    out["diou"] = flat(ops.distance_box_iou(a, b))
    out["ciou"] = flat(ops.complete_box_iou(a, b))

    crowd, scores = random_boxes(200), torch.rand(200)
    labels = torch.randint(0, 5, (200,))
    out["nms"] = {"boxes": flat(crowd), "scores": flat(scores), "labels": flat(labels), "kept": {}}
    for threshold in (0.0, 0.3, 0.5, 0.7):
        out["nms"]["kept"][str(threshold)] = {
            "nms": flat(ops.nms(crowd, scores, threshold)),
            "batched": flat(ops.batched_nms(crowd, scores, labels, threshold)),
        }

    anchors, boxes = random_boxes(20), random_boxes(20)
    deltas = torch.randn(20, 4) * 3
    deltas[0, 2], deltas[1, 2] = 10.0, -10.0
    for name, weights in (("plain", (1.0, 1.0, 1.0, 1.0)), ("roi", (10.0, 10.0, 5.0, 5.0))):
        coder = _utils.BoxCoder(weights)
        out[f"coder_{name}"] = {
            "weights": weights,
            "anchors": flat(anchors),
            "boxes": flat(boxes),
            "deltas": flat(deltas),
            "encoded": flat(coder.encode_single(boxes, anchors)),
            "decoded": flat(coder.decode_single(deltas, anchors)),
        }

    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in (32, 64))
    generator = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 2)
    image = torch.zeros(1, 3, 64, 96)
    features = [torch.zeros(1, 1, 8, 12), torch.zeros(1, 1, 4, 6)]
    levels = generator(ImageList(image, [(64, 96)]), features)[0]
    out["anchors"] = {"sizes": sizes, "strides": [8, 16], "height": 64, "width": 96,
                      "boxes": flat(levels)}

    truth = random_boxes(6, extent=80.0, least=6.0)
    iou = ops.box_iou(truth, levels)
    out["matcher"] = {"truth": flat(truth)}
    for name, high, low, allow in (("retinanet", 0.5, 0.4, True), ("rpn", 0.7, 0.3, True),
                                   ("roi", 0.5, 0.5, False)):
        out["matcher"][name] = flat(_utils.Matcher(high, low, allow)(iou))
    return out


OPTIMIZERS = [
    ("sgd", dict(momentum=0.9)),
    ("sgd", dict(momentum=0.0)),
    ("sgd", dict(momentum=0.9, nesterov=True)),
    ("sgd", dict(momentum=0.8, dampening=0.3)),
    ("adamw", dict()),
    ("adamw", dict(betas=(0.8, 0.95), eps=1e-5)),
]


def record_optimizers():
    torch.manual_seed(SEED)
    steps, shapes = 10, [(3, 4), (37,)]
    starts = [torch.randn(s) for s in shapes]
    gradients = [torch.randn(steps, *s) for s in shapes]
    factors, decays, lr = [1.0, 0.1], [0.05, 0.0], 0.02
    runs = []
    for kind, options in OPTIMIZERS:
        for clip in (0, 2.5):
            weights = [torch.nn.Parameter(w.clone()) for w in starts]
            groups = [dict(params=[w], lr=lr * f, weight_decay=d)
                      for w, f, d in zip(weights, factors, decays)]
            make = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
            optimizer = make(groups, lr=lr, **options)
            norms = []
            for step in range(steps):
                for w, g in zip(weights, gradients):
                    w.grad = g[step].clone()
                norms.append(float(torch.nn.utils.clip_grad_norm_(weights, clip or 1e9)))
                optimizer.step()
            runs.append(dict(type=kind, clipNorm=clip, options=options, norms=norms,
                             weights=[flat(w) for w in weights]))
    return dict(shapes=shapes, steps=steps, lr=lr, lrFactors=factors, weightDecays=decays,
                starts=[flat(w) for w in starts], gradients=[flat(g) for g in gradients],
                runs=runs, groups=record_groups())


PATHS = [
    "backbone.conv1.weight",
    "backbone.stages.0.norm1.weight",
    "backbone.stages.0.norm2.weight",
    "neck.norm.bias",
    "encoder.layers.0.self_attn.sampling_offsets.weight",
    "encoder.layers.0.self_attn.sampling_offsets.bias",
    "decoder.reference_points.weight",
    "bbox_head.cls_branches.0.weight",
]
CUSTOM_KEYS = {
    "backbone": dict(lr_mult=0.1),
    "norm": dict(decay_mult=0.25),
    "bias": dict(lr_mult=2.0, decay_mult=0.0),
    "sampling_offsets": dict(lr_mult=0.3, decay_mult=0.5),
    "reference_points": dict(lr_mult=0.1, decay_mult=3.0),
    "backbone.stages.0.norm1": dict(decay_mult=0.0),
}


def record_groups():
    """torch's groups as mmcv's DefaultOptimizerConstructor.add_params makes them of custom_keys."""
    torch.manual_seed(SEED)
    steps, lr, weight_decay = 10, 0.02, 0.05
    starts = [torch.randn(5) for _ in PATHS]
    gradients = [torch.randn(steps, 5) for _ in PATHS]
    keys = sorted(sorted(CUSTOM_KEYS), key=len, reverse=True)
    chosen = [next((CUSTOM_KEYS[key] for key in keys if key in path), {}) for path in PATHS]
    runs = []
    for kind, options in (OPTIMIZERS[0], OPTIMIZERS[4]):
        for clip in (0, 2.5):
            weights = [torch.nn.Parameter(w.clone()) for w in starts]
            groups = [dict(params=[w], lr=lr * c.get("lr_mult", 1.0),
                           weight_decay=weight_decay * c.get("decay_mult", 1.0))
                      for w, c in zip(weights, chosen)]
            make = torch.optim.SGD if kind == "sgd" else torch.optim.AdamW
            optimizer = make(groups, lr=lr, **options)
            for step in range(steps):
                for w, g in zip(weights, gradients):
                    w.grad = g[step].clone()
                torch.nn.utils.clip_grad_norm_(weights, clip or 1e9)
                optimizer.step()
            runs.append(dict(type=kind, clipNorm=clip, options=options,
                             weights=[flat(w) for w in weights]))
    return dict(steps=steps, lr=lr, weightDecay=weight_decay, paths=PATHS, customKeys=CUSTOM_KEYS,
                starts=[flat(w) for w in starts], gradients=[flat(g) for g in gradients],
                runs=runs)


def main():
    source = dict(torch=torch.__version__, torchvision=torchvision.__version__,
                  numpy=numpy.__version__, seed=SEED)
    os.makedirs(FOLDER, exist_ok=True)
    for name, record in (("boxes", record_boxes), ("optimizers", record_optimizers)):
        with open(os.path.join(FOLDER, f"{name}.json"), "w") as file:
            json.dump(dict(source=source, **record()), file, separators=(",", ":"))
            file.write("\n")


if __name__ == "__main__":
    main()
