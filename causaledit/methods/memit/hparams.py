"""Hyper-parameters of MEMIT. Defaults are those of the paper's code for GPT-J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.locate_edit.hparams import SpreadHyperParams


@dataclass
class MEMITHyperParams(SpreadHyperParams):
    """Configuration of one MEMIT edit (arXiv 2210.07229)."""

    ALG_NAME: ClassVar[str] = "MEMIT"

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    mom2_update_weight: float = setting(15_000.0, "λ: weight of what must stay, relative to the edits.", more_than=0)
