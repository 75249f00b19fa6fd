"""Hyper-parameters of AlphaEdit. Defaults are those of the paper's code for GPT-J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.locate_edit.hparams import SpreadHyperParams


@dataclass
class AlphaEditHyperParams(SpreadHyperParams):
    """Configuration of one AlphaEdit edit (arXiv 2410.02355)."""

    ALG_NAME: ClassVar[str] = "AlphaEdit"

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    nullspace_threshold: float = setting(
        2e-2, "Directions in which the keys' second moment is below this count as its null space.", more_than=0
    )
    L2: float = setting(10.0, "Weight of the change's norm.", more_than=0)
    P_loc: str | None = setting(None, "A ready projection file (AlphaEdit's `null_space_project.pt`), if it is there.")
    mom2_update_weight: float = setting(
        15_000.0, "MEMIT's λ; read from EasyEdit's files, not needed here.", more_than=0
    )
