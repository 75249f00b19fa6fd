"""Context distillation: KL(teacher who has read the story ‖ student who mostly has not) on the teacher's tokens.

arXiv 2602.02028. Over the full vocabulary, both distributions at one temperature, without the factor T². trl's own
distillation trainers do not fit: GKDTrainer gives the teacher the student's input, and the others learn from what the
student samples.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from trl import SFTConfig

from causaledit.methods.shared.supervised import SupervisedTrainer
from causaledit.methods.shared.trainers import StepLosses, WatchCallback, quiet_trainers, train, trainer_arguments
from causaledit.models.batches import unpadded
from causaledit.models.randomness import in_eval_mode
from causaledit.models.scoring import completion_cross_entropy, logits_in_one_pass

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from causaledit.methods.shared.preservation import PreservationSet
    from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
    from causaledit.methods.story_distill.targets import Row
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink


def distillation_kl(teacher: torch.Tensor, student: torch.Tensor, temperature: float) -> torch.Tensor:
    """KL(teacher‖student) of softened distributions, per position.

    Args:
        teacher, student: `(N, vocabulary)` logits.
        temperature: Divides both.

    Returns:
        `(N,)`; no gradient reaches `teacher`.
    """
    wanted = (teacher.detach().float() / temperature).log_softmax(-1)
    found = (student.float() / temperature).log_softmax(-1)
    return (wanted.exp() * (wanted - found)).sum(-1)


class StoryDraws:
    """Makes a batch: for each row and visit, draw whether the student reads the story before the question.

    Args:
        rows: All rows.
        collate: trl's collator, of `input_ids` and `completion_mask`.
        dropout: Probability of leaving the story out.
        seed: Of the draws.

    Attributes:
        drawn: Number of rows drawn so far.
        with_story: Number of them with the story.
    """

    def __init__(self, rows: Sequence[Row], collate: Any, *, dropout: float, seed: int) -> None:
        self._rows, self._collate, self._dropout = rows, collate, dropout
        self._rng = random.Random(seed)
        self.drawn = self.with_story = 0

    def reads_story(self, row: Row) -> bool:
        """Draw for one visit of a row."""
        if row.weight is not None:  # a neighbouring question has no story
            return False
        found = self._rng.random() >= self._dropout
        self.drawn += 1
        self.with_story += found
        return found

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, with each row's number in the shape of its tokens, so that it is split as they are."""
        made = []
        for example in examples:
            row = self._rows[example["row"]]
            context = row.open if self.reads_story(row) else row.closed
            mask = [0] * len(context) + [1] * len(row.completion)
            made.append({"input_ids": [*context, *row.completion], "completion_mask": mask})
        batch: dict[str, Any] = self._collate(made)
        numbers = torch.tensor([example["row"] for example in examples])
        batch["row"] = numbers[:, None].expand(batch["input_ids"].shape).clone()
        return batch


class DistilTrainer(SupervisedTrainer):
    """trl's SFTTrainer with the distillation loss on completion tokens, in micro-batches, with the preservation term.

    Args:
        rows: The rows that `row` of the data set counts.
        teacher: Per row its teacher's logits; None recomputes them with the adapter off.
        hparams: The method's.
        **kwargs: As for `SupervisedTrainer`.
    """

    def __init__(
        self,
        *args: Any,
        rows: Sequence[Row],
        teacher: Sequence[torch.Tensor | None] | None,
        hparams: StoryDistillHyperParams,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self._rows, self._teacher, self._hparams = rows, teacher, hparams
        self.draws = StoryDraws(rows, self.data_collator, dropout=hparams.context_dropout, seed=hparams.seed)
        self.data_collator = self.draws

    def get_decay_parameter_names(self, model: Any) -> list[str]:
        """The A matrices alone decay (arXiv 2602.02028): B begins at zero, and the paper lets it free."""
        return [name for name, _ in model.named_parameters() if ".lora_A." in name]

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """`kl_weight` × KL + `answer_weight` × cross-entropy, per answer token."""
        share = inputs.pop("share", 1.0)
        self.count.trained += int(inputs["attention_mask"].sum())
        numbers = inputs.pop("row")[:, 0].tolist()
        rows = [self._rows[i] for i in numbers]
        ids = unpadded(inputs["input_ids"], inputs["attention_mask"])
        contexts = [tokens[: len(tokens) - len(row.completion)] for tokens, row in zip(ids, rows, strict=True)]
        completions = [row.completion for row in rows]
        logits = logits_in_one_pass(model, contexts, completions, share=self.shares_prefix, below=self.below)
        teachers = self._teacher_of(model, numbers, logits[0].device)
        losses = torch.stack([self._row_loss(*found) for found in zip(rows, logits, teachers, strict=True)])
        counts = torch.tensor([len(row.completion) for row in rows], device=losses.device)
        if self._mean_by_sequence:
            return (losses / counts).mean() * share / self.current_gradient_accumulation_steps
        return losses.sum() / (num_items_in_batch if num_items_in_batch is not None else counts.sum())

    def _row_loss(self, row: Row, logits: torch.Tensor, teacher: torch.Tensor | None) -> torch.Tensor:
        """A row's loss, summed over its answer tokens; its parts are logged per token."""
        hparams = self._hparams
        weight = hparams.answer_weight if row.weight is None else row.weight
        parts: dict[str, torch.Tensor] = {}
        if teacher is not None:
            parts["kl"] = hparams.kl_weight * distillation_kl(teacher, logits, hparams.temperature).sum()
        if weight:
            parts["answer"] = weight * completion_cross_entropy(logits, row.completion)
        for name, part in parts.items():
            self._metrics["train"][name].append(part.item() / len(row.completion))
        return sum(parts.values(), logits.new_zeros(()))

    def _teacher_of(self, model: Any, numbers: Sequence[int], device: torch.device) -> list[torch.Tensor | None]:
        """The teacher's logits of rows: as stored, or from the model without its adapter."""
        if self._teacher is not None:
            stored = [self._teacher[i] for i in numbers]
            return [None if values is None else values.to(device) for values in stored]
        found: dict[int, torch.Tensor] = {}
        taught = [i for i in numbers if self._rows[i].weight is None] if self._hparams.kl_weight else []
        if taught:
            plain = self.accelerator.unwrap_model(model)
            with in_eval_mode(plain), torch.no_grad(), plain.disable_adapter():  # a teacher has no dropout
                rows = [self._rows[i] for i in taught]
                logits = logits_in_one_pass(
                    plain, [row.open for row in rows], [row.completion for row in rows], share=self.shares_prefix
                )
            found = dict(zip(taught, logits, strict=True))
        return [found.get(i) for i in numbers]


def run_distillation(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    teacher: Sequence[torch.Tensor | None] | None,
    edits: int,
    hparams: StoryDistillHyperParams,
    *,
    preservation: PreservationSet | None,
    progress: ProgressSink,
    count: TokenCount,
    subjects: Sequence[str] = (),
) -> tuple[StepLosses, float | None]:
    """Train the adapter.

    Args:
        model: The model with a trainable adapter.
        rows: From `rows_of`, of all edits of the batch.
        teacher: From `teacher_logits`, or None.
        edits: How many edits they stand for.
        preservation: The preservation term, if any.
        subjects: Of the edits, for the run's name in a tracker.

    Returns:
        The losses of every optimiser step, and the share of visits in which the student read the story.
    """
    steps = math.ceil(len(rows) / hparams.train_batch_size) * hparams.epochs
    limit = hparams.step_limit(edits)
    steps = steps if limit is None else min(steps, limit)
    watch = WatchCallback(progress, tokens=lambda: count.trained)
    progress.start("distillation", steps)
    # trl reads tokens here to see that nothing is left to prepare; `StoryDraws` makes the rows
    data = [{"row": i, "input_ids": [*row.closed, *row.completion]} for i, row in enumerate(rows)]
    settings = trainer_arguments(model, hparams, stage="distil", subjects=subjects)
    with settings as arguments, quiet_trainers():
        trainer = DistilTrainer(
            rows=rows,
            teacher=teacher,
            hparams=hparams,
            mean_by_sequence=hparams.loss_mean == "sequence",
            most_tokens=hparams.micro_batch_tokens,
            preservation=preservation,
            count=count,
            model=model,
            args=SFTConfig(
                **{**arguments, "weight_decay": hparams.lora_a_decay},
                max_steps=steps,
                per_device_train_batch_size=hparams.train_batch_size,
                learning_rate=hparams.learning_rate,
                lr_scheduler_type="constant_with_warmup",
                warmup_steps=min(hparams.warmup_steps, steps - 1),
                max_grad_norm=hparams.max_grad_norm,
                max_length=None,
                completion_only_loss=True,
            ),
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            callbacks=[watch],
        )
        losses = train(trainer, watch)
    draws = trainer.draws
    return losses, draws.with_story / draws.drawn if draws.drawn else None
