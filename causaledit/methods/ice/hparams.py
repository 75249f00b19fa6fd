"""Hyper-parameters of ICE (arXiv 2406.11194)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from causaledit.errors import HparamsError
from causaledit.methods.hyperparams import setting
from causaledit.methods.published_keys import OnlyAt
from causaledit.methods.shared.finetune.hparams import WeightTuneHyperParams

if TYPE_CHECKING:
    from causaledit.methods.published_keys import PublishedKey

ALG_NAME = "ICE"
CONTEXTS = ("narrative", "statement", "paraphrases")


@dataclass
class ICEHyperParams(WeightTuneHyperParams):
    """Configuration of one ICE run."""

    ALG_NAME: ClassVar[str] = ALG_NAME
    PUBLISHED_KEYS: ClassVar[dict[str, PublishedKey]] = {
        **WeightTuneHyperParams.PUBLISHED_KEYS,
        "objective_optimization": OnlyAt(("target_new",), "ICE trains on the whole new answer; set it to target_new"),
    }

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    steps: int = setting(25, "Maximum number of optimiser steps.", integer_from=1)
    learning_rate: float = setting(7e-4, "Learning rate of AdamW, constant.", more_than=0)
    layers: list[int] | None = setting([4, 5, 6, 7, 8], "Numbers of the layers whose weights change; None means all.")
    norm_constraint: float | None = setting(5e-4, "ε: how far any single weight may move; None: no bound.", more_than=0)
    contexts: list[str] = setting(
        ["narrative", "statement"],
        "What the contexts c are made of: `narrative` (where the request has one), `statement` (one sentence with "
        "the new fact), `paraphrases` (further such sentences). They take turns.",
    )
    samples: int = setting(5, "Continuations sampled per edit and step.", integer_from=1)
    sample_max_new_tokens: int = setting(20, "Maximum length of a continuation, in tokens.", integer_from=1)
    sample_temperature: float = setting(1.0, "Sampling temperature of the continuations.", more_than=0)
    sample_top_p: float = setting(1.0, "Top-p (nucleus) of the continuations' sampling.", more_than=0, fraction=True)
    context_weight: float = setting(1.0, "λ: weight of the in-context loss beside the target loss.", at_least=0)
    context_loss: str = setting(
        "full",
        "`full`: KL over the whole vocabulary at each sampled position; `sampled`: its one-sample estimate, the "
        "log-likelihood of the continuation.",
        choices=("full", "sampled"),
    )
    stop_loss: float = setting(0.0, "Stop once the loss of a step is below this.", at_least=0)

    def check(self) -> None:
        """Rules between fields."""
        super().check()
        kinds = self.contexts
        if not isinstance(kinds, list) or not kinds or any(kind not in CONTEXTS for kind in kinds):
            raise HparamsError(f"`contexts` must be a list of {', '.join(CONTEXTS)}, got {kinds!r}.")
