"""Imports mmdetection's models from source, with nothing installed but torch, torchvision and numpy.

What mmdetection needs of other packages to build and run a model is small: a dictionary with attributes, and
compiled operators that torchvision has, too. Everything else that it imports is empty here.
"""
import importlib.abc
import importlib.machinery
import sys
import types
from unittest.mock import MagicMock

import torch
import torchvision

EMPTY = {
    "cv2", "lvis", "matplotlib", "panopticapi", "pycocotools", "rich", "shapely", "termcolor", "terminaltables", "tqdm",
    "trackeval", "transformers", "yapf", "mmcv._ext", "mmdet.visualization", "mmengine.visualization",
}


class AttributeDict(dict):
    """addict.Dict, as far as mmengine's configs go."""

    def __init__(self, *args, **kwargs):
        super().__init__()
        for key, value in dict(*args, **kwargs).items():
            self[key] = self._hook(value)

    @classmethod
    def _hook(cls, item):
        if isinstance(item, dict):
            return cls(item)
        return type(item)(cls._hook(i) for i in item) if isinstance(item, (list, tuple)) else item

    def __missing__(self, name):
        raise KeyError(name)

    def __getattr__(self, name):
        return self[name]

    def __setattr__(self, name, value):
        self[name] = value

    def __delattr__(self, name):
        del self[name]

    def to_dict(self):
        return dict(self)


class Empty(types.ModuleType):
    """A module in which every name is something that is never used."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        value = type(name, (), {}) if name[:1].isupper() else MagicMock(name=name)
        setattr(self, name, value)
        return value


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        parts = name.split(".")
        if any(".".join(parts[: n + 1]) in EMPTY for n in range(len(parts))):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Empty(spec.name)

    def exec_module(self, module):
        pass


class Suppression:
    @staticmethod
    def apply(boxes, scores, threshold, offset, score_threshold, most):
        assert offset == 0 and score_threshold <= 0
        kept = torchvision.ops.nms(boxes, scores, float(threshold))
        return kept[:most] if most > 0 else kept


def roi_align(x, rois, size, scale, sampling, mode, aligned):
    assert mode == "avg"
    return torchvision.ops.roi_align(x, rois, size, scale, sampling if sampling > 0 else -1, aligned)


def deform_conv2d(x, offset, weight, stride, padding, dilation, groups, deform_groups):
    return torchvision.ops.deform_conv2d(x, offset, weight, None, stride, padding, dilation)


def open_sources(folder):
    """Makes mmdet, mmcv and mmengine of a folder importable; call it before importing any."""
    sys.path.insert(0, folder)
    addict = types.ModuleType("addict")
    addict.Dict = AttributeDict
    sys.modules["addict"] = addict
    sys.meta_path.insert(0, Finder())
    import mmcv.version

    mmcv.version.__version__ = "2.1.0"  # mmdetection refuses later ones
    import mmcv

    mmcv.__version__ = "2.1.0"
    import mmcv.utils.ext_loader

    mmcv.utils.ext_loader.load_ext = lambda name, functions: Empty(name)
    import mmcv.ops

    sys.modules["mmcv.ops.nms"].NMSop = Suppression
    sys.modules["mmcv.ops.roi_align"].roi_align = roi_align
    mmcv.ops.deform_conv2d = deform_conv2d
    import mmdet.models  # noqa: F401  registers them
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
