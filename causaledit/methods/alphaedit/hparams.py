"""Hyper-parameters of AlphaEdit. Defaults are those of the paper's code for GPT-J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causaledit.methods.hyperparams import setting
from causaledit.methods.published_keys import Ignored
from causaledit.methods.shared.locate_edit.hparams import SpreadHyperParams

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey


@dataclass
class AlphaEditHyperParams(SpreadHyperParams):
    """Configuration of one AlphaEdit edit (arXiv 2410.02355)."""

    ALG_NAME: ClassVar[str] = "AlphaEdit"
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **SpreadHyperParams.PUBLISHED_KEYS,
        "mom2_update_weight": Ignored("MEMIT's λ; the null space takes its place"),
    }

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    nullspace_threshold: float = setting(
        2e-2, "Directions in which the keys' second moment is below this form its null space.", more_than=0
    )
    L2: float = setting(10.0, "Weight of the penalty on the norm of the weight change.", more_than=0)
    P_loc: str | None = setting(
        None, "Existing projection file (AlphaEdit's `null_space_project.pt`), used if it exists."
    )
