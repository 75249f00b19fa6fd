"""The loss of FT at the prompt's last position."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.shared.finetune.rows import TargetRow, row_logits, target_loss

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel


def last_position_losses(model: PreTrainedModel, rows: Sequence[TargetRow]) -> list[torch.Tensor]:
    """For each row the mean over its target tokens of −log p(token | prompt), all read at the prompt's last position.

    That is the objective of ROME's FT baseline (arXiv 2202.05262, appendix E.1) and EasyEdit's `prompt_last`. With an
    answer of several tokens the model learns to begin with any of them.
    """
    logits = row_logits(model, [TargetRow(row.prompt, row.target[:1]) for row in rows])
    return [target_loss(x.expand(len(row.target), -1), row.target) for x, row in zip(logits, rows, strict=True)]
