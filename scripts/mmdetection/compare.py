#!/usr/bin/env python3
"""Compares all detectors with mmdetection's own code: same weights, pictures and boxes in; losses, gradients of
all parameters and detections out; and the laws by which fresh weights are drawn.

  git clone mmdetection, mmcv and mmengine; link their folders mmdet, configs, mmcv and mmengine into SOURCES
  npm run build && node scripts/mmdetection/record.mjs FOLDER
  python3 scripts/mmdetection/compare.py SOURCES FOLDER [case ...]       needs torch, torchvision, scikit-learn (PAA)

Ends with 1 where something differs that is not known to (KNOWN, ZERO). Both sides are f32: assignments hang on equal
overlaps, which f64 has not.
"""
import copy
import glob
import json
import logging
import os
import struct
import sys
import warnings

import numpy as np
import torch

from sources import open_sources

warnings.filterwarnings("ignore")
SOURCES, FOLDER, *ONLY = sys.argv[1:]
open_sources(SOURCES)
logging.disable(logging.CRITICAL)

from mmdet.registry import MODELS  # noqa: E402
from mmdet.structures import DetDataSample  # noqa: E402
from mmengine.config import Config  # noqa: E402
from mmengine.logging import MessageHub  # noqa: E402
from mmengine.structures import InstanceData  # noqa: E402

CLASSES, ALL = 6, 1 << 20
CONFIGS = {
    "retinanet": "_base_/models/retinanet_r50_fpn.py",
    "fcos": "fcos/fcos_r50-caffe_fpn_gn-head-center-normbbox-centeronreg-giou_1x_coco.py",
    "atss": "atss/atss_r50_fpn_1x_coco.py",
    "gfl": "gfl/gfl_r50_fpn_1x_coco.py",
    "paa": "paa/paa_r50_fpn_1x_coco.py",
    "centernet": "centernet/centernet-update_r50-caffe_fpn_ms-1x_coco.py",
    "tood": "tood/tood_r50_fpn_1x_coco.py",
    "tood-aligned": "tood/tood_r50_fpn_1x_coco.py",
    "faster-rcnn": "_base_/models/faster-rcnn_r50_fpn.py",
    "cascade-rcnn": "_base_/models/cascade-rcnn_r50_fpn.py",
    "sparse-rcnn": "sparse_rcnn/sparse-rcnn_r50_fpn_1x_coco.py",
    "dab-detr": "dab_detr/dab-detr_r50_8xb2-50e_coco.py",
    "deformable-detr": "deformable_detr/deformable-detr-refine-twostage_r50_16xb2-50e_coco.py",
    "dino": "dino/dino-4scale_r50_8xb2-12e_coco.py",
    "dino-swin": "dino/dino-5scale_swin-l_8xb2-12e_coco.py",
}
# Cases whose losses differ on purpose, see native/DECISIONS.md: CenterNet's heat map of a picture without boxes, Sparse
# R-CNN's normaliser of a batch without any.
KNOWN = {("centernet", "half"), ("centernet", "none"), ("sparse-rcnn", "none")}
# Biases that are 0 at first, where mmdetection leaves torch's.
ZERO = ("ffn.layers.0.0.bias", "ffn.layers.1.bias", "_trans_fc.bias")


def plain(value):
    return value if isinstance(value, list) else [value]


def model_of(name):
    m = Config.fromfile(os.path.join(SOURCES, "configs", CONFIGS[name])).model
    m.pop("init_cfg", None)
    channels, widths = 64, [64, 128, 256, 512]
    m.backbone.pop("init_cfg", None)
    if name == "dino-swin":
        widths = [48, 96, 192, 384]
        m.backbone.update(embed_dims=48, depths=[2, 2, 4, 2], num_heads=[3, 6, 12, 24], window_size=7, drop_path_rate=0.0,
                          with_cp=False, convert_weights=False)
    else:
        m.backbone.update(depth=18, frozen_stages=-1, style="pytorch", norm_eval=True,
                          norm_cfg=dict(type="BN", requires_grad=True))
    m.neck.in_channels = widths[-len(m.neck.in_channels):]
    if "encoder" in m:
        channels = 64 if name == "dab-detr" else 256
        m.num_queries, m.test_cfg.max_per_img = 40, 200
        m.positional_encoding.num_feats = channels // 2
        m.bbox_head.update(num_classes=CLASSES, embed_dims=channels)
        m.encoder.num_layers, m.decoder.num_layers = 2, 3
        for layer in (m.encoder.layer_cfg, m.decoder.layer_cfg):
            for part in ("self_attn_cfg", "cross_attn_cfg"):
                if part in layer:
                    layer[part].embed_dims = channels
                    if name != "dab-detr":
                        layer[part].dropout = 0.0
            layer.ffn_cfg.update(embed_dims=channels, feedforward_channels=96, ffn_drop=0.0)
        if "dn_cfg" in m:
            m.dn_cfg.update(label_noise_scale=1e-12, box_noise_scale=1e-12)  # 0 is refused
    elif "roi_head" not in m:
        m.bbox_head.update(num_classes=CLASSES, in_channels=channels, feat_channels=channels,
                           stacked_convs=3 if "tood" in name else 2)
    else:
        m.roi_head.bbox_roi_extractor.out_channels = channels
        if name == "sparse-rcnn":
            m.rpn_head.update(num_proposals=30, proposal_feature_channel=channels)
            m.roi_head.update(num_stages=3, stage_loss_weights=[1] * 3, bbox_head=m.roi_head.bbox_head[:3])
            m.train_cfg.rcnn = m.train_cfg.rcnn[:3]
            for head in m.roi_head.bbox_head:
                head.update(num_classes=CLASSES, in_channels=channels)
                head.dynamic_conv_cfg.update(in_channels=channels, out_channels=channels)
        else:
            m.rpn_head.update(in_channels=channels, feat_channels=channels)
            for head in plain(m.roi_head.bbox_head):
                head.update(num_classes=CLASSES, in_channels=channels, fc_out_channels=128)
            for stage in [m.train_cfg.rpn, *plain(m.train_cfg.rcnn)]:
                stage.sampler.update(num=ALL, pos_fraction=1.0)
    m.neck.out_channels = channels
    return m


def tensors_of(path):
    raw = open(path, "rb").read()
    size = struct.unpack("<Q", raw[:8])[0]
    out = {}
    for name, entry in json.loads(raw[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            out[name] = torch.from_numpy(np.frombuffer(raw[begin:end], np.float32).copy()).reshape(entry["shape"])
    return out


def sides_of(size):
    return int(size["height"]), int(size["width"])


def samples_of(record, canvas):
    samples = []
    for image, size, padded in zip(record["images"], record["sizes"], record["padSizes"]):
        sample = DetDataSample(metainfo=dict(
            img_shape=sides_of(size), ori_shape=sides_of(size), pad_shape=sides_of(padded), batch_input_shape=canvas,
            scale_factor=(1.0, 1.0)))
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(image["boxes"], dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(image["labels"], dtype=torch.long))
        samples.append(sample)
    return samples


def clip(boxes, sample):
    height, width = sample["img_shape"]
    return torch.stack([boxes[:, i].clamp(0, width if i % 2 == 0 else height) for i in range(4)], 1)


def clip_before_suppression(head):
    """TOOD's boxes are clipped here, mmdetection's are not."""
    inner = type(head)._bbox_post_process

    def post_process(results, cfg, rescale=False, with_nms=True, img_meta=None):
        results.bboxes = clip(results.bboxes, img_meta)
        return inner(head, results=results, cfg=cfg, rescale=rescale, with_nms=with_nms, img_meta=img_meta)

    head._bbox_post_process = post_process


def worst_loss(ours, theirs):
    if set(ours) != set(theirs):
        return float("inf")
    return max(abs(ours[k] - v) / max(abs(v), 1e-3) for k, v in theirs.items())


def worst_gradient(ours, model):
    worst = 0.0, ""
    for name, parameter in model.named_parameters():
        wanted = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        if wanted.norm() > 1e-5:
            got = ours.get(name, torch.zeros_like(wanted))
            worst = max(worst, (float((got - wanted).norm() / wanted.norm()), name))
    return worst


def unmatched(found, predicted):
    """Detections of either side that the other has not."""
    count = 0
    for ours, theirs in zip(found, predicted):
        boxes, p = np.array(ours["boxes"]).reshape(-1, 4), theirs.pred_instances
        theirs_boxes = clip(p.bboxes, theirs.metainfo).numpy()
        # Zero divided by zero in PAA's votes; of no use here, where such boxes are left out.
        shown = np.isfinite(theirs_boxes).all(1) & (theirs_boxes[:, 2:] > theirs_boxes[:, :2]).all(1)
        left = set(range(len(boxes)))
        for box, score, label in zip(theirs_boxes[shown], p.scores.numpy()[shown], p.labels.numpy()[shown]):
            same = [j for j in left if ours["labels"][j] == label and abs(ours["scores"][j] - score) < 2e-4
                    and abs(boxes[j] - box).max() < 0.05]
            left -= set(same[:1])
            count += not same
        # With boxes that are left out there is room for others at the end of our list.
        count += max(0, len(left) - int((~shown).sum()))
    return count


def other_laws(name, fresh):
    torch.manual_seed(1)
    model = MODELS.build(model_of(name))
    model.init_weights()
    out = []
    for path, parameter in model.named_parameters():
        if path.startswith("backbone.") or path.endswith(ZERO):  # backbones start from ImageNet
            continue
        a, b = parameter.detach().flatten(), fresh[path].flatten()
        error, spread = 6 / len(a) ** 0.5, max(float(a.square().mean().sqrt()), float(b.square().mean().sqrt()))
        differs = abs(a.square().mean().sqrt() - b.square().mean().sqrt()) > error * spread
        shifted = abs(a.mean() - b.mean()) > error * spread
        ends = len(a) > 500 and abs(a.abs().max() - b.abs().max()) > 0.35 * a.abs().max()
        if differs or shifted or ends:
            out.append(path)
    return out


def compare(path):
    at = path[: -len("json")]
    record = json.load(open(path))
    name, scene = record["name"], at.split(".")[-2]
    model = MODELS.build(model_of(name))
    missing = model.load_state_dict(tensors_of(at + "weights.safetensors"), strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    assert all(k.endswith(("num_batches_tracked", "position_index")) for k in missing.missing_keys), missing
    ours = tensors_of(at + "gradients.safetensors")
    pixels = ours.pop("pixels").permute(0, 3, 1, 2).contiguous()
    samples = samples_of(record, tuple(pixels.shape[-2:]))
    # TOOD asks for it to choose its assigner.
    MessageHub.get_current_instance().update_info("epoch", 5 if name == "tood-aligned" else 0)
    model.train()
    raw = model.loss(pixels, copy.deepcopy(samples))
    losses = {k: sum(i.mean() for i in plain(v)) for k, v in raw.items() if "loss" in k}
    sum(losses.values()).backward()
    model.eval()
    if "tood" in name:
        clip_before_suppression(model.bbox_head)
    with torch.no_grad():
        predicted = model.predict(pixels, copy.deepcopy(samples), rescale=False)

    loss, gradient = worst_loss(record["losses"], {k: float(v) for k, v in losses.items()}), worst_gradient(ours, model)
    detections = unmatched(record["found"], predicted)
    laws = other_laws(name, tensors_of(at + "fresh.safetensors")) if scene == "labelled" else []
    known = (name, scene) in KNOWN
    off = [what for what, is_off in (
        ("losses", loss > 1e-4 and not known),
        ("gradients", gradient[0] > 3e-3 and not known),
        ("detections", detections > 0),
        ("fresh weights: " + ", ".join(laws), laws),
    ) if is_off]
    print(f"{name:16s} {scene:9s} losses {loss:.0e}  gradients {gradient[0]:.0e}  detections off {detections}"
          f"{'  known' if known else ''}{'  DIFFERENT: ' + '; '.join(off) if off else ''}", flush=True)
    return not off


paths = [p for p in sorted(glob.glob(os.path.join(FOLDER, "*.json"))) if not ONLY or os.path.basename(p).split(".")[0] in ONLY]
assert paths, f"{FOLDER} must hold what record.mjs writes"
sys.exit(0 if all([compare(p) for p in paths]) else 1)
