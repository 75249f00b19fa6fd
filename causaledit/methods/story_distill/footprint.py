"""What StoryDistill's stages need in memory: their heaviest passes, on a model without weights."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, adapter_stages, adapter_terms, with_adapter
from causaledit.methods.shared.footprints import (
    TEXTS_TOGETHER,
    adapter_remedies,
    contrast_peak,
    preserve_stages,
    preserving_peak,
    prompts_of,
    question_stages,
    shares,
)
from causaledit.methods.story_distill.distil import distillation_kl
from causaledit.methods.story_distill.targets import SCORED_AT_ONCE
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.scoring import completion_cross_entropy, completion_logits, logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.footprint import Planner
    from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
    from causaledit.models.footprint import PlannedModel


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    hparams, lengths = planner.hparams, planner.lengths
    sampled = hparams.target_source != "given"
    answer = lengths.trace or (hparams.answer_max_new_tokens if sampled else lengths.answer)
    questions = max(hparams.single_hop_questions + hparams.multi_hop_questions, hparams.min_questions)
    answers = questions * (hparams.answers_per_question if sampled else 1)
    with planner.model() as plain:
        stages = preserve_stages(plain, planner)
        stages += question_stages(plain, planner)
        taught, stored = _targets(plain, hparams, planner, answers, answer)
        stages.append(taught)
    with planner.model(partial(with_adapter, hparams=hparams)) as adapted:
        row = lengths.context + answer
        rows = min(hparams.train_batch_size, max(1, hparams.micro_batch_tokens // row))
        peak = _distilling(adapted, hparams, planner, rows, answer, stored=bool(stored))
        steps = math.ceil(answers / hparams.train_batch_size) * hparams.epochs
        limit = hparams.step_limit(1)
        steps = steps if limit is None else min(steps, limit)
        stages.append(
            StageFootprint(
                "distil", larger(peak, preserving_peak(adapted, planner), contrast_peak(adapted, planner)),
                trained=steps * min(hparams.train_batch_size, answers) * row,
                **adapter_terms(adapted, planner), **planner.kept_on_host(stored),
            )
        )  # fmt: skip
        return [*stages, *adapter_stages(adapted, planner)]


def remedies(hparams: StoryDistillHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    common = list(adapter_remedies(hparams, trained=("distil",), micro="micro_batch_tokens"))
    yield from common[:-2] if hparams.quantization == "none" else common
    if hparams.answer_max_new_tokens > 256:
        yield Remedy({"answer_max_new_tokens": 256}, "longer answers are cut off", ("targets", "distil"))
    if hparams.quantization == "none":
        yield from common[-2:]


def _targets(
    plain: PlannedModel, hparams: StoryDistillHyperParams, planner: Planner, answers: int, answer: int
) -> tuple[StageFootprint, int]:
    """The teacher's answers, and its logits over them, which are stored where they are few enough.

    Returns:
        The stage, and the bytes that are stored.
    """
    context, peak, made = planner.lengths.context, Peak(), 0
    if hparams.target_source != "given":
        peak = generation_peak(
            plain, rows=min(TEXTS_TOGETHER, answers), prompt=context, new=hparams.answer_max_new_tokens, shared=False
        )
        made = answers * hparams.answer_max_new_tokens
    size = answers * answer * plain.vocabulary * planner.dtype.itemsize
    stored = size if hparams.cache_targets and hparams.kl_weight and size <= hparams.cache_limit_gb * 1e9 else 0
    if stored:
        rows = min(SCORED_AT_ONCE, answers)
        with plain.tracked(training=False) as tracker:
            completion_logits(plain.model, prompts_of(planner.lengths, context, rows), [[0] * answer] * rows)
        peak = larger(peak, tracker.peak)
    return StageFootprint("targets", peak, generated=made, **planner.kept_on_host(stored)), stored


def _distilling(
    adapted: PlannedModel, hparams: StoryDistillHyperParams, planner: Planner, rows: int, answer: int, *, stored: bool
) -> Peak:
    """A micro-batch of rows whose student reads the story, which is the longest that may happen."""
    context = prompts_of(planner.lengths, planner.lengths.context, rows)
    completions, model = [[0] * answer] * rows, adapted.model
    with adapted.tracked(training=True) as tracker:
        logits = logits_in_one_pass(model, context, completions, share=shares(hparams))
        teachers: list[torch.Tensor] = []
        if hparams.kl_weight and stored:
            teachers = [torch.empty(answer, adapted.vocabulary, dtype=planner.dtype) for _ in range(rows)]
        elif hparams.kl_weight:
            with torch.no_grad(), model.disable_adapter():
                teachers = logits_in_one_pass(model, context, completions, share=shares(hparams))
        losses = []
        for i, row in enumerate(logits):
            loss = row.new_zeros(())
            if teachers:
                loss = loss + distillation_kl(teachers[i], row, hparams.temperature).sum()
            if hparams.answer_weight:
                loss = loss + completion_cross_entropy(row, [0] * answer)
            losses.append(loss)
        (torch.stack(losses).sum() / (rows * answer)).backward()
    return tracker.peak
