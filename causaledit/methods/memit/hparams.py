"""Hyper-parameters of MEMIT. Defaults are those of the paper's code for GPT-J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.methods.hyperparams import setting
from causaledit.methods.locate_edit.hparams import LocateEditHyperParams


@dataclass
class SpreadHyperParams(LocateEditHyperParams):
    """What MEMIT and AlphaEdit share: several layers, of which the last carries the value."""

    layers: list[int] = setting(
        [3, 4, 5, 6, 7, 8], "Layers whose MLP output projection is rewritten, counted from 0, lowest first."
    )
    layer_selection: str = setting("all", "Which of `layers` are rewritten.", choices=("all",))
    clamp_norm_factor: float = setting(0.75, "Longest change of the value, in norms of its initial one.", above=0)
    mom2_update_weight: float = setting(15_000.0, "λ: how much what is to stay weighs against the edits.", above=0)

    def check(self) -> None:
        super().check()
        self.layers = sorted(self.layers)


@dataclass
class MEMITHyperParams(SpreadHyperParams):
    """Configuration of one MEMIT edit (arXiv 2210.07229)."""

    ALG_NAME: ClassVar[str] = "MEMIT"

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
