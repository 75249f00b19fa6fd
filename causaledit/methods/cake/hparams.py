"""Hyper-parameters of CaKE. Defaults are those of its publication's code (arXiv 2503.16356) for 7–8B models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from causaledit.methods.hyperparams import setting
from causaledit.methods.shared.hparams import TrainedAdapterHyperParams

ALG_NAME = "CaKE"


@dataclass
class CaKEHyperParams(TrainedAdapterHyperParams):
    """Configuration of one CaKE run."""

    ALG_NAME: ClassVar[str] = ALG_NAME

    alg_name: str = setting(ALG_NAME, "Name of the method in the host.")
    lora_rank: int = setting(8, "Rank of the LoRA adapter.", integer_from=1)
    lora_alpha: float | None = setting(32.0, "LoRA alpha; None means 2 × rank.", more_than=0)

    # ---- data ------------------------------------------------------------------------------------
    question_source: str = setting(
        "given",
        "`given`: the request's own paraphrases and learning questions, as published (a request without learning "
        "questions is refused). `templates`: the request's question, paraphrases of the relation bank, the request's "
        "learning questions where it has any, and templates up to `learning_questions`; its paraphrases stay probes.",
        choices=("given", "templates"),
    )
    paraphrases: int = setting(6, "Number of the bank's paraphrases with `question_source: templates`.", integer_from=0)
    learning_questions: int = setting(
        6, "Number of learning questions with `question_source: templates`.", integer_from=1
    )
    text_format: str = setting(
        "plain",
        "`plain`: question and answer as one bare text, as published; `chat`: the answer as an assistant's turn.",
        choices=("plain", "chat"),
    )
    question_loss: bool = setting(
        True, "Whether the tokens of the question count in the loss too, as published, or those of the answer alone."
    )

    # ---- training --------------------------------------------------------------------------------
    learning_rate: float = setting(1e-4, "Peak learning rate of AdamW, which falls linearly to 0.", more_than=0)
    train_batch_size: int = setting(4, "Number of texts per optimiser step.", integer_from=1)
    epochs: int = setting(40, "Number of passes over the texts.", integer_from=1)
    max_steps: int | None = setting(
        None, "Maximum number of optimiser steps for one edit; None: limited by epochs alone.", integer_from=1
    )
    steps_per_extra_edit: int = setting(0, "Steps added to `max_steps` per further edit.", integer_from=0)
    max_grad_norm: float = setting(1.0, "Gradient clipping.", more_than=0)
    loss_mean: str = setting(
        "token",
        "`token`: every token weighs the same, as published; `sequence`: every text does.",
        choices=("token", "sequence"),
    )
    micro_batch_tokens: int = setting(
        4096, "Maximum number of tokens, padding included, in one pass; a step's loss stays the same.", integer_from=1
    )

    def steps(self, texts: int, edits: int) -> int:
        """Optimiser steps over so many texts of so many edits."""
        steps = math.ceil(texts / self.train_batch_size) * self.epochs
        if self.max_steps is None:
            return steps
        return min(steps, self.max_steps + self.steps_per_extra_edit * (edits - 1))
