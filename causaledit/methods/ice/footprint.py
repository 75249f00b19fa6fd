"""What ICE's training needs in memory: sampling in context, and a step's passes, on a model without weights."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, bytes_of
from causaledit.methods.ice.losses import consistency_loss, sampled_consistency_loss
from causaledit.methods.shared.finetune.rows import TargetRow, row_logits, target_losses
from causaledit.methods.shared.footprints import descent_bytes, step_peak, with_trained_weights
from causaledit.models.footprint import Peak, generation_peak, larger
from causaledit.models.scoring import completion_logits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.footprint import Planner
    from causaledit.methods.ice.hparams import ICEHyperParams
    from causaledit.models.footprint import PlannedModel


def footprint(planner: Planner) -> list[StageFootprint]:
    """Training; the weights' originals are kept in host memory."""
    hparams, lengths = planner.hparams, planner.lengths
    forms, samples = len(hparams.prompt_forms), hparams.samples if hparams.context_weight else 0
    rows = [TargetRow([0] * lengths.prompt, [0] * lengths.answer)] * min(forms, hparams.micro_batch_size)
    with planner.model(functools.partial(with_trained_weights, hparams=hparams)) as tuned:
        with tuned.tracked(training=False) as tracker:
            torch.stack(target_losses(tuned.model, rows)).sum().backward()
        peaks = [tracker.peak, step_peak(tuned.trainable)]
        if samples:
            peaks += _in_context(tuned, hparams, planner)
        state = descent_bytes(tuned.trainable, bounded=hparams.norm_constraint is not None)
        new = samples * hparams.sample_max_new_tokens
        trained = hparams.steps * (forms * lengths.answer + new)
        return [
            StageFootprint(
                "train", larger(*peaks), optimizer=state, generated=hparams.steps * new, trained=trained,
                **planner.kept_on_host(bytes_of(tuned.trainable)),
            )
        ]  # fmt: skip


def _in_context(tuned: PlannedModel, hparams: ICEHyperParams, planner: Planner) -> list[Peak]:
    """Sampling behind the context, and the consistency loss of what was sampled."""
    lengths, new = planner.lengths, hparams.sample_max_new_tokens
    closed, behind = [0] * (lengths.prompt + lengths.answer), [0] * (lengths.context + lengths.answer)
    continuations = [[0] * new] * hparams.samples
    sampling = generation_peak(tuned, rows=hparams.samples, prompt=len(behind), new=new, shared=True)
    with tuned.tracked(training=False) as tracker:
        student = torch.cat(row_logits(tuned.model, [TargetRow(closed, row) for row in continuations]))
        if hparams.context_loss == "full":
            teacher = torch.cat(completion_logits(tuned.model, [behind] * hparams.samples, continuations))
            loss = consistency_loss(student, teacher)
        else:
            loss = sampled_consistency_loss(student, torch.zeros(len(student), dtype=torch.long))
        loss.backward()
    return [sampling, tracker.peak]


def remedies(hparams: ICEHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    if hparams.micro_batch_size > 1 and len(hparams.prompt_forms) > 1:
        yield Remedy({"micro_batch_size": 1}, "the same loss, one row at a time")
    if hparams.samples > 1 and hparams.context_weight:
        yield Remedy({"samples": 1}, "a noisier in-context loss")
