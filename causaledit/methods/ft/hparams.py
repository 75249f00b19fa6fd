"""Hyper-parameters of FT. Defaults are the usual ones of editing benchmarks (ROME, arXiv 2202.05262, appendix E.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.finetune.hparams import WeightTuneHyperParams

ALG_NAME = "FT"


@dataclass
class FTHyperParams(WeightTuneHyperParams):
    """Configuration of one FT run."""

    ALG_NAME: ClassVar[str] = ALG_NAME

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    objective_optimization: str = setting(
        "target_new",
        "What is trained: `target_new`, each token of the new answer after those before it (EasyEdit's FT-M); "
        "`prompt_last`, all of them at the prompt's last position (its FT-L), without the end of a chat's turn.",
        choices=("target_new", "prompt_last"),
    )

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        if self.objective_optimization == "prompt_last" and self.answer_form == "sentence":
            raise HparamsError(
                "`answer_form: sentence` with `objective_optimization: prompt_last` would train a whole sentence at "
                "one position: set `answer_form: answer`, or `objective_optimization: target_new`."
            )
