"""The null space of what a layer must keep (AlphaEdit section 3.2)."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causaledit.errors import EditFailedError
from causaledit.support.files import write_arrays
from causaledit.support.paths import cache_dir, expanded

if TYPE_CHECKING:
    from causaledit.methods.alphaedit.hparams import AlphaEditHyperParams
    from causaledit.methods.shared.locate_edit.editor import LocateEditor
    from causaledit.methods.shared.locate_edit.stored import Moment

logger = logging.getLogger(__name__)


def prepare_projections(editor: LocateEditor, hparams: AlphaEditHyperParams) -> None:
    """Put P of every layer into the editor's memory: from `P_loc`, the cache, or computed now.

    Raises:
        ModelError: `P_loc` belongs to another model.
        EditFailedError: A layer has no null space.
    """
    known = editor.memory.projections
    if all(layer in known for layer in hparams.layers):
        return
    if hparams.P_loc is not None and expanded(hparams.P_loc).is_file():
        known.update(editor.projections_from_file(hparams.P_loc))
        editor.report.statistics.update(dict.fromkeys(hparams.layers, f"the projections in {hparams.P_loc}"))
        return
    if hparams.P_loc is not None:
        logger.info("there is no projection file %s: computing the projections", hparams.P_loc)
    moments = editor.moments()
    with editor.report.tally.timed("statistics"):
        for layer in hparams.layers:
            device = editor.layout.weight(editor.model, layer).device
            known[layer] = _cached_projection(moments[layer], layer, hparams, device)


def _cached_projection(moment: Moment, layer: int, hparams: AlphaEditHyperParams, device: Any) -> torch.Tensor:
    if not hparams.stats_cache:
        return null_space_projection(moment, hparams.nullspace_threshold, layer, device)
    content = hashlib.sha256(moment.matrix.contiguous().cpu().numpy().tobytes())
    content.update(repr(hparams.nullspace_threshold).encode())
    file = cache_dir() / "statistics" / f"null-space-{content.hexdigest()[:32]}.npz"
    try:
        with np.load(file, allow_pickle=False) as data:
            return torch.from_numpy(data["projection"])
    except Exception as error:  # missing, or cut short by a full disk: compute it
        if file.exists():
            logger.warning("the projection in %s is unusable (%s): computing it again", file, error)
    projection = null_space_projection(moment, hparams.nullspace_threshold, layer, device)
    write_arrays(file, {"projection": projection.numpy()})
    return projection


def null_space_projection(moment: Moment, threshold: float, layer: int, device: Any = "cpu") -> torch.Tensor:
    """P = Û Ûᵀ, Û being the eigenvectors of E[k kᵀ] with eigenvalues below a threshold.

    A change Δ P then leaves the layer's answers to the kept keys as they are, up to the threshold.

    Returns:
        `(features, features)` in float32, in host memory.

    Raises:
        EditFailedError: There is no such direction.
    """
    values, vectors = torch.linalg.eigh(moment.matrix.to(device, torch.double))
    small = values < threshold
    kept = int((~small).sum())
    logger.info("layer %d: %d of %d key directions are free, %d are kept", layer, int(small.sum()), len(values), kept)
    if kept == len(values):
        raise EditFailedError(
            f"Layer {layer}'s keys have no null space: the smallest eigenvalue of their second moment is "
            f"{float(values[0]):.3g}, above `nullspace_threshold` ({threshold:g}). Raise it, for example to "
            f"{float(values.median()):.2g}, which frees half of the directions. The model is as it was."
        )
    if not kept:
        logger.warning(
            "layer %d: all eigenvalues are below `nullspace_threshold` (%g, the largest is %.3g): nothing is protected",
            layer, threshold, float(values[-1]),
        )  # fmt: skip
    free: Any = vectors[:, small]
    return (free @ free.T).float().cpu()
