#!/usr/bin/env python3
"""Records test/golden/torchvision/*.json: losses, gradients and detections of torchvision's detectors.

The models are torchvision's own classes on a small backbone, in float64. Weights, pictures and boxes
follow from formulas, so that the files stay small; the test writes the weights to a file under
torchvision's names and loads that.

  python3 scripts/golden/torchvision_detectors.py [NAME...]         needs torch and torchvision
  python3 scripts/golden/torchvision_detectors.py look [NAME...]    how steady gradients are, for some pictures
"""
import json
import math
import os
import sys
from functools import partial

import numpy as np
import torch
import torchvision
from torchvision.models import resnet18
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7
from torchvision.ops.misc import FrozenBatchNorm2d

from retinanet import hashed, nudged, unsteadiness

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "torchvision")
CLASSES = 7
SIZES = [(120, 160), (97, 131), (160, 100)]  # height, width of the pictures
RESIZE = {"min_size": 128, "max_size": 180}
TARGETS = [
    ([[20, 15, 90, 80], [60, 40, 150, 110], [5, 5, 17, 21]], [1, 3, 6]),
    ([], []),
    ([[10, 20, 80, 140], [30, 30, 62, 58]], [2, 2]),
]


def fill(name, shape):
    v = hashed(name, int(np.prod(shape)))
    if name.endswith("running_var"):
        v = 1 + 0.5 * v
    elif name.endswith("running_mean"):
        v = 0.1 * v
    elif len(shape) == 1 and name.endswith("weight"):
        v = 1 + 0.2 * v
    elif name.endswith(("cls_logits.bias", "cls_score.bias")):
        v = -1.5 + 0.5 * v
    elif len(shape) == 1:
        v = 0.1 * v
    else:
        v = v * math.sqrt(6.0 / np.prod(shape[1:])) * (0.3 if name.startswith("backbone.body.layer") else 1)
    return torch.from_numpy(nudged(name, v.astype(np.float32).astype(np.float64))).reshape(shape)


# Of the pictures' noise, so that no ReLU that a gradient hangs on is switched by rounding: see look().
SALTS = {"fcos": "j", "retinanet_v2": "e"}


def picture(n, salt=""):
    h, w = SIZES[n]
    v = hashed(f"picture{n}{salt}", h * w * 3).reshape(h, w, 3)
    # Smooth enough that a resize keeps something.
    y, x = np.mgrid[0:h, 0:w]
    wave = np.sin(x / 9.0 + n)[..., None] * np.cos(y[..., None] / 7.0 + np.arange(3))
    return np.clip(np.floor(127.5 + 80 * wave + 40 * v), 0, 255).astype(np.uint8)


def pyramid(channels=32, norm_layer=FrozenBatchNorm2d, p6_from_c5=False):
    """ResNet-18, C3 to C5, with fewer channels than torchvision's constructors have."""
    body = resnet18(weights=None, norm_layer=norm_layer)
    whole = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    inner = [block[0].in_channels for block in whole.fpn.inner_blocks]
    extra = LastLevelP6P7(inner[-1] if p6_from_c5 else channels, channels)
    whole.fpn = FeaturePyramidNetwork(inner, channels, extra_blocks=extra)
    whole.out_channels = channels
    return whole


def retinanet_anchors():
    sizes = tuple((x, int(x * 2 ** (1 / 3)), int(x * 2 ** (2 / 3))) for x in [32, 64, 128, 256, 512])
    return AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)


def retinanet():
    return RetinaNet(pyramid(), CLASSES, anchor_generator=retinanet_anchors(), **RESIZE)


def retinanet_v2():
    anchors = retinanet_anchors()
    head = RetinaNetHead(64, anchors.num_anchors_per_location()[0], CLASSES, norm_layer=partial(torch.nn.GroupNorm, 32))
    head.regression_head._loss_type = "giou"
    backbone = pyramid(64, torch.nn.BatchNorm2d, p6_from_c5=True)
    return RetinaNet(backbone, CLASSES, anchor_generator=anchors, head=head, **RESIZE)


def fcos():
    return FCOS(pyramid(64), CLASSES, **RESIZE)  # 64: GroupNorm of one channel a group would undo the biases


# Samplers so large that everything is taken: nothing is left to chance.
TAKE_ALL = {"rpn_batch_size_per_image": 100_000, "box_batch_size_per_image": 5_000,
            "rpn_positive_fraction": 1.0, "box_positive_fraction": 1.0}


def whole_pyramid(body_norm, fpn_norm=None):
    """ResNet-18, C2 to C5 and the pooled level."""
    whole = _resnet_fpn_extractor(resnet18(weights=None, norm_layer=body_norm), 3)
    inner = [block[0].in_channels for block in whole.fpn.inner_blocks]
    whole.fpn = FeaturePyramidNetwork(inner, 32, extra_blocks=LastLevelMaxPool(), norm_layer=fpn_norm)
    whole.out_channels = 32
    return whole


def fasterrcnn():
    return FasterRCNN(whole_pyramid(FrozenBatchNorm2d), CLASSES + 1, **TAKE_ALL, **RESIZE)


def fasterrcnn_v2():
    live = torch.nn.BatchNorm2d
    return FasterRCNN(
        whole_pyramid(live, live), box_predictor=FastRCNNPredictor(64, CLASSES + 1),
        rpn_head=RPNHead(32, 3, conv_depth=2),
        box_head=FastRCNNConvFCHead((32, 7, 7), [32] * 4, [64], norm_layer=live), **TAKE_ALL, **RESIZE)


MODELS = {"retinanet": retinanet, "retinanet_v2": retinanet_v2, "fcos": fcos, "fasterrcnn": fasterrcnn,
          "fasterrcnn_v2": fasterrcnn_v2}


def projected(name, values):
    return [float(np.linalg.norm(values)), float(values @ hashed(name + "#", values.size))]


def built(name):
    """The model, its tensors' shapes, and whether its BatchNorm is live."""
    model = MODELS[name]().double()
    tensors = {k: list(v.shape) for k, v in model.state_dict().items()}
    counters = [k for k in tensors if k.endswith("num_batches_tracked")]
    for k in counters:
        del tensors[k]
    model.load_state_dict({k: fill(k, v) for k, v in tensors.items()}, strict=not counters)
    return model, tensors, bool(counters)


def trained(model, pictures):
    """Its losses, and of its gradients norms and inner products."""
    model.train()
    targets = [{"boxes": torch.tensor(b, dtype=torch.float64).reshape(-1, 4), "labels": torch.tensor(l, dtype=torch.long)}
               for b, l in TARGETS]
    losses = model(pictures, targets)
    sum(losses.values()).backward()
    gradients = {}
    for key, p in model.named_parameters():
        if not p.requires_grad:
            continue
        g = p.grad.numpy().ravel() if p.grad is not None else np.zeros(p.numel())
        gradients[key] = projected(key, g)
    return losses, gradients


def all_pictures(salt):
    return [torch.from_numpy(picture(n, salt)).permute(2, 0, 1).double() / 255 for n in range(3)]


def record(name):
    model, tensors, live = built(name)
    salt = SALTS.get(name, "")
    pictures = all_pictures(salt)
    model.eval()
    with torch.no_grad():
        found = model(pictures)
    losses, gradients = trained(model, pictures)
    # Of live BatchNorm: statistics after one step of training.
    buffers = {k: projected(k, v.numpy()) for k, v in model.named_buffers()
               if live and k.endswith(("running_mean", "running_var"))}
    most = 40  # the best
    golden = {
        "torch": torch.__version__, "torchvision": torchvision.__version__, "classes": CLASSES,
        "salt": salt, "sizes": SIZES, "minSize": RESIZE["min_size"], "maxSize": RESIZE["max_size"], "targets": TARGETS,
        "tensors": tensors,
        "losses": {k: v.item() for k, v in losses.items()},
        "gradients": gradients,
        "buffers": buffers,
        "detections": [
            {"count": len(d["scores"]), "boxes": d["boxes"][:most].round(decimals=5).tolist(),
             "scores": d["scores"][:most].round(decimals=7).tolist(), "labels": d["labels"][:most].tolist()}
            for d in found
        ],
    }
    os.makedirs(OUT, exist_ok=True)
    with open(os.path.join(OUT, f"{name}.json"), "w") as f:
        json.dump(golden, f)
        f.write("\n")
    print(name, golden["losses"], [d["count"] for d in golden["detections"]],
          [d["scores"][:3] for d in golden["detections"]])


def look(name):
    """For pictures whose gradients are steady."""
    for salt in ["", *"abcdefghijklmnopqrstuvwxyz"]:
        pictures = all_pictures(salt)
        print(name, repr(salt), unsteadiness(lambda: trained(built(name)[0], pictures)[1]), flush=True)


if sys.argv[1:2] == ["look"]:
    for name in sys.argv[2:] or MODELS:
        look(name)
else:
    for name in sys.argv[1:] or MODELS:
        record(name)
