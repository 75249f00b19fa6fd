"""Hyper-parameters of ROME. Defaults are those of the paper's code for GPT-J."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.locate_edit.hparams import LocateEditHyperParams


@dataclass
class ROMEHyperParams(LocateEditHyperParams):
    """Configuration of one ROME edit (arXiv 2202.05262)."""

    ALG_NAME: ClassVar[str] = "ROME"

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    v_num_grad_steps: int = setting(
        20, "Maximum number of evaluations of the value's loss; one optimiser step fewer is taken.", integer_from=1
    )
    context_template_length_params: list[list[int]] = setting(
        [[5, 10], [10, 10]],
        "[length in tokens, number] pairs: the contexts that the model samples to put before the prompt.",
    )

    def check(self) -> None:
        super().check()
        if len(self.layers) != 1:
            raise HparamsError(f"`layers` must name one layer, as ROME rewrites only one, got {self.layers!r}.")
