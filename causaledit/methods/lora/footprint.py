"""What LoRA's stages need in memory: a step's pass on a model without weights (`methods.footprint`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, adapter_stages, bytes_of, with_adapter
from causaledit.methods.lora.adapter import adapter_config
from causaledit.methods.shared.finetune.rows import TargetRow, target_losses
from causaledit.methods.shared.footprints import (
    contrast_peak,
    descent_bytes,
    preserve_stages,
    preserving_peak,
    quantising_remedies,
    step_peak,
)
from causaledit.models.footprint import larger

if TYPE_CHECKING:
    from collections.abc import Iterator

    from causaledit.methods.footprint import Planner
    from causaledit.methods.lora.hparams import LoRAHyperParams


def footprint(planner: Planner) -> list[StageFootprint]:
    """Training, then merging, of one edit."""
    hparams, lengths = planner.hparams, planner.lengths
    forms = len(hparams.prompt_forms)
    rows = [TargetRow([0] * lengths.prompt, [0] * lengths.answer)] * min(forms, hparams.micro_batch_size)
    adapt = lambda network: with_adapter(network, hparams, adapter_config(network, hparams))  # noqa: E731
    stages = []
    if hparams.preserve_weight:
        with planner.model() as plain:
            stages += preserve_stages(plain, planner)
    with planner.model(adapt) as adapted:
        with adapted.tracked(training=False) as tracker:
            torch.stack(target_losses(adapted.model, rows)).sum().backward()
        own = bytes_of(adapted.trainable)
        peak = larger(
            tracker.peak,
            preserving_peak(adapted, planner),
            contrast_peak(adapted, planner),
            step_peak(adapted.trainable),
        )
        state = descent_bytes(adapted.trainable)
        trained = hparams.steps * forms * lengths.answer
        stages.append(StageFootprint("train", peak, adapter=own, optimizer=state, trained=trained))
        return [*stages, *adapter_stages(adapted, planner)]


def remedies(hparams: LoRAHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    if hparams.micro_batch_size > 1 and len(hparams.prompt_forms) > 1:
        yield Remedy({"micro_batch_size": 1}, "the same loss, one row at a time")
    yield from quantising_remedies(hparams)
