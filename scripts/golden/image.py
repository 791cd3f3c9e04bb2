"""Records test/golden/image/*.json: colour operations of Pillow and antialiased resizing of torch.

Usage: python3 scripts/golden/image.py   (Pillow, numpy, torch; only to record, never to run mixpl)
"""
import json
import pathlib

import numpy as np
import PIL
import torch
from PIL import Image, ImageEnhance, ImageOps

SEED = 7
OUT = pathlib.Path(__file__).resolve().parents[2] / "test" / "golden" / "image"


def picture(height, width):
    """Low-contrast noise on a ramp, so that stretching and equalising have something to do."""
    rng = np.random.default_rng(SEED)
    ramp = np.linspace(60, 170, width)[None, :, None] + np.array([0, 15, -25])[None, None, :]
    return np.clip(ramp + rng.normal(0, 12, (height, width, 3)), 0, 255).astype(np.uint8)


def flat(array):
    return np.asarray(array).reshape(-1).tolist()


def colors():
    pixels = picture(14, 17)
    image = Image.fromarray(pixels)
    cases = [
        ("auto-contrast", 0, ImageOps.autocontrast(image)),
        ("equalize", 0, ImageOps.equalize(image)),
        *[("posterize", b, ImageOps.posterize(image, b)) for b in (1, 2, 3, 4)],
        *[("solarize", t, ImageOps.solarize(image, t)) for t in (0, 90, 128, 256)],
        *[("brightness", m, ImageEnhance.Brightness(image).enhance(m)) for m in (0.1, 0.7, 1.0, 1.9)],
        *[("contrast", m, ImageEnhance.Contrast(image).enhance(m)) for m in (0.1, 0.7, 1.0, 1.9)],
        *[("color", m, ImageEnhance.Color(image).enhance(m)) for m in (0.1, 0.7, 1.0, 1.9)],
        *[("sharpness", m, ImageEnhance.Sharpness(image).enhance(m)) for m in (0.1, 0.7, 1.0, 1.9)],
    ]
    return {
        "recordedWith": f"Pillow {PIL.__version__}, numpy seed {SEED}",
        "width": 17,
        "height": 14,
        "pixels": flat(pixels),
        "cases": [{"op": op, "magnitude": m, "pixels": flat(out)} for op, m, out in cases],
    }


def resizes():
    pixels = picture(20, 27)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None].double()
    cases = []
    for height, width in ((33, 41), (20, 27), (11, 13), (5, 7)):
        out = torch.nn.functional.interpolate(
            planes, size=(height, width), mode="bilinear", antialias=True, align_corners=False
        )
        values = np.round(out[0].permute(1, 2, 0).numpy(), 4)
        cases.append({"width": width, "height": height, "values": flat(values)})
    return {
        "recordedWith": f"torch {torch.__version__} interpolate(antialias=True), numpy seed {SEED}",
        "width": 27,
        "height": 20,
        "pixels": flat(pixels),
        "cases": cases,
    }


OUT.mkdir(parents=True, exist_ok=True)
for name, content in (("colors", colors()), ("resizes", resizes())):
    (OUT / f"{name}.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")
