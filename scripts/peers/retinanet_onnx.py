#!/usr/bin/env python3
"""Writes torchvision's RetinaNet R50-FPN (network without post-processing) as ONNX, for onnxruntime.

  python3 scripts/peers/retinanet_onnx.py FILE HEIGHT WIDTH
"""
import sys
import warnings

warnings.filterwarnings("ignore")
import torch
import torch.nn as nn
from torchvision.models import resnet50
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor
from torchvision.ops import FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

path, height, width = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
body = _resnet_fpn_extractor(body, 3, returned_layers=[2, 3, 4], extra_blocks=LastLevelP6P7(256, 256))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = RetinaNet(body, 91)

    def forward(self, images):
        out = self.model.head(list(self.model.backbone(images).values()))
        return out["cls_logits"], out["bbox_regression"]


with torch.no_grad():
    torch.onnx.export(
        Network().eval(),
        torch.rand(1, 3, height, width),
        path,
        opset_version=13,
        input_names=["images"],
        output_names=["cls_logits", "bbox_regression"],
    )
