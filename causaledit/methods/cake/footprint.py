"""What CaKE's stages need in memory: a micro-batch of its texts, on a model without weights."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from causaledit.methods.footprint import StageFootprint, adapter_stages, adapter_terms, with_adapter
from causaledit.methods.shared.footprints import (
    adapter_remedies,
    contrast_peak,
    preserve_stages,
    preserving_peak,
    prompts_of,
    supervised_peak,
)
from causaledit.models.footprint import larger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.cake.hparams import CaKEHyperParams
    from causaledit.methods.footprint import Planner, Remedy


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    hparams, lengths = planner.hparams, planner.lengths
    row = lengths.prompt + lengths.answer
    with planner.model() as plain:
        stages = preserve_stages(plain, planner)
    begin = 1 if hparams.question_loss else lengths.prompt
    rows = min(hparams.train_batch_size, max(1, hparams.micro_batch_tokens // row))
    texts = 2 + hparams.paraphrases + hparams.learning_questions
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        contexts = prompts_of(lengths, begin, rows)
        peak = supervised_peak(adapted, planner, contexts, [[0] * (row - begin)] * rows)
        trained = hparams.steps(texts, 1) * min(hparams.train_batch_size, texts) * row
        terms = adapter_terms(adapted, planner)
        stages.append(
            StageFootprint(
                "train",
                larger(peak, preserving_peak(adapted, planner), contrast_peak(adapted, planner)),
                trained=trained,
                **terms,
            )
        )
        return [*stages, *adapter_stages(adapted, planner)]


def remedies(hparams: CaKEHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    yield from adapter_remedies(hparams, trained=("train",), micro="micro_batch_tokens")
