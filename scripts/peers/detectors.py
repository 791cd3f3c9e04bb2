"""torchvision's R50-FPN detectors as the benches of both sides run them: training step, inference, MixPL iteration."""
import contextlib
import copy
import math
import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torchvision.models import resnet50
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7


class Wrapped(nn.Module):
    """channels_last in, or f32 out, around a part of the model."""

    def __init__(self, m, f32):
        super().__init__()
        self.m, self.f32 = m, f32

    def __getattr__(self, k):
        try:
            return super().__getattr__(k)
        except AttributeError:
            return getattr(super().__getattr__("m"), k)

    def forward(self, x):
        if not self.f32:
            return self.m(x.contiguous(memory_format=torch.channels_last))
        return {k: v.float() for k, v in self.m(x).items()}


class Norm(nn.Module):
    """GroupNorm in f32: torch 1.13 has none that takes bf16 with f32 weights on the CPU."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x):
        return self.m(x.float()).to(x.dtype)


class Pool(nn.Module):
    """RoIAlign in f32: the CPU has none in bf16."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, x, boxes, shapes):
        return self.m({k: v.float() for k, v in x.items()}, [b.float() for b in boxes], shapes)


class Floats(nn.Module):
    """Lists, dicts and tensors as f32."""

    def __init__(self, m):
        super().__init__()
        self.m = m

    def forward(self, *args):
        return self.cast(self.m(*args))

    def cast(self, o):
        if torch.is_tensor(o):
            return o.float()
        return type(o)(self.cast(v) for v in o)


class Anchors(nn.Module):
    """Anchors in f32 whatever the features are."""

    def __init__(self, g):
        super().__init__()
        self.g = g

    def num_anchors_per_location(self):
        return self.g.num_anchors_per_location()

    def forward(self, images, features):
        return self.g(images, [f[:, :1].float() for f in features])


def build(architecture, size, device, bf16, detections):
    gpu, (h, w) = device.type == "cuda", size
    # bf16: BatchNorm in evaluation mode, which autocast keeps in bf16; FrozenBatchNorm2d promotes to f32.
    body = resnet50(weights=None, norm_layer=nn.BatchNorm2d if bf16 or gpu else FrozenBatchNorm2d)
    for m in body.modules():
        if hasattr(m, "bn3"):
            m.bn3.weight.data.fill_(0.25)
    if architecture == "faster-rcnn":
        body = _resnet_fpn_extractor(body, 3)
    else:
        body = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    if bf16 or gpu:
        for m in body.modules():
            if isinstance(m, nn.BatchNorm2d):
                m.requires_grad_(False)
    sizes = dict(min_size=min(h, w), max_size=max(h, w), _skip_resize=True)
    if architecture == "faster-rcnn":
        sizes.update(box_score_thresh=0.0, rpn_post_nms_top_n_train=1000, box_detections_per_img=detections)
        model = FasterRCNN(body, 91, **sizes)
    else:
        sizes.update(score_thresh=0.0, detections_per_img=detections)
        model = (FCOS if architecture == "fcos" else RetinaNet)(body, 91, **sizes)
    if architecture == "fcos":
        # As lib/bench/steps.ts does: boxes of a random network would often have no width or height.
        nn.init.constant_(model.head.regression_head.bbox_reg.bias, 4)
    if bf16:
        cast(model, architecture)
    model = model.to(device)
    if gpu:
        model = model.to(memory_format=torch.channels_last)
    return model


def compile_parts(model, architecture):
    # Shapes stay: one graph for each is faster than one for all of them, and sooner compiled.
    model.backbone.forward = torch.compile(model.backbone.forward, dynamic=False)
    if architecture != "faster-rcnn":
        model.head.forward = torch.compile(model.head.forward, dynamic=False)


def cast(model, architecture):
    """What autocast does not do by itself."""
    model.to(memory_format=torch.channels_last)
    for m in list(model.modules()):
        for name, child in list(m.named_children()):
            if isinstance(child, nn.GroupNorm) and not isinstance(m, Norm):
                setattr(m, name, Norm(child))
    model.backbone_out_channels = model.backbone.out_channels
    model.backbone = Wrapped(model.backbone, False)
    if architecture == "faster-rcnn":
        model.rpn.head = Floats(model.rpn.head)
        model.rpn.anchor_generator = Anchors(model.rpn.anchor_generator)
        model.roi_heads.box_roi_pool = Pool(model.roi_heads.box_roi_pool)
        model.roi_heads.box_predictor = Floats(model.roi_heads.box_predictor)
    else:
        model.head = Wrapped(model.head, True)
        model.anchor_generator = Anchors(model.anchor_generator)


def train_mode(m):
    m.train()
    for x in m.modules():
        if isinstance(x, nn.BatchNorm2d):
            x.eval()


def cutout(x):
    _, h, w = x.shape
    for _ in range(random.randrange(1, 20)):
        r = random.random() * 0.1
        ph, pw = int(h * r), int(w * r)
        y, q = random.randrange(h - ph + 1), random.randrange(w - pw + 1)
        x[:, y:y + ph, q:q + pw] = 0
    return x


def make(architecture, kind, size, device, bf16=False, compiled=False, images=1, labelled=1, unlabelled=4):
    """A function that runs the step once and says whether its result is sound."""
    h, w = size
    amp = (lambda: torch.autocast(device.type, dtype=torch.bfloat16)) if bf16 else contextlib.nullcontext
    model = build(architecture, size, device, bf16, 7 if kind == "mixpl" else 100)
    # A copy of a compiled module would call the original's.
    teacher = copy.deepcopy(model).eval().requires_grad_(False) if kind == "mixpl" else None
    if compiled:
        for one in filter(None, (model, teacher)):
            compile_parts(one, architecture)
    image = lambda: torch.rand(3, h, w, device=device)

    def target(h=h, w=w):
        xy = torch.rand(7, 2) * torch.tensor([w * 0.7, h * 0.7])
        wh = (0.03 + 0.27 * torch.rand(7, 2)) * torch.tensor([float(w), float(h)])
        return dict(boxes=torch.cat([xy, xy + wh], 1).to(device), labels=torch.randint(1, 91, (7,)).to(device))

    if kind == "infer":
        model.eval()
        x = [image() for _ in range(images)]

        def infer():
            with torch.no_grad(), amp():
                return all(len(found["boxes"]) > 0 for found in model(x))

        return infer

    train_mode(model)
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.SGD(params, lr=1e-4, momentum=0.9, weight_decay=1e-4, foreach=True)

    def learn(x, t, weight):
        with amp():
            losses = model(x, t)
        loss = weight * sum(v.float() for v in losses.values())
        loss.backward()
        return bool(torch.isfinite(loss))

    def update():
        torch.nn.utils.clip_grad_norm_([p for p in params if p.grad is not None], 20.0)
        opt.step()
        opt.zero_grad(set_to_none=True)

    if kind == "train":
        x, t = [image() for _ in range(images)], [target() for _ in range(images)]

        def train():
            ok = learn(x, t, 1)
            update()
            return ok

        return train

    # A tile's picture fits a square of this side; the canvas is twice what the pictures fill of it.
    tile = int(min(h, w) * 0.75) // 16 * 16
    k = tile / max(h, w)
    th, tw = round(h * k), round(w * k)
    mh, mw = (16 * math.ceil(s / 16) for s in (th, tw))
    lab, lab_t = [image() for _ in range(labelled)], [target() for _ in range(labelled)]
    weak, strong = [image() for _ in range(unlabelled)], [image() for _ in range(unlabelled)]
    cache = [image() for _ in range(8)]
    mix_t, mos_t = [target() for _ in range(unlabelled)], [target(2 * mh, 2 * mw)]
    sp, tp = list(model.parameters()), list(teacher.parameters())

    def mixpl():
        with torch.no_grad(), amp():
            found = teacher(weak)
        mixed = []
        for d, s in zip([cutout(s.clone()) for s in strong], cache[:unlabelled]):
            o = d * 0.5
            o += cutout(s.flip(-1)) * 0.5
            mixed.append(o)
        mosaic = torch.zeros(3, 2 * mh, 2 * mw, device=device)
        for i, s in enumerate(cache[4:]):
            s = cutout(F.interpolate(s[None], size=(th, tw))[0].flip(-1))
            y, q = (mh - th if i < 2 else mh), (mw - tw if i % 2 == 0 else mw)
            mosaic[:, y:y + th, q:q + tw] += s
        ok = learn(lab, lab_t, 1) and learn(mixed, mix_t, 2) and learn([mosaic], mos_t, 1)
        update()
        with torch.no_grad():
            torch._foreach_mul_(tp, 1 - 0.0002)
            torch._foreach_add_(tp, sp, alpha=0.0002)
        return ok and len(found) == unlabelled

    return mixpl
