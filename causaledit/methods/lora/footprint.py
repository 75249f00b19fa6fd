"""What LoRA's stages need in memory: a step's pass on a model without weights (`methods.footprint`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from causaledit.methods.footprint import Remedy, StageFootprint, adapter_stages, bytes_of, with_adapter
from causaledit.methods.lora.adapter import adapter_config
from causaledit.methods.shared.finetune.rows import TargetRow, target_losses

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
    with planner.model(adapt) as adapted:
        with adapted.tracked(training=False) as tracker:
            torch.stack(target_losses(adapted.model, rows)).sum().backward()
        own = bytes_of(adapted.trainable)
        # gradients; and `ConstrainedAdam`'s float32 copies with gradients and two moments of their own
        state = own + 16 * sum(parameter.numel() for parameter in adapted.trainable)
        trained = hparams.steps * forms * lengths.answer
        training = StageFootprint("train", tracker.peak, adapter=own, optimizer=state, trained=trained)
        return [training, *adapter_stages(adapted, planner)]


def remedies(hparams: LoRAHyperParams) -> Iterator[Remedy]:
    """What makes an edit smaller, mildest first."""
    if hparams.micro_batch_size > 1 and len(hparams.prompt_forms) > 1:
        yield Remedy({"micro_batch_size": 1}, "the same loss, one row at a time")
    if hparams.quantization == "none":
        for kind in ("8bit", "4bit"):
            yield Remedy({"quantization": kind, "merge_adapter": False}, "a quantised base: the adapter is kept apart")
