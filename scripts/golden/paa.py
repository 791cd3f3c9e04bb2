"""Records which losses scikit-learn's Gaussian mixture takes for foreground, as PAA asks it.

Only for recording: neither the product nor its tests need Python.

    /usr/bin/python3 scripts/golden/paa.py      # writes test/golden/detect/paa.json
"""

import json
import os

import numpy
import sklearn
from sklearn.mixture import GaussianMixture

SEED = 20240311
OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "detect", "paa.json")


def foreground(losses):
    """Places in the rising losses that stay positive: component 0 up to its densest."""
    x = losses.reshape(-1, 1)
    mixture = GaussianMixture(
        2,
        weights_init=numpy.array([0.5, 0.5]),
        means_init=numpy.array([[x.min()], [x.max()]]),
        precisions_init=numpy.array([[1.0], [1.0]]),
        covariance_type="diag",
    ).fit(x)
    first = numpy.flatnonzero(mixture.predict(x) == 0)
    if len(first) == 0:
        return []
    return first[: int(numpy.argmax(mixture.score_samples(x)[first])) + 1].tolist()


def draw(random, count, kind):
    if kind == "two groups":
        split = random.integers(1, count)
        values = numpy.concatenate([random.normal(0.6, 0.15, split), random.normal(2.4, 0.4, count - split)])
    elif kind == "one group":
        values = random.normal(1.3, 0.5, count)
    elif kind == "a long tail":
        values = random.exponential(1.0, count)
    else:  # close together, as of a head that has just begun
        values = 2.9 + random.normal(0, 0.002, count)
    return numpy.sort(numpy.abs(values)).astype(numpy.float32).astype(numpy.float64)


def main():
    random = numpy.random.default_rng(SEED)
    cases = []
    for kind in ("two groups", "one group", "a long tail", "close together"):
        for count in (2, 3, 5, 9, 14, 27, 45, 45):
            losses = draw(random, count, kind)
            cases.append({
                "kind": kind,
                "losses": [float(f"{v:.9g}") for v in losses],
                "foreground": foreground(losses),
            })
    record = {
        "recordedBy": "scripts/golden/paa.py",
        "sklearn": sklearn.__version__,
        "numpy": numpy.__version__,
        "seed": SEED,
        "cases": cases,
    }
    with open(OUT, "w") as file:
        json.dump(record, file, separators=(",", ":"))
        file.write("\n")
    print(f"{len(cases)} cases, {os.path.getsize(OUT)} bytes")


if __name__ == "__main__":
    main()
