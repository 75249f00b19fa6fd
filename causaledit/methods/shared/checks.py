"""What every method refuses that trains an adapter, before any compute is spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.shared.preservation import read_questions
from causaledit.methods.shared.trainers import refuse_unknown_optimizer, refuse_zero3
from causaledit.models.adapters import check_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from causaledit.methods.shared.hparams import TrainedAdapterHyperParams


def check_training(model: PreTrainedModel, hparams: TrainedAdapterHyperParams, *, merged: bool) -> None:
    """Refuse a set-up, an optimiser, an adapter or a file of preserved questions that cannot be used.

    Args:
        merged: Whether the adapter will be merged into the weights.

    Raises:
        HparamsError: The file of preserved questions cannot be read, or there is no such optimiser.
        MissingExtraError: The optimiser's package is not installed.
        ModelError: The adapter does not fit the model, or DeepSpeed's ZeRO stage 3 is configured.
    """
    refuse_zero3()
    refuse_unknown_optimizer(hparams)
    check_adapter(model, hparams, merged=merged)
    if hparams.preserve_weight and hparams.preserve_file:
        read_questions(hparams.preserve_file)
