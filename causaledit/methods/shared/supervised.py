"""Supervised training of an adapter: trl's SFTTrainer on completion tokens alone, in micro-batches of bounded size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from causaledit.methods.shared.preservation import PreservingMixin
from causaledit.methods.shared.processes import most
from causaledit.methods.shared.trainers import StageMixin, quiet_trainers, train, trainer_arguments
from causaledit.models.batches import parted_tokens, unpadded
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import completion_cross_entropy, logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.methods.shared.trainers import StepLosses, TrainerSettings, WatchCallback
    from causaledit.support.costs import TokenCount


def micro_batches(lengths: Sequence[int], most_tokens: int, *, at_least: int = 1) -> list[list[int]]:
    """Split the rows of a batch by length, so that each part, padded to its longest row, stays within a budget.

    Args:
        lengths: Tokens of each row.
        most_tokens: Most tokens of a part, padding included. A row that is longer is a part by itself.
        at_least: Number of parts, where there are as many rows.

    Returns:
        The rows' numbers, part by part, shortest rows first.
    """
    parts: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if parts and (len(parts[-1]) + 1) * lengths[row] <= most_tokens:
            parts[-1].append(row)
        else:
            parts.append([row])
    while len(parts) < min(at_least, len(lengths)):
        largest = max(range(len(parts)), key=lambda i: len(parts[i]))
        middle = len(parts[largest]) // 2
        parts[largest : largest + 1] = [parts[largest][:middle], parts[largest][middle:]]
    return parts


def completion_rows(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], *, open_ended: Collection[str] = ()
) -> list[dict[str, Any]]:
    """(user prompt, completion) pairs as rows of trl's SFTTrainer, through the chat template.

    A completion ends with the end token, where the tokenizer has one; `completion_mask` is 1 on its tokens.

    Args:
        open_ended: Completions behind which nothing is taught, neither an end nor that more follows.
    """
    gap = answer_gap(tokenizer)
    return [
        _row(tokenizer, *parted_tokens(tokenizer, render(tokenizer, user(p)), gap + text), ends=text not in open_ended)
        for p, text in pairs
    ]


def text_rows(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], *, ends: bool = True
) -> list[dict[str, Any]]:
    """As `completion_rows`, for bare texts: a beginning and what follows it behind a space, without a template.

    Args:
        ends: Whether the text ends there, with the end token, or goes on.
    """
    parted = [parted_tokens(tokenizer, head, f" {rest}", special=True) for head, rest in pairs]
    return [_row(tokenizer, head, tail, ends=ends) for head, tail in parted]


def _row(
    tokenizer: PreTrainedTokenizerBase, head: Sequence[int], tail: Sequence[int], *, ends: bool = True
) -> dict[str, Any]:
    end = tokenizer.eos_token_id if ends else None
    tail = [*tail, *([end] if end is not None else [])]
    return {"input_ids": [*head, *tail], "completion_mask": [0] * len(head) + [1] * len(tail)}


class CompletionTrainer(StageMixin, SFTTrainer):
    """trl's SFTTrainer whose loss projects only completion positions, in micro-batches.

    The output layer is a large part of a small model: on SmolLM2-135M projecting the prompt's positions too,
    only to ignore them, is over half of a step. An optimiser step's rows stay those of the data loader; they are
    read a few at a time, and each part's loss enters that of the whole batch with its share.

    Args:
        mean_by_sequence: Every completion weighs the same, however long; else every token does.
        most_tokens: As for `micro_batches`.
        count: Receives the tokens trained on.
    """

    loss_is_scaled_for_ga = True  # type: ignore[assignment]  # by `compute_loss`

    def __init__(self, *args: Any, mean_by_sequence: bool, most_tokens: int, count: TokenCount, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._mean_by_sequence = mean_by_sequence
        self._most_tokens = most_tokens
        self.count = count

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """Forward and backward of a batch, part by part."""
        mask = inputs["attention_mask"]
        if num_items_in_batch is None:
            num_items_in_batch = (inputs["labels"] != -100).sum() * self.current_gradient_accumulation_steps
        losses = []
        lengths = mask.sum(-1).tolist()
        parts = len(micro_batches(lengths, self._most_tokens))
        if self.accelerator.num_processes > 1:  # each part's backward pass waits for the other processes'
            parts = most(parts, mask.device)
        for rows in micro_batches(lengths, self._most_tokens, at_least=parts):
            columns = mask[rows].any(0)
            part = {
                name: value[rows][:, columns] if torch.is_tensor(value) and value.shape == mask.shape else value
                for name, value in inputs.items()
            }
            part["share"] = len(rows) / len(mask)
            losses.append(super().training_step(model, part, num_items_in_batch))
        return torch.stack(losses).sum()

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Each row's `completion_loss`, as a mean over completion tokens or over rows."""
        share = inputs.pop("share", 1.0)
        self.count.trained += int(inputs["attention_mask"].sum())
        # in token mode trl's own loss also counts the tokens of other processes
        several = self.accelerator.num_processes > 1 and not self._mean_by_sequence
        if return_outputs or several:
            return super().compute_loss(
                model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch
            )
        ids, labels = (unpadded(inputs[name], inputs["attention_mask"]) for name in ("input_ids", "labels"))
        begins = [next(i for i, label in enumerate(row) if label != -100) for row in labels]
        contexts = [row[:begin] for row, begin in zip(ids, begins, strict=True)]
        completions = [row[begin:] for row, begin in zip(ids, begins, strict=True)]
        logits = logits_in_one_pass(model, contexts, completions, share=self.shares_prefix, below=self.below)
        losses = torch.stack(
            [
                self.completion_loss(row, context, tokens)
                for row, context, tokens in zip(logits, contexts, completions, strict=True)
            ]
        )
        counts = torch.tensor([len(tokens) for tokens in completions], device=losses.device)
        if self._mean_by_sequence:
            return (losses / counts).mean() * share / self.current_gradient_accumulation_steps
        return losses.sum() / (num_items_in_batch if num_items_in_batch is not None else counts.sum())

    def completion_loss(self, logits: torch.Tensor, context: Sequence[int], completion: Sequence[int]) -> torch.Tensor:
        """The loss of one row, summed over the tokens of its completion.

        Args:
            logits: `(len(completion), vocabulary)`, with gradients.
            context: The tokens before it.
            completion: Its tokens.
        """
        return completion_cross_entropy(logits, completion)


class SupervisedTrainer(PreservingMixin, CompletionTrainer):
    """The supervised stages' trainer: completion tokens alone, with the preservation term.

    Args:
        preservation: The preservation term, if any.
        **kwargs: As for `CompletionTrainer`.
    """

    def __init__(self, *args: Any, preservation: PreservationSet | None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preservation = preservation


@dataclass(frozen=True)
class Schedule:
    """Steps of a supervised stage and what each of them is.

    Attributes:
        steps: Optimiser steps.
        batch_size: Rows in each.
        learning_rate: At the peak.
        kind: Its course; see `trainers.warmed_up`.
        warmup_steps: Steps before the peak.
        max_grad_norm: Gradient clipping.
    """

    steps: int
    batch_size: int
    learning_rate: float
    kind: str
    warmup_steps: int
    max_grad_norm: float


def run_supervised(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    schedule: Schedule,
    hparams: TrainerSettings,
    *,
    watch: WatchCallback,
    stage: str,
    subjects: Sequence[str] = (),
    callbacks: Sequence[TrainerCallback] = (),
    trainer: type[CompletionTrainer] = SupervisedTrainer,
    **options: Any,
) -> StepLosses:
    """Train an adapter on rows of tokens.

    Args:
        model: The model with a trainable adapter.
        rows: As from `completion_rows`; none is ever cut.
        hparams: The method's, for its optimiser.
        watch: Hears of every step.
        stage, subjects: As for `trainer_arguments`.
        callbacks: Further callbacks of the trainer.
        trainer: The class of the trainer.
        **options: Its own arguments.

    Returns:
        The losses of every optimiser step.
    """
    with trainer_arguments(model, hparams, stage=stage, subjects=subjects) as arguments, quiet_trainers():
        made = trainer(
            model=model,
            args=SFTConfig(
                **arguments,
                max_steps=schedule.steps,
                per_device_train_batch_size=schedule.batch_size,
                learning_rate=schedule.learning_rate,
                lr_scheduler_type=schedule.kind,
                warmup_steps=schedule.warmup_steps,
                max_grad_norm=schedule.max_grad_norm,
                max_length=None,
                completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer,
            callbacks=[watch, *callbacks],
            **options,
        )
        return train(made, watch)
