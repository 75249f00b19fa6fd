"""Stage 1, targeted proximal SFT: a policy ratio against a frozen snapshot, clipped (PSFT, arXiv 2508.17784).

EtCon's own code of this stage is not public. The loss is that of PSFT, which the stage is named after: PPO's surrogate
with the advantage 1 on every token of a fixed label. It is restricted to chosen FFN layers by where the adapter is.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch

from causaledit.methods.etcon.curves import Curves
from causaledit.methods.shared.contrast import begin_in_contrast
from causaledit.methods.shared.supervised import Schedule, SupervisedTrainer, completion_rows, run_supervised
from causaledit.methods.shared.trainers import WatchCallback, checkpointing_paused, without_dropout
from causaledit.models.batches import context_and_completion
from causaledit.models.scoring import completion_logits, token_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.etcon.hparams import EtConHyperParams
    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.methods.shared.trainers import StepLosses
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink

CLIPPED = "clipped"


def proximal_loss(log_p: torch.Tensor, old: torch.Tensor, *, low: float, high: float) -> torch.Tensor:
    """−min(r, clip(r, 1 − low, 1 + high)) per token, with r = p/p_old (PSFT, arXiv 2508.17784; advantage 1).

    At r = 1 its gradient is that of −log p. A token beyond 1 + high has no gradient; below 1 − low it keeps its own.

    Args:
        log_p: `(n,)` log-probabilities of a label's tokens under the policy.
        old: `(n,)` those under the snapshot, without gradient.
        low: ε below 1.
        high: ε above 1.

    Returns:
        `(n,)`.
    """
    ratio = (log_p - old).exp()
    return -torch.minimum(ratio, ratio.clamp(1 - low, 1 + high))


class ProximalTrainer(SupervisedTrainer):
    """SFT whose loss is the clipped ratio to a snapshot of the policy, which is taken anew every few steps.

    Made for a model `without_dropout`, its own or the adapter's, as GRPO's is.

    Args:
        labels: The training set, as from `completion_rows`.
        ratio_low, ratio_high: As in `proximal_loss`.
        updates_per_snapshot: Steps between two snapshots.
        **kwargs: As for `SupervisedTrainer`.
    """

    def __init__(
        self,
        *args: Any,
        labels: Sequence[dict[str, Any]],
        ratio_low: float,
        ratio_high: float,
        updates_per_snapshot: int,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._rows = [context_and_completion(row) for row in labels]
        self._low, self._high, self._every = ratio_low, ratio_high, updates_per_snapshot
        self._old: dict[tuple[tuple[int, ...], tuple[int, ...]], torch.Tensor] = {}
        self._taken_at: int | None = None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The step, behind a new snapshot where one is due."""
        step = self.state.global_step
        if step % self._every == 0 and self._taken_at != step:
            self._take_snapshot(model)
            self._taken_at = step
        return super().training_step(model, inputs, num_items_in_batch)

    def _take_snapshot(self, model: Any) -> None:
        """The log-probabilities of every label's tokens under the policy as it is."""
        rows = self._rows
        with checkpointing_paused(model):
            logits = completion_logits(model, [head for head, _ in rows], [tail for _, tail in rows])
        self._old = {
            (tuple(head), tuple(tail)): token_log_probabilities(row, tail)
            for (head, tail), row in zip(rows, logits, strict=True)
        }

    def completion_loss(self, logits: torch.Tensor, context: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
        """Sum of `proximal_loss` over a label's tokens."""
        old = self._old[tuple(context), tuple(completion)]
        log_p = token_log_probabilities(logits, completion)
        clipped = (log_p.detach() - old).exp() > 1 + self._high
        self._metrics["train"][CLIPPED].append(clipped.float().mean().item())
        return proximal_loss(log_p, old, low=self._low, high=self._high).sum()


def run_proximal(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[tuple[str, str]],
    edits: int,
    hparams: EtConHyperParams,
    *,
    preservation: PreservationSet | None,
    progress: ProgressSink,
    count: TokenCount,
    requests: Sequence[EditRequest] = (),
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[StepLosses, dict[str, list[float]]]:
    """Train the adapter on (prompt → label) pairs.

    Args:
        model: The model with a trainable adapter.
        pairs: From `labels.training_pairs`, of all edits.
        edits: How many edits they stand for.
        preservation: The preservation term, if any.
        requests: The edits.
        callbacks: Further callbacks of the trainer.

    Returns:
        The losses of every step, and per step the share of clipped tokens under `clipped` (none without the ratio).
    """
    steps = hparams.steps_of_stage_1(edits)
    progress.start("stage 1: proximal SFT" if hparams.proximal else "stage 1: SFT", steps)
    curves = Curves([CLIPPED])
    rows = completion_rows(tokenizer, pairs)
    parted = [context_and_completion(row) for row in rows]
    begin_in_contrast(model, tokenizer, parted, requests, hparams, preservation=preservation, count=count)
    proximal = {
        "labels": rows,
        "ratio_low": hparams.ratio_low,
        "ratio_high": hparams.ratio_high,
        "updates_per_snapshot": hparams.updates_per_snapshot,
    }
    schedule = Schedule(
        steps=steps,
        batch_size=hparams.proximal_batch_size,
        learning_rate=hparams.proximal_learning_rate,
        kind="constant_with_warmup",
        warmup_steps=hparams.proximal_warmup_steps,
        max_grad_norm=hparams.proximal_max_grad_norm,
    )
    with without_dropout(model) if hparams.proximal else contextlib.nullcontext():
        losses = run_supervised(
            model,
            tokenizer,
            rows,
            schedule,
            hparams,
            watch=WatchCallback(progress, tokens=lambda: count.trained),
            stage="proximal",
            subjects=[request.subject for request in requests],
            callbacks=[curves, *callbacks],
            trainer=ProximalTrainer if hparams.proximal else SupervisedTrainer,
            mean_by_sequence=hparams.proximal_loss_mean == "sequence",
            most_tokens=hparams.micro_batch_tokens,
            preservation=preservation,
            count=count,
            **(proximal if hparams.proximal else {}),
        )
    return losses, curves.found
