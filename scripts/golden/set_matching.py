"""Records the costs of queries for objects by torch in float64, and which pairs SciPy takes.

Only for recording: neither the product nor its tests need Python.

    /usr/bin/python3 scripts/golden/set_matching.py      # writes test/golden/detect/set-matching.json
"""

import json
import os

import numpy
import scipy
import torch
import torchvision
from scipy.optimize import linear_sum_assignment

SEED = 20240519
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "detect", "set-matching.json")


def costs(logits, boxes, truth, labels, size, alpha=0.25, gamma=2.0, eps=1e-12, weights=(2, 5, 2), xyxy=False):
    """mmdetection's FocalLossCost, BBoxL1Cost and IoUCost, [G, Q]."""
    height, width = size
    whole = torch.tensor([width, height, width, height], dtype=torch.float64)
    p = logits.sigmoid()
    negative = -(1 - p + eps).log() * (1 - alpha) * p.pow(gamma)
    positive = -(p + eps).log() * alpha * (1 - p).pow(gamma)
    classification = positive[:, labels] - negative[:, labels]
    shares = torchvision.ops.box_convert(boxes, "cxcywh", "xyxy")
    wanted = truth / whole
    if xyxy:
        l1 = torch.cdist(shares, wanted, p=1)
    else:
        l1 = torch.cdist(boxes, torchvision.ops.box_convert(wanted, "xyxy", "cxcywh"), p=1)
    giou = torchvision.ops.generalized_box_iou(shares * whole, truth)
    return (weights[0] * classification + weights[1] * l1 - weights[2] * giou).T


def numbers(values):
    return [float(f"{v:.9g}") for v in numpy.asarray(values, dtype=numpy.float64).reshape(-1)]


def draw(random, queries, objects, classes, spread):
    def f64(values):  # of what f32 holds
        return torch.tensor(values.astype(numpy.float32).astype(numpy.float64))

    size = (480.0, 640.0)
    corner = random.uniform(0, 0.8, (objects, 2))
    truth = numpy.concatenate([corner, corner + random.uniform(0.02, 0.2, (objects, 2))], 1)
    return {
        "logits": f64(random.normal(-2, spread, (queries, classes))),
        "boxes": f64(numpy.concatenate(
            [random.uniform(0.05, 0.95, (queries, 2)), random.uniform(0.02, 0.4, (queries, 2))], 1)),
        "truth": f64(truth * [640, 480, 640, 480]),
        "labels": torch.tensor(random.integers(0, classes, objects)),
        "size": size,
    }


def main():
    random = numpy.random.default_rng(SEED)
    settings = [{}, {"xyxy": True}, {"alpha": 0.4, "gamma": 1.5, "eps": 1e-8, "weights": (1, 3, 4)}, {"gamma": 0.0}]
    cases = []
    for queries, objects, classes, spread in [(30, 7, 4, 2), (20, 20, 2, 1), (9, 25, 3, 4), (1, 3, 1, 1), (40, 1, 5, 1)]:
        for setting in settings:
            scene = draw(random, queries, objects, classes, spread)
            cost = costs(**scene, **setting).numpy()
            chosen = numpy.full(queries, -1)
            g, q = linear_sum_assignment(cost)
            chosen[q] = g
            weights = setting.get("weights", (2, 5, 2))
            cases.append({
                "queries": queries,
                "options": {
                    "alpha": setting.get("alpha", 0.25), "gamma": setting.get("gamma", 2.0),
                    "eps": setting.get("eps", 1e-12), "classification": weights[0], "boxes": weights[1],
                    "iou": weights[2], "xyxyL1": setting.get("xyxy", False),
                },
                "logits": numbers(scene["logits"]), "boxes": numbers(scene["boxes"]),
                "truth": numbers(scene["truth"]), "labels": scene["labels"].tolist(), "size": scene["size"],
                "costs": numbers(cost), "objects": chosen.tolist(),
            })
    record = {
        "recordedBy": "scripts/golden/set_matching.py",
        "torch": torch.__version__, "torchvision": torchvision.__version__, "scipy": scipy.__version__,
        "seed": SEED, "cases": cases,
    }
    with open(OUT, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
