"""Retention along a sequence of edits: what is still held after later edits, and what the edits left unchanged.

An edit is *held* at a checkpoint if most of its hop-wise answers (cloze, question, question with a "why") are right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.metrics.scores import CaseScores, score_case
from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import JudgedCase


@dataclass(frozen=True)
class Checkpoint:
    """What was found once so many edits had been made.

    Attributes:
        edits: How many.
        current: Edits of the last step before it that are held.
        earlier: Edits of all earlier steps that are held; the retention curve.
        held: All of these together.
        unchanged: Locality answers that are those of the unedited model (the same text, or right both times).
        still_right: Locality answers that are right, of those that were right before the first edit.
        failed: Edits that could not be made; they are in no rate.
    """

    edits: int
    current: Rate
    earlier: Rate
    held: Rate
    unchanged: Rate
    still_right: Rate
    failed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "edits": self.edits,
            "current": self.current.to_dict(),
            "earlier": self.earlier.to_dict(),
            "held": self.held.to_dict(),
            "locality": {"unchanged": self.unchanged.to_dict(), "still_right": self.still_right.to_dict()},
            "failed": self.failed,
        }


@dataclass(frozen=True)
class Retention:
    """A sequence's checkpoints, and how many edits of each step are held at each.

    Attributes:
        checkpoints: In their order.
        by_step: (step, checkpoint) → the step's edits that are held there: the heat map.
    """

    checkpoints: tuple[Checkpoint, ...]
    by_step: dict[tuple[int, int], Rate]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "held": "most of an edit's hop-wise answers are right",
            "checkpoints": [checkpoint.to_dict() for checkpoint in self.checkpoints],
            "by_step": [
                {"step": step, "checkpoint": checkpoint, **rate.to_dict()}
                for (step, checkpoint), rate in self.by_step.items()
            ],
        }


def retention_of(cases: Sequence[JudgedCase], verdicts: VerdictTable) -> Retention | None:
    """The retention of a run over a sequence of edits; None for any other run.

    Args:
        cases: All entries of its metrics file.
        verdicts: Of one judge.
    """
    placed = [(case.sequence, case) for case in cases if case.sequence is not None]
    if not placed:
        return None
    by_step: dict[tuple[int, int], Rate] = {}
    checkpoints = []
    for number in sorted({place.checkpoint for place, _ in placed}):
        here = [(place, case) for place, case in placed if place.checkpoint == number]
        scored = [(place.step, score_case(case, verdicts)) for place, case in here if case.error is None]
        held = [(step, is_held(scores)) for step, scores in scored if scores.hop_answers]
        last = max(place.step for place, _ in here)
        local = [found for _, scores in scored for found in scores.locality.values()]
        by_step |= {
            (step, number): Rate.of(outcome for own, outcome in held if own == step)
            for step in sorted({step for step, _ in held})
        }
        checkpoints.append(
            Checkpoint(
                edits=number,
                current=Rate.of(outcome for step, outcome in held if step == last),
                earlier=Rate.of(outcome for step, outcome in held if step != last),
                held=Rate.of(outcome for _, outcome in held),
                unchanged=Rate.of(unchanged for unchanged, _, _ in local),
                still_right=Rate.of(None if was is None else now for _, was, now in local if was is not False),
                failed=len(here) - len(scored),
            )
        )
    return Retention(tuple(checkpoints), by_step)


def is_held(scores: CaseScores) -> bool | None:
    """Whether most of an edit's hop-wise answers are right; None where what is not judged could turn it."""
    return _most(scores.hop_answers.values())


def _most(answers: Iterable[bool | None]) -> bool | None:
    listed = list(answers)
    right, open_ones = listed.count(True), listed.count(None)
    if 2 * right > len(listed):
        return True
    return None if 2 * (right + open_ones) > len(listed) else False
