#!/usr/bin/env python3
"""PyTorch's side of `mixpl bench --peer torch`: times the cases that lib/bench names.

  python3 scripts/peers/ops_torch.py DEVICE THREADS

Says its versions in the first line. Then each line in is a JSON value and each line out the answer:
{"prepare": case} -> true, or null for a case it has no part in; {"run": N} -> milliseconds of one of N
runs back to back, with one wait for the device at their end.
"""
import json
import sys
import time
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.nn.functional as F
import torchvision

device = torch.device("cuda" if sys.argv[1].startswith("cuda") else "cpu")
torch.set_num_threads(int(sys.argv[2]))
torch.manual_seed(0)
# f32 is f32 on both sides.
torch.backends.cuda.matmul.allow_tf32 = False
torch.backends.cudnn.allow_tf32 = False
CL = torch.channels_last


def wait():
    if device.type == "cuda":
        torch.cuda.synchronize()


def rand(*shape, dtype=torch.float32):
    return (torch.rand(*shape, device=device) * 2 - 1).to(dtype)


def boxes_in(count, w, h):
    xy = torch.rand(count, 2, device=device) * torch.tensor([w * 0.75, h * 0.75], device=device)
    wh = 16 + torch.rand(count, 2, device=device) * torch.tensor([w / 4 - 16.0, h / 4 - 16.0], device=device)
    return torch.cat([xy, xy + wh], 1)


def conv(c, dtype):
    # The layout that is quickest in torch: channels_last, but for f32 on the CPU.
    layout = torch.contiguous_format if device.type == "cpu" and dtype == torch.float32 else CL
    x = rand(c["n"], c["c"], c["h"], c["w"], dtype=dtype).contiguous(memory_format=layout)
    w = rand(c["k"], c["c"], c["r"], c["r"], dtype=dtype).contiguous(memory_format=layout)
    s, p = [c["stride"]] * 2, [c["padding"]] * 2
    if c["pass"] == "forward":
        return lambda: F.conv2d(x, w, None, s, p)
    dy = torch.rand_like(F.conv2d(x, w, None, s, p))
    mask = [c["pass"] == "data-gradient", c["pass"] == "weight-gradient", False]
    return lambda: torch.ops.aten.convolution_backward(dy, x, w, None, s, p, [1, 1], False, [0, 0], 1, mask)


def conv_levels(c, dtype):
    layout = torch.contiguous_format if device.type == "cpu" and dtype == torch.float32 else CL
    sizes = list(zip(c["sizes"][::2], c["sizes"][1::2]))
    maps = [rand(1, c["c"], h, w, dtype=dtype).contiguous(memory_format=layout) for h, w in sizes]
    w = rand(c["c"], c["c"], 3, 3, dtype=dtype).contiguous(memory_format=layout)
    run = lambda: [F.conv2d(x, w, None, 1, 1) for x in maps]
    if not c["backward"]:
        return run
    leaves = [t.requires_grad_() for t in [*maps, w]]
    return with_backward(run, leaves, [torch.rand_like(y) for y in run()])


def linear(c, dtype):
    x, w = rand(c["m"], c["k"], dtype=dtype), rand(c["n"], c["k"], dtype=dtype)
    run = lambda: F.linear(x, w)
    if not c.get("backward"):
        return run
    return with_backward(run, [x.requires_grad_(), w.requires_grad_()], torch.rand_like(run()))


def batched_matmul(c, dtype):
    a, b = rand(c["batches"], c["m"], c["k"], dtype=dtype), rand(c["batches"], c["k"], c["n"], dtype=dtype)
    run = lambda: torch.bmm(a, b)
    if not c["backward"]:
        return run
    return with_backward(run, [a.requires_grad_(), b.requires_grad_()], torch.rand_like(run()))


def with_backward(run, leaves, douts):
    def once():
        for leaf in leaves:
            leaf.grad = None
        torch.autograd.backward(run(), douts)

    return once


def norm(c, dtype):
    if dtype != torch.float32 and device.type == "cpu":
        return None  # torch 1.13 has none there
    backward = c["backward"]
    # On the CPU the plain layout: torch 1.13 copies channels_last in GroupNorm.
    x = rand(2, 256, 100, 168, dtype=dtype)
    if device.type == "cuda":
        x = x.contiguous(memory_format=CL)
    x.requires_grad_(backward)
    gamma = torch.ones(256, device=device, dtype=dtype, requires_grad=backward)
    beta = torch.zeros(256, device=device, dtype=dtype, requires_grad=backward)
    mean, var = torch.zeros(256, device=device), torch.ones(256, device=device)
    if c["op"] == "group-norm":
        run = lambda: F.group_norm(x, 32, gamma, beta)
    else:
        run = lambda: F.batch_norm(x, mean, var, gamma, beta, True)
    return with_backward(run, [x, gamma, beta], torch.rand_like(x)) if backward else run


def relu(c, dtype):
    x = rand(2, 256, 100, 168, dtype=dtype)
    return lambda: F.relu(x)


def upsample_add(c, dtype):
    x, top = rand(2, 256, 100, 168, dtype=dtype), rand(2, 256, 50, 84, dtype=dtype)
    return lambda: x + F.interpolate(top, size=x.shape[2:], mode="nearest")


def max_pool(c, dtype):
    x = rand(2, 64, 400, 672, dtype=dtype)
    run = lambda: F.max_pool2d(x, 3, 2, 1)
    return with_backward(run, [x.requires_grad_()], torch.rand_like(run())) if c["backward"] else run


def focal_loss(c, dtype):
    if dtype != torch.float32 and device.type == "cpu":
        return None
    x = (rand(c["anchors"], c["classes"]) * 6).to(dtype).requires_grad_(c["backward"])
    y = torch.zeros(c["anchors"], c["classes"], device=device, dtype=dtype)
    y[torch.arange(0, c["anchors"], 1000, device=device), 1] = 1
    run = lambda: torchvision.ops.sigmoid_focal_loss(x, y, reduction="sum")
    return with_backward(run, [x], torch.ones((), device=device, dtype=dtype)) if c["backward"] else run


def softmax_cross_entropy(c, dtype):
    x = (rand(c["rows"], c["classes"]) * 6).to(dtype).requires_grad_(c["backward"])
    y = (torch.arange(c["rows"], device=device) * 7) % c["classes"]
    run = lambda: F.cross_entropy(x, y, reduction="sum")
    return with_backward(run, [x], torch.ones((), device=device, dtype=dtype)) if c["backward"] else run


def giou_loss(c, dtype):
    a = boxes_in(c["boxes"], 1333, 800)
    b = 0.8 * a + 0.2 * boxes_in(c["boxes"], 1333, 800)
    a.requires_grad_(c["backward"])
    run = lambda: torchvision.ops.generalized_box_iou_loss(a, b, reduction="sum")
    return with_backward(run, [a], torch.ones((), device=device)) if c["backward"] else run


def assign_max_iou(c, dtype):
    from torchvision.models.detection._utils import Matcher

    anchors, boxes = boxes_in(201600, 1333, 800), boxes_in(c["boxes"], 1333, 800)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)
    return lambda: matcher(torchvision.ops.box_iou(boxes, anchors))


def nms(c, dtype):
    boxes, scores = boxes_in(c["boxes"], 1333, 800), rand(c["boxes"])
    return lambda: torchvision.ops.nms(boxes, scores, 0.5)


def roi_align(c, dtype):
    if dtype != torch.float32 and device.type == "cpu":
        return None
    dtype = torch.float32 if dtype == torch.bfloat16 else dtype  # torchvision has none in bf16, autocast widens
    levels = [rand(1, 256, 800 // s, 1344 // s, dtype=dtype) for s in (4, 8, 16, 32)]
    boxes = boxes_in(c["boxes"], 1200, 700) + 50
    side = ((boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])).sqrt()
    level = torch.log2(side / 56 + 1e-6).floor().clamp(0, 3).long()
    of_level = [[boxes[level == i].to(dtype)] for i in range(4)]

    def run():
        scales = enumerate((4, 8, 16, 32))
        return [torchvision.ops.roi_align(levels[i], of_level[i], 7, 1 / s, 2, True) for i, s in scales]

    if not c["backward"]:
        return run
    for x in levels:
        x.requires_grad_()
    return with_backward(run, levels, [torch.ones_like(y) for y in run()])


MEAN, STD = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)))


def normalise(c, dtype):
    x = torch.randint(0, 256, (c["n"], 3, c["h"], c["w"]), dtype=torch.uint8, device=device)
    return lambda: ((x.float() - MEAN) / STD).to(dtype)


def warp(c, dtype):
    x = torch.randint(0, 256, (c["n"], 3, 480, 640), dtype=torch.uint8, device=device)
    turn = torch.tensor([[0.97, -0.24, 0.0], [0.24, 0.97, 0.0]], device=device).expand(c["n"], 2, 3)

    def run():
        grid = F.affine_grid(turn, [c["n"], 3, c["h"], c["w"]], align_corners=False)
        y = F.grid_sample(x.float(), grid, mode="bilinear", align_corners=False)
        return ((y - MEAN) / STD).to(dtype)

    return run


def parameters_of(count):
    # Sizes as in a ResNet with a pyramid: many small ones, some large.
    out = []
    while count > 0:
        for size in (64, 256, 256 * 64, 256 * 256 * 9, 512 * 512 * 9):
            if count > 0:
                out.append(rand(int(min(size, count))))
                count -= size
    return out


def optimizer(c, dtype):
    params = parameters_of(c["parameters"])
    for p in params:
        p.requires_grad_(True)
        p.grad = torch.rand_like(p) * 1e-3
    if c["op"] == "sgd":
        opt = torch.optim.SGD(params, lr=1e-6, momentum=0.9, weight_decay=1e-4, foreach=True)
    else:
        opt = torch.optim.AdamW(params, lr=1e-6, weight_decay=1e-4, foreach=True)

    def run():
        torch.nn.utils.clip_grad_norm_(params, 20.0)
        opt.step()

    return run


def ema(c, dtype):
    teacher, student = parameters_of(c["parameters"]), parameters_of(c["parameters"])

    def run():
        torch._foreach_mul_(teacher, 1 - 0.0002)
        torch._foreach_add_(teacher, student, alpha=0.0002)

    return run


def attention(c, dtype):
    n, rows, heads, depth = c["batches"], c["rows"], c["heads"], c["depth"]
    q, k, v = (rand(n, heads, rows, depth, dtype=dtype) for _ in range(3))
    bias = None
    if c["biased"]:
        bias = rand(1, heads, rows, rows, dtype=dtype)
    if "groups" in c:
        count, size = c["groups"]
        group = torch.cat([torch.arange(count).repeat_interleave(size), torch.full((rows - count * size,), -1)]).to(device)
        bias = (group[None] < 0) | (group[:, None] == group[None])  # those that are seen
    if hasattr(F, "scaled_dot_product_attention"):
        run = lambda: F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    else:

        def run():
            scores = q @ k.transpose(-1, -2) * depth**-0.5
            if bias is not None:
                scores = scores.masked_fill(~bias, -torch.inf) if bias.dtype == torch.bool else scores + bias
            return scores.softmax(-1) @ v

    if not c["backward"]:
        return run
    return with_backward(run, [t.requires_grad_() for t in (q, k, v)], torch.rand_like(q))


def layer_norm(c, dtype):
    if dtype != torch.float32 and device.type == "cpu":
        return None
    x, residual = rand(*c["shape"], dtype=dtype), rand(*c["shape"], dtype=dtype)
    width, backward = c["shape"][-1], c["backward"]
    gamma, beta = (torch.full((width,), v, device=device, dtype=dtype, requires_grad=backward) for v in (1.0, 0.0))
    run = lambda: F.layer_norm(x + residual, (width,), gamma, beta)
    if not backward:
        return run
    return with_backward(run, [x.requires_grad_(), residual.requires_grad_(), gamma, beta], torch.rand_like(x))


def gelu(c, dtype):
    x = rand(*c["shape"], dtype=dtype)
    run = lambda: F.gelu(x)
    return with_backward(run, [x.requires_grad_()], torch.rand_like(x)) if c["backward"] else run


def deformable_attention(c, dtype):
    if dtype != torch.float32 and device.type == "cpu":
        return None  # no grid_sample there
    n, queries, heads, points = c["images"], c["queries"], c["heads"], c["points"]
    maps = list(zip(c["maps"][::2], c["maps"][1::2]))
    value = rand(n, sum(h * w for h, w in maps), heads, c["depth"], dtype=dtype)
    offsets = rand(n, queries, heads, len(maps), points, 2, dtype=dtype) * 4
    logits = rand(n, queries, heads, len(maps) * points, dtype=dtype) * 2
    references = torch.rand(n, queries, 1, 1, 1, c["coordinates"], device=device).to(dtype)
    wh = torch.tensor([[w, h] for h, w in maps], device=device, dtype=dtype)[:, None]

    def run():
        share = logits.softmax(-1).view(n, queries, heads, len(maps), points)
        if c["coordinates"] == 2:
            at = references + offsets / wh
        else:
            at = references[..., :2] + offsets / points * references[..., 2:] * 0.5
        out, first = 0, 0
        for l, (h, w) in enumerate(maps):
            v = value[:, first : first + h * w].permute(0, 2, 3, 1).reshape(n * heads, -1, h, w)
            grid = 2 * at[:, :, :, l].transpose(1, 2).flatten(0, 1) - 1
            found = F.grid_sample(v, grid, align_corners=False)
            out = out + (found * share[:, :, :, l].transpose(1, 2).flatten(0, 1)[:, None]).sum(-1)
            first += h * w
        return out.view(n, heads, -1, queries).permute(0, 3, 1, 2).flatten(2)

    if not c["backward"]:
        return run
    return with_backward(run, [t.requires_grad_() for t in (value, offsets, logits)], torch.rand_like(run()))


def match_queries(c, dtype):
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError:
        return None
    w, h, images = 1344, 800, range(c["images"])
    size = torch.tensor([w, h, w, h], device=device, dtype=torch.float32)
    truth = [(boxes_in(c["objects"], w, h), torch.randint(0, c["classes"], (c["objects"],), device=device)) for _ in images]
    layers = [
        [(rand(c["queries"], c["classes"], dtype=dtype) * 4, boxes_in(c["queries"], w, h)) for _ in images]
        for _ in range(c["layers"])
    ]
    shares = lambda b: torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] - b[:, :2]], 1) / size

    def run():
        for layer in layers:
            for (logits, found), (boxes, labels) in zip(layer, truth):
                p = logits.float().sigmoid()
                focal = 0.25 * (1 - p) ** 2 * -(p + 1e-12).log() - 0.75 * p**2 * -(1 - p + 1e-12).log()
                cost = 2 * focal[:, labels] + 5 * torch.cdist(shares(found), shares(boxes), p=1)
                cost = cost - 2 * torchvision.ops.generalized_box_iou(found, boxes)
                linear_sum_assignment(cost.cpu())

    return run


def step(c, dtype):
    counts = {k: c[k] for k in ("images", "labelled", "unlabelled") if k in c}
    # Imported here: that costs seconds.
    if c["model"] == "dino":
        if dtype != torch.float32 or device.type != "cpu" or c["kind"] == "mixpl":
            return None  # written for f32 on the CPU
        import dino

        run = dino.make(c["kind"], (c["h"], c["w"]), **counts)
    else:
        from detectors import make

        run = make(c["model"], c["kind"], (c["h"], c["w"]), device, dtype == torch.bfloat16, **counts)

    def sound():
        if not run():
            raise RuntimeError("the result is not sound")

    return sound


CASES = {
    "conv": conv, "conv-levels": conv_levels, "linear": linear, "batched-matmul": batched_matmul, "group-norm": norm, "batch-norm": norm, "relu": relu,
    "upsample-add": upsample_add, "max-pool": max_pool, "focal-loss": focal_loss, "nms": nms,
    "softmax-cross-entropy": softmax_cross_entropy, "giou-loss": giou_loss, "assign-max-iou": assign_max_iou,
    "roi-align": roi_align, "normalise": normalise, "warp": warp, "sgd": optimizer,
    "adamw": optimizer, "ema": ema, "step": step, "attention": attention, "layer-norm": layer_norm, "gelu": gelu,
    "deformable-attention": deformable_attention, "match-queries": match_queries,
}

print(json.dumps(dict(torch=torch.__version__, torchvision=torchvision.__version__)), flush=True)
current = None
for line in sys.stdin:
    question = json.loads(line)
    try:
        if "run" in question:
            wait()
            start = time.perf_counter()
            for _ in range(question["run"]):
                current()
            wait()
            answer = (time.perf_counter() - start) * 1e3 / question["run"]
        else:
            current = None
            case = question["prepare"]
            dtype = torch.bfloat16 if case["dtype"] == "bf16" else torch.float32
            make = CASES.get(case["op"])
            current = make(case, dtype) if make else None
            if current:
                current()
            answer = True if current else None
    except Exception as error:
        answer = dict(error=str(error))
    print(json.dumps(answer), flush=True)
