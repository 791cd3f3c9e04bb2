"""Records COCO metrics of small random data sets with the reference tool.

Needs pycocotools (`python3 -m venv V && V/bin/pip install pycocotools`). Only for recording: neither
the product nor its tests need Python.

    V/bin/python scripts/golden/coco_eval.py                       # writes test/golden/coco-eval/
    V/bin/python scripts/golden/coco_eval.py --count 2000 --seed 7 --tables --out /tmp/fuzz.json
"""

import argparse
import contextlib
import copy
import io
import json
import os
import random

import numpy
import pycocotools.coco
import pycocotools.cocoeval
from importlib.metadata import version


def make_case(rng):
    """A data set with the awkward things: ties, crowds, odd ids, empty images, odd areas."""
    num_images = rng.choice([1, 2, 3, 5])
    num_classes = rng.choice([1, 2, 4])
    grid = rng.choice([1, 1, 4, 0])  # box corners on a grid tie IoUs; 0: anywhere
    levels = rng.choice([3, 10, 0])  # distinct scores; 0: anything
    extent = rng.choice([12, 60, 300])
    odd_boxes = rng.random() < 0.1
    odd_ids = rng.random() < 0.15

    def length(high):
        value = rng.uniform(0.5, high)
        return max(grid, round(value / grid) * grid) if grid else round(value, 3)

    def place(high):
        value = rng.uniform(0, high)
        return round(value / grid) * grid if grid else round(value, 3)

    def box():
        if odd_boxes and rng.random() < 0.3:
            return rng.choice(
                [
                    [3, 3, 0, 0],
                    [5, 5, -2, 3],
                    [5, 5, -2, -3],
                    [0, 0, 1e200, 1e200],
                    [0, 0, 1e160, 1e-170],
                ]
            )
        return [place(extent), place(extent), length(extent), length(extent)]

    image_ids = rng.sample(range(1, 50), num_images)
    category_ids = rng.sample(range(1, 30), num_classes)
    annotations, per_image = [], {}
    for image_id in image_ids:
        boxes = []
        for _ in range(rng.choice([0, 1, 3, 8])):
            b = box() if not boxes or rng.random() < 0.7 else copy.deepcopy(rng.choice(boxes))
            boxes.append(b)
            area = b[2] * b[3]  # that of a mask may differ, and JSON has no infinity
            if not (abs(area) < 1e300 and rng.random() < 0.7):
                area = rng.choice([0, 500, 1024, 5000, 9216, 20000])
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": rng.choice(category_ids),
                    "bbox": b,
                    "area": area,
                    "iscrowd": int(rng.random() < 0.2),
                }
            )
        per_image[image_id] = boxes
    if odd_ids and annotations:
        rng.choice(annotations)["id"] = 0
        if rng.random() < 0.5:
            rng.choice(annotations)["id"] = rng.choice(annotations)["id"]
        if rng.random() < 0.3:
            rng.choice(annotations)["image_id"] = 777
        if rng.random() < 0.3:
            rng.choice(annotations)["category_id"] = 888
        rng.shuffle(annotations)
    # A class or an image without ground truth comes by itself; unlisted ground truth must not count.
    detections = []
    for image_id in image_ids:
        crowd = rng.random() < 0.04
        for _ in range(rng.choice([120, 320]) if crowd else rng.choice([0, 1, 5, 15])):
            if per_image[image_id] and rng.random() < 0.7:
                b = list(rng.choice(per_image[image_id]))
                if rng.random() < 0.7:
                    shift = grid or 1
                    b = [v + rng.choice([-1, 0, 0, 1]) * shift for v in b]
                    if not odd_boxes:
                        b[2], b[3] = max(b[2], shift), max(b[3], shift)
            else:
                b = box()
            score = rng.randint(1, levels) / levels if levels else rng.random()
            unlisted = odd_ids and rng.random() < 0.05
            detections.append(
                {
                    "image_id": image_id,
                    "category_id": 999 if unlisted else rng.choice(category_ids),
                    "bbox": b,
                    "score": score,
                }
            )
    rng.shuffle(detections)
    if not detections:  # loadRes refuses an empty list
        return make_case(rng)
    return {
        "images": [{"id": i} for i in image_ids],
        "categories": [{"id": c, "name": f"class {c}"} for c in category_ids],
        "annotations": annotations,
    }, detections


def evaluate(truth, detections, max_detections, tables, with_summary):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        coco = pycocotools.coco.COCO()
        coco.dataset = copy.deepcopy(truth)
        coco.createIndex()
        results = coco.loadRes(copy.deepcopy(detections))
        tool = pycocotools.cocoeval.COCOeval(coco, results, "bbox")
        tool.params.maxDets = list(max_detections)
        tool.evaluate()
        tool.accumulate()
        printed.truncate(0)
        printed.seek(0)
        tool.summarize()
    precision, recall = tool.eval["precision"], tool.eval["recall"]
    per_class = {}
    for k, category in enumerate(tool.params.catIds):
        p = precision[:, :, k, 0, -1]
        per_class[str(category)] = float(p[p > -1].mean()) if (p > -1).any() else None
    out = {"stats": [float(s) for s in tool.stats], "perClassAP": per_class}
    if tables:
        out["precision"] = precision.ravel().tolist()
        out["recall"] = recall.ravel().tolist()
        out["scores"] = tool.eval["scores"].ravel().tolist()
    elif with_summary:
        out["summary"] = printed.getvalue().splitlines()
    return out


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser()
    golden = os.path.join(here, "../../test/golden/coco-eval/random.json")
    parser.add_argument("--out", default=golden)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=20260731)
    parser.add_argument("--tables", action="store_true", help="record whole tables")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    cases = []
    for i in range(args.count):
        truth, detections = make_case(rng)
        with numpy.errstate(all="ignore"):
            cases.append(
                {
                    "truth": truth,
                    "detections": detections,
                    "coco": evaluate(truth, detections, (1, 10, 100), args.tables, i < 4),
                    "mmdetection": evaluate(truth, detections, (100, 300, 1000), args.tables, i < 4),
                }
            )
    record = {
        "tool": f"pycocotools {version('pycocotools')}",
        "numpy": numpy.__version__,
        "script": "scripts/golden/coco_eval.py",
        "seed": args.seed,
        "cases": cases,
    }
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with open(args.out, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")


if __name__ == "__main__":
    main()
