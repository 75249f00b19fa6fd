"""Statistics on disk: our cache, EasyEdit's second-moment files and AlphaEdit's projection files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from causaledit.errors import ModelError
from causaledit.support.files import write_arrays

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Moment:
    """The keys' uncentred covariance E[k kᵀ], `(features, features)`, the number of tokens, and where it is from."""

    matrix: torch.Tensor
    count: int
    source: str


def check_moment(moment: Moment, features: int, layer: int) -> Moment:
    """Refuse what cannot be the second moment of this layer's keys.

    Raises:
        ModelError: Its shape is wrong, or it is not finite.
    """
    if tuple(moment.matrix.shape) != (features, features):
        found = "×".join(map(str, moment.matrix.shape))
        raise ModelError(
            f"The statistics from {moment.source} are {found}, but layer {layer} has keys of {features} numbers: "
            "they belong to another model. Remove them, or name this model's."
        )
    if moment.count < 1 or not torch.isfinite(moment.matrix).all() or bool((moment.matrix.diagonal() < 0).any()):
        raise ModelError(
            f"The statistics from {moment.source} are not a second moment (empty, not finite or negative)."
        )
    return moment


def read_moment(file: Path, features: int, layer: int, revision: str | None = None) -> Moment:
    """Read a `.npz` of ours or of EasyEdit (`mom2.mom2` is a sum over `mom2.count` keys).

    Args:
        features: Length of the layer's keys.
        revision: The model's revision, compared where the file names one.

    Raises:
        ModelError: The file is unreadable, has another form or belongs to another model.
    """
    try:
        with np.load(file, allow_pickle=False) as data:
            total, count = data["mom2.mom2"], int(data["mom2.count"])
            made_for = str(data["causaledit.model"]) if "causaledit.model" in data else None
    except FileNotFoundError:
        raise ModelError(f"The statistics file {str(file)!r} does not exist.") from None
    except Exception as error:  # numpy and zipfile have many ways to refuse a file
        raise ModelError(
            f"{str(file)!r} is not a statistics file of the form EasyEdit writes (`mom2.mom2`, `mom2.count`): {error}."
        ) from None
    if made_for is not None and revision is not None and made_for != revision:
        raise ModelError(f"The statistics in {str(file)!r} belong to another model: remove them, or name this model's.")
    return check_moment(Moment(torch.from_numpy(total) / max(count, 1), count, f"the file {file}"), features, layer)


def write_moment(file: Path, moment: Moment, revision: str) -> None:
    """Keep a second moment in the form that EasyEdit reads, with the model's revision.

    Raises:
        SaveError: It cannot be written; nothing is left behind.
    """
    write_arrays(
        file,
        {
            "mom2.mom2": (moment.matrix * moment.count).cpu().numpy(),
            "mom2.count": moment.count,
            "mom2.constructor": "easyeditor.util.runningstats.SecondMoment()",
            "causaledit.model": revision,
            "causaledit.source": moment.source,
        },
    )


def easyedit_files(folder: Path, model: Any, layer_name: str, dataset: str, dtype: str, samples: int) -> list[Path]:
    """Where ROME's and EasyEdit's code may keep a second moment of a model; empty for a model without a name."""
    name = str(getattr(model.config, "_name_or_path", ""))
    names = dict.fromkeys([name.rsplit("/", maxsplit=1)[-1], name.replace("/", "_")])
    file = f"{layer_name}_{dtype}_mom2_{samples}.npz"
    return [folder / model_name / f"{dataset}_stats" / file for model_name in names if model_name]


def read_projections(file: Path, features: int, layers: Sequence[int]) -> list[torch.Tensor]:
    """AlphaEdit's `null_space_project.pt`: a `(layers, features, features)` tensor of null-space projections.

    Raises:
        ModelError: The file is unreadable, or belongs to other layers or another model.
    """
    try:
        tensor = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # pickle, zip and torch have many ways to refuse a file
        raise ModelError(f"`P_loc`: {str(file)!r} cannot be read as a projection file ({error}).") from None
    wanted = (len(layers), features, features)
    if not isinstance(tensor, torch.Tensor) or tuple(tensor.shape) != wanted:
        found = "×".join(map(str, tensor.shape)) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise ModelError(
            f"`P_loc`: {str(file)!r} holds {found}, but {'×'.join(map(str, wanted))} is needed for layers "
            f"{list(layers)}: it belongs to another model or to other layers."
        )
    return list(tensor)
