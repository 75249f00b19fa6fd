"""What FT's training needs in memory: a step's pass and its update, on a model without weights."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, bytes_of
from causaledit.methods.shared.finetune.rows import TargetRow, target_losses
from causaledit.methods.shared.footprints import descent_bytes, step_peak, with_trained_weights
from causaledit.models.footprint import larger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.footprint import Planner
    from causaledit.methods.ft.hparams import FTHyperParams


def footprint(planner: Planner) -> list[StageFootprint]:
    """Training; the weights' originals are kept in host memory."""
    hparams, lengths = planner.hparams, planner.lengths
    forms = len(hparams.prompt_forms)
    rows = [TargetRow([0] * lengths.prompt, [0] * lengths.answer)] * min(forms, hparams.micro_batch_size)
    with planner.model(functools.partial(with_trained_weights, hparams=hparams)) as tuned:
        with tuned.tracked(training=False) as tracker:
            torch.stack(target_losses(tuned.model, rows)).sum().backward()
        state = descent_bytes(tuned.trainable, bounded=hparams.norm_constraint is not None)
        peak = larger(tracker.peak, step_peak(tuned.trainable))
        trained, originals = hparams.steps * forms * lengths.answer, bytes_of(tuned.trainable)
        return [StageFootprint("train", peak, optimizer=state, trained=trained, **planner.kept_on_host(originals))]


def remedies(hparams: FTHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    if hparams.micro_batch_size > 1 and len(hparams.prompt_forms) > 1:
        yield Remedy({"micro_batch_size": 1}, "the same loss, one row at a time")
    if hparams.norm_constraint is not None and hparams.layers is not None and len(hparams.layers) > 1:
        yield Remedy({"layers": hparams.layers[:1]}, "one layer's weights change, not several")
