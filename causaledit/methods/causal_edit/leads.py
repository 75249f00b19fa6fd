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
from causaledit.methods.shared.stopping import evaluating
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.scoring import completion_logits, mean_log_probability

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.bootstrap import WantedAnswer

logger = logging.getLogger(__name__)

TEACHER_ADAPTER = "teacher"
# Prompts whose leads are taken at a time.
LOOKED_AT = 8
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
    enough: int | None = None,
    seed: int = 0,
) -> tuple[list[StudyPrompt], Leads]:
    """The prompts on which a teacher leads, each with the teacher that leads by most.

    The lead is mean log p(wanted answer | context, prompt) of the teacher less that of the closed-book student.

    Args:
        model: The student, with the snapshot's adapter where `bootstrapped` is among the teachers.
        wanted: Every prompt with its edit and wanted answer; of the answers to one prompt the first counts.
        min_lead: A smaller lead is none, in nats a token.
        enough: The prompts are looked at in random order, `LOOKED_AT` at a time, until a teacher leads on so many: as
            if these had been drawn from all that have a lead. None: all are looked at, in their own order.
        seed: Of that order.
    """
    first = {(id(request), answer.prompt): (request, answer) for request, answer in reversed(wanted)}
    items = list(first.values())[::-1]
    if enough is not None:
        items = random.Random(seed).sample(items, len(items))
    kept: list[StudyPrompt] = []
    found: list[float] = []
    asked = 0
    kinds: dict[str, int] = {}
    while asked < len(items) and (enough is None or len(kept) < enough):
        part = items[asked:] if enough is None else items[asked : asked + LOOKED_AT]
        asked += len(part)
        led = _leads_of(model, tokenizer, part, causal=causal, context_role=context_role, teachers=teachers)
        for (request, answer), leads in zip(part, led, strict=True):
            teacher = max(teachers, key=lambda name: leads[name])
            if leads[teacher] < min_lead:
                continue
            kept.append(StudyPrompt(answer.prompt, with_knowledge(request, answer.knowledge, causal=causal), teacher))
            found.append(leads[teacher])
            kinds[answer.kind] = kinds.get(answer.kind, 0) + 1
    report = Leads(
        asked=asked,
        kept=len(kept),
        by_teacher={name: sum(prompt.teacher == name for prompt in kept) for name in teachers},
        mean=sum(found) / len(found) if found else None,
        by_kind=kinds,
    )
    logger.info("stage 2: the teacher leads on %d of %d prompts looked at (%s)", report.kept, report.asked, kinds)
    return kept, report


def _leads_of(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[tuple[EditRequest, WantedAnswer]],
    *,
    causal: bool,
    context_role: str,
    teachers: Sequence[str],
) -> list[dict[str, float]]:
    """Per prompt, each teacher's lead."""
    gap = answer_gap(tokenizer)

    def ids(text: str) -> list[int]:
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    answers = [ids(gap + answer.completion) for _, answer in items]
    contexts = [with_knowledge(request, answer.knowledge, causal=causal) for request, answer in items]
    open_book = [
        ids(render(tokenizer, P.teacher_messages(answer.prompt, context, role=context_role)))
        for (_, answer), context in zip(items, contexts, strict=True)
    ]
    closed_book = [ids(render(tokenizer, user(answer.prompt))) for _, answer in items]

    def scores(prompts: list[list[int]]) -> list[float]:
        logits = completion_logits(model, prompts, answers)
        return [mean_log_probability(row, answer) for row, answer in zip(logits, answers, strict=True)]

    with evaluating(model):
        student = scores(closed_book)
        found: list[dict[str, float]] = [{} for _ in items]
        for teacher in teachers:
            with use_adapter(model, adapter_name=ADAPTERS[teacher]):
                for lead, a, b in zip(found, scores(open_book), student, strict=True):
                    lead[teacher] = a - b
    return found


def own_prompts(per_step: int, share: float) -> int:
    """How many of a step's prompts are the edits' own, where `share` of them are preserved ones; at least one."""
    return max(per_step - round(share * per_step), 1)


def mixed(
    edit: Sequence[StudyPrompt],
    preserved: Sequence[StudyPrompt],
    *,
    per_step: int,
    steps: int,
    share: float,
    seed: int,
) -> list[StudyPrompt]:
    """Prompts in the order of training: of every step's, `share` are preserved ones.

    Args:
        edit: Prompts of the edits; at least one.
        preserved: Preserved questions; with none, `share` is 0.
        per_step: Prompts of one optimiser step.
        steps: Optimiser steps.
    """
    rng = random.Random(seed)
    held = per_step - own_prompts(per_step, share) if preserved else 0
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
