"""Stage 2's prompts: what is asked, with which context the teacher scores it, and whether it leads the student.

A prompt on which the teacher gives the wanted answer no more probability than the student has nothing to teach; of
the two teachers (the unedited model and the stage-1 snapshot, both open-book) the one that leads by more is taken.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trl.trainer.utils import use_adapter

from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.shared.processes import agreed
from causaledit.methods.shared.stopping import evaluating
from causaledit.models.batches import parted_tokens
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import mean_log_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.bootstrap import WantedAnswer
    from causaledit.models.chat import Messages

logger = logging.getLogger(__name__)

TEACHER_ADAPTER = "teacher"
# teacher → its adapter; None is the network without one
ADAPTERS: dict[str, str | None] = {"base": None, "bootstrapped": TEACHER_ADAPTER}


@dataclass(frozen=True)
class StudyPrompt:
    """One prompt of stage 2.

    Attributes:
        text: The user message that the student answers closed-book.
        context: The teacher's privileged context; empty for a preserved question.
        teacher: `base` or `bootstrapped`.
        preserved: Whether the answer is to stay what the unedited model makes it.
    """

    text: str
    context: str
    teacher: str
    preserved: bool = False

    def row(self) -> dict[str, Any]:
        """A row of the trainer's data set."""
        return {
            "prompt": user(self.text),
            "privileged_context": self.context,
            "bootstrapped": self.teacher == "bootstrapped",
            "preserved": self.preserved,
        }


@dataclass
class Leads:
    """By how much the teachers lead the student on the prompts of one batch of edits.

    Attributes:
        asked: How many prompts were looked at.
        kept: How many the better teacher leads on.
        by_teacher: How many of those each teacher has.
        mean: Mean lead on the kept prompts, in nats a token; None without any.
        by_kind: Kept prompts by their cue's kind.
    """

    asked: int
    kept: int
    by_teacher: dict[str, int]
    mean: float | None
    by_kind: dict[str, int]


def with_knowledge(request: EditRequest, knowledge: str, *, causal: bool) -> str:
    """The privileged context of one prompt: the edit's, and for two hops what the model itself knows of the other."""
    return " ".join(filter(None, (P.privileged_context(request, causal=causal), knowledge)))


def led_prompts(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    wanted: Sequence[tuple[EditRequest, WantedAnswer]],
    *,
    causal: bool,
    context_role: str,
    teachers: Sequence[str],
    min_lead: float,
) -> tuple[list[StudyPrompt], Leads]:
    """The prompts on which a teacher leads, each with the teacher that leads by most.

    The lead is mean log p(wanted answer | context, prompt) of the teacher less that of the closed-book student.

    Args:
        model: The student, with the snapshot's adapter where `bootstrapped` is among the teachers.
        wanted: Every prompt with its edit and wanted answer; of the answers to one prompt the first counts.
        min_lead: A smaller lead is none, in nats a token.
    """
    first = {(id(request), answer.prompt): (request, answer) for request, answer in reversed(wanted)}
    items = list(first.values())[::-1]
    gap = answer_gap(tokenizer)

    contexts = [with_knowledge(request, answer.knowledge, causal=causal) for request, answer in items]

    def parted(messages: Messages, answer: WantedAnswer) -> tuple[list[int], list[int]]:
        return parted_tokens(tokenizer, render(tokenizer, messages), gap + answer.completion)

    told = [P.teacher_messages(a.prompt, c, role=context_role) for (_, a), c in zip(items, contexts, strict=True)]
    open_book = [parted(messages, answer)[0] for messages, (_, answer) in zip(told, items, strict=True)]
    closed = [parted(user(answer.prompt), answer) for _, answer in items]
    closed_book, answers = [head for head, _ in closed], [tail for _, tail in closed]

    with evaluating(model):
        student = agreed(mean_log_probabilities(model, closed_book, answers), model.device)
        # no log-probability is above 0: where the student's is within `min_lead` of it, no teacher leads by that much
        unsure = [i for i, score in enumerate(student) if -score >= min_lead]
        leads: dict[str, dict[int, float]] = {}
        for teacher in teachers:
            with use_adapter(model, adapter_name=ADAPTERS[teacher]):
                told_answers = mean_log_probabilities(
                    model, [open_book[i] for i in unsure], [answers[i] for i in unsure]
                )
            leads[teacher] = {i: score - student[i] for i, score in zip(unsure, told_answers, strict=True)}
    kept: list[StudyPrompt] = []
    found: list[float] = []
    kinds: dict[str, int] = {}
    for i in unsure:
        answer = items[i][1]
        teacher = max(teachers, key=lambda name: leads[name][i])
        if leads[teacher][i] < min_lead:
            continue
        kept.append(StudyPrompt(answer.prompt, contexts[i], teacher))
        found.append(leads[teacher][i])
        kinds[answer.kind] = kinds.get(answer.kind, 0) + 1
    report = Leads(
        asked=len(items),
        kept=len(kept),
        by_teacher={name: sum(prompt.teacher == name for prompt in kept) for name in teachers},
        mean=sum(found) / len(found) if found else None,
        by_kind=kinds,
    )
    by_kind = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    logger.info(
        "stage 2: the teacher leads on %d of %d prompts%s", report.kept, report.asked, by_kind and f" ({by_kind})"
    )
    return kept, report


def mixed(
    edit: Sequence[StudyPrompt],
    preserved: Sequence[StudyPrompt],
    *,
    per_step: int,
    steps: int,
    held: int,
    seed: int,
) -> list[StudyPrompt]:
    """Prompts in the order of training: of every step's, `held` are preserved ones.

    Args:
        edit: Prompts of the edits; at least one.
        preserved: Preserved questions; at least one where `held` is not 0.
        per_step: Prompts of one optimiser step.
        steps: Optimiser steps.
        held: Fewer than `per_step`.
    """
    rng = random.Random(seed)
    draws = (_endless(edit, rng), _endless(preserved, rng))
    return [
        next(source)
        for _ in range(steps)
        for source, n in zip(draws, (per_step - held, held), strict=True)
        for _ in range(n)
    ]


def _endless(items: Sequence[StudyPrompt], rng: random.Random) -> Iterator[StudyPrompt]:
    """The items in a new random order, over and over."""
    while items:
        yield from rng.sample(items, len(items))
