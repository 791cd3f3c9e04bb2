#!/usr/bin/env python3
"""The same cases as scripts/bench/detector.mjs with torchvision's detectors.

  python3 scripts/peers/detector_torchvision.py MODEL CASE DTYPE ITERATIONS [compile]

compile: backbone and head by torch.compile (torch 2 and later).
"""
import json
import os
import random
import resource
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch

from detectors import make

architecture, kind, dtype, iterations = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
size = [int(v) for v in os.environ.get("BENCH_SIZE", "480x640").split("x")]
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))
torch.manual_seed(0)
random.seed(0)
device = torch.device(os.environ.get("BENCH_DEVICE", "cpu"))
gpu = device.type == "cuda"
images = int(os.environ.get("BENCH_BATCH", 2)) if kind == "train" else 1
run = make(architecture, kind, size, device, dtype == "bf16", "compile" in sys.argv[5:], images)


def wait():
    if gpu:
        torch.cuda.synchronize()


checked = True
for _ in range(5 if gpu else 1):
    checked = run() and checked
wait()
if gpu:
    torch.cuda.reset_peak_memory_stats()
ms = []
for _ in range(iterations):
    start = time.perf_counter()
    checked = run() and checked
    wait()
    ms.append((time.perf_counter() - start) * 1e3)
result = dict(ms=ms, peakRssMb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, checked=checked,
              versions=dict(torch=torch.__version__))
if gpu:
    result["peakDeviceMb"] = torch.cuda.max_memory_allocated() >> 20
print(json.dumps(result))
