"""A torchvision whose compiled half does not fit the torch beside it.

Its wheels on the package index are GPU builds. Beside a CPU build of torch their library does not load, the operator
`torchvision::nms` is missing, and importing torchvision fails; so does everything that imports it on the way:
transformers' model classes, trl's trainers, EasyEdit. The text models here need nothing of it, so the operator's schema
is enough.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def make_torchvision_importable() -> bool:
    """Let torchvision be imported where its compiled library does not load. Call before transformers' models are.

    Nothing is changed where there is no torchvision, or where it works.

    Returns:
        Whether the operator's schema had to be declared.
    """
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations:
        return False
    import torch

    if _has_operator(torch):
        return False
    for library in Path(spec.submodule_search_locations[0]).glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]  # torch leaves it untyped
        except OSError:
            continue
    if _has_operator(torch):
        return False
    torch.library.define("torchvision::nms", _NMS)
    logger.debug("torchvision's compiled operators do not load beside torch %s: declared by name", torch.__version__)
    return True


def _has_operator(torch: Any) -> bool:
    try:
        return hasattr(torch.ops.torchvision, "nms")
    except RuntimeError:
        return False
