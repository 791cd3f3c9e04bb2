#!/usr/bin/env python3
"""Records test/golden/weights: checkpoints of torch.save as lib/weights reads them, and real names.

  views.pth, views-legacy.pth, views-protocol4.pth   tensors of every type, as views of shared storages;
                                                     views.json: what they hold
  retinanet-r18.pth        a RetinaNet of torchvision with every size >= 64 divided by 16, before 0.13;
                           its tensors are views of one storage, so that the file stays small
  whole-model.pth          torch.save of a module instead of its state dict
  names.json               names in the state dicts of torchvision's models
  position-tables.json     tables of relative positions in windows of other sizes

  python3 scripts/golden/weights.py      needs torch and torchvision; the tests need neither
"""
import collections
import json
import os
import re

import torch
import torchvision
from torchvision.models import resnet18, resnet50, swin_t
from torchvision.models.detection import (RetinaNet, fasterrcnn_resnet50_fpn, fasterrcnn_resnet50_fpn_v2, fcos_resnet50_fpn,
                                          retinanet_resnet50_fpn, retinanet_resnet50_fpn_v2)
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

OUT = os.path.join(os.path.dirname(__file__), "..", "..", "test", "golden", "weights")
os.makedirs(OUT, exist_ok=True)


def at(name):
    return os.path.join(OUT, name)


def views():
    base = torch.arange(24, dtype=torch.float32) / 8 - 1
    double = torch.tensor([1 / 3, -2.5e-40, 1e30], dtype=torch.float64)
    tensors = collections.OrderedDict(
        whole=base.reshape(2, 3, 4),
        transposed=base.reshape(4, 6).t(),
        offset=base[5:9],
        stepped=base.reshape(4, 6)[1::2, ::3],
        channels_last=base.reshape(1, 2, 3, 4).contiguous(memory_format=torch.channels_last),
        parameter=torch.nn.Parameter(torch.tensor([0.5, -0.0])),
        half=torch.tensor([1.5, -65504.0, 6e-8, 0.1]).half(),
        bfloat16=torch.tensor([1.5, -3.0e38, 1e-40, 0.1]).bfloat16(),
        double=double,
        int64=torch.tensor([7, -(2 ** 40)]),
        int32=torch.tensor([7, -9], dtype=torch.int32),
        int16=torch.tensor([[-300]], dtype=torch.int16),
        int8=torch.tensor([-3, 4], dtype=torch.int8),
        uint8=torch.tensor([200], dtype=torch.uint8),
        bool=torch.tensor([True, False]),
        scalar=torch.tensor(3.25),
        empty=torch.zeros(0, 5),
    )
    tensors._metadata = collections.OrderedDict({"": {"version": 1}})
    checkpoint = dict(epoch=3, lr=1e-3, big=2 ** 70, names=["a", ("b", None, True)], meta={1: {"x"}, "empty": ()},
                      optimizer=dict(state={0: dict(momentum=torch.ones(2))}, param_groups=[dict(params=[0])]),
                      state_dict=tensors, size=torch.Size([2]), device=torch.device("cpu"), dtype=torch.float32)
    torch.save(checkpoint, at("views.pth"))
    torch.save(checkpoint, at("views-legacy.pth"), _use_new_zipfile_serialization=False)
    torch.save(checkpoint, at("views-protocol4.pth"), pickle_protocol=4)
    values = {k: dict(shape=list(v.shape), values=[float(x) for x in v.float().flatten()]) for k, v in tensors.items()}
    with open(at("views.json"), "w") as f:
        json.dump(dict(torch=torch.__version__, tensors=values), f)


def small(size):
    return size // 16 if size >= 64 else size


def old_name(name):
    """As torchvision wrote it before 0.13."""
    name = re.sub(r"(inner_blocks|layer_blocks)\.(\d)\.0\.", r"\1.\2.", name)
    return re.sub(r"_head\.conv\.(\d)\.0\.", lambda m: f"_head.conv.{2 * int(m[1])}.", name)


def retinanet():
    body = _resnet_fpn_extractor(resnet18(weights=None), 5, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))
    model = RetinaNet(body, num_classes=3)
    shared = ((torch.arange(9216 + 256) * 7) % 61 + 1).div(64).half()
    state = collections.OrderedDict()
    for i, (name, tensor) in enumerate(model.state_dict().items()):
        if not name.endswith("num_batches_tracked"):
            shape = [small(size) for size in tensor.shape]
            state[old_name(name)] = shared[i:i + torch.Size(shape).numel()].reshape(shape)
    torch.save(state, at("retinanet-r18.pth"))
    torch.save(torch.nn.Linear(1, 1), at("whole-model.pth"))


def names():
    quiet = dict(weights=None, weights_backbone=None)
    models = dict(resnet18=resnet18(), resnet50=resnet50(), swin_t=swin_t(), retinanet=retinanet_resnet50_fpn(**quiet),
                  retinanet_v2=retinanet_resnet50_fpn_v2(**quiet), fcos=fcos_resnet50_fpn(**quiet),
                  fasterrcnn=fasterrcnn_resnet50_fpn(**quiet), fasterrcnn_v2=fasterrcnn_resnet50_fpn_v2(**quiet))
    record = {model: list(module.state_dict()) for model, module in models.items()}
    with open(at("names.json"), "w") as f:
        json.dump(dict(torchvision=torchvision.__version__, models=record), f, separators=(",", ":"))


def tables():
    """[(2 w - 1)^2, M] of one window size and of another, as mmdetection's Swin loads it."""
    torch.manual_seed(3)
    record = []
    for before, after in ((4, 7), (7, 4), (2, 5), (1, 3)):
        side, wanted = 2 * before - 1, 2 * after - 1
        table = torch.randn(side * side, 2)
        resized = torch.nn.functional.interpolate(table.t().reshape(1, 2, side, side), size=(wanted, wanted), mode="bicubic")
        record.append(dict(before=before, after=after, table=table.flatten().tolist(),
                           resized=[round(v, 6) for v in resized.view(2, -1).t().flatten().tolist()]))
    with open(at("position-tables.json"), "w") as f:
        json.dump(dict(torch=torch.__version__, cases=record), f, separators=(",", ":"))


views()
retinanet()
names()
tables()
for name in sorted(os.listdir(OUT)):
    print(name, os.path.getsize(at(name)))
