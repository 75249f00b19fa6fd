"""A sequence of edits, planned: which edits each step makes, and what is asked at each checkpoint.

    edits in the order of their cases → **steps** of N unique edits, kept → checkpoints: every edit so far is asked

What is asked about is one edit at a time: each has an entry of its own, with the hop that it made. A case's multi-hop
questions are asked once all its edits are in the model, in the entry of the last of them.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from causaledit.errors import RunError
from causaledit.mquake.cases import Hop
from causaledit.mquake.selection import Group
from causaledit.runs.arguments import PRESETS

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from causaledit.mquake.cases import Case, CaseEdit
    from causaledit.runs.arguments import RunArguments

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SequenceEdit:
    """One edit of a sequence.

    Attributes:
        number: Its place in the sequence, from 1.
        step: The step that makes it, from 1.
        case: The case that it came with, as it is asked about: this edit and the hop that it made.
        needs: For the last edit of a case: the numbers of all the case's edits; its questions wait for them.
        superseded: The number of a later edit of the same fact with another answer, which wins.
    """

    number: int
    step: int
    case: Case
    needs: tuple[int, ...] = ()
    superseded: int | None = None

    @property
    def edit(self) -> CaseEdit:
        """The edit."""
        return self.case.edits[0]

    def place(self, checkpoint: int) -> dict[str, int]:
        """What an entry of metrics.json says about where in the sequence it belongs."""
        return {"checkpoint": checkpoint, "edit": self.number, "step": self.step}


@dataclass(frozen=True)
class SequencePlan:
    """The edits of a sequence, and when they are asked about.

    Attributes:
        edits: In their order.
        checkpoints: Numbers of edits, each at the end of a step; the last is that of all edits.
        dropped: Edits that were never made, as a later one of the same step contradicts them: texts.
    """

    edits: tuple[SequenceEdit, ...]
    checkpoints: tuple[int, ...]
    dropped: tuple[str, ...] = ()

    def asked(self, checkpoint: int, failed: Container[int] = ()) -> list[SequenceEdit]:
        """The edits that hold at a checkpoint: made, and not superseded.

        Args:
            checkpoint: How many edits were made.
            failed: Steps whose edits could not be made: they supersede nothing.
        """
        return [e for e in self.edits if e.number <= checkpoint and not self._superseded(e, checkpoint, failed)]

    def _superseded(self, edit: SequenceEdit, checkpoint: int, failed: Container[int]) -> bool:
        later = edit.superseded
        while later is not None and later <= checkpoint:
            found = self.edits[later - 1]
            if found.step not in failed:
                return True
            later = found.superseded
        return False

    def case_at(self, edit: SequenceEdit, checkpoint: int, failed: Container[int] = ()) -> Case:
        """What an edit is asked about at a checkpoint: with its case's questions where all its edits hold."""
        held = {other.number for other in self.asked(checkpoint, failed)}
        return edit.case if edit.needs and held.issuperset(edit.needs) else replace(edit.case, questions=())

    @property
    def groups(self) -> list[Group]:
        """One group of edits a step."""
        steps: dict[int, list[SequenceEdit]] = {}
        for edit in self.edits:
            steps.setdefault(edit.step, []).append(edit)
        return [Group(tuple(e.edit for e in made), tuple(e.case for e in made)) for made in steps.values()]

    def to_dict(self) -> dict[str, Any]:
        """What run_info.json says of it."""
        return {
            "steps": self.edits[-1].step,
            "edits": len(self.edits),
            "checkpoints": list(self.checkpoints),
            "superseded": {str(e.number): e.superseded for e in self.edits if e.superseded is not None},
            "left_out": list(self.dropped),
        }


def plan_sequence(cases: Sequence[Case], arguments: RunArguments) -> SequencePlan:
    """The steps and checkpoints of a sequence over the unique edits of these cases.

    Args:
        cases: In their order.
        arguments: With `sequential` and `checkpoints`, or `protocol`.

    Raises:
        RunError: A checkpoint lies beyond the edits or within a step, or there are fewer edits than steps.
    """
    owned = {edit.key: (edit, case) for case in reversed(cases) for edit in reversed(case.edits)}  # by its first case
    ordered = [owned[key] for key in dict.fromkeys(edit.key for case in cases for edit in case.edits)]
    size = _size(arguments, len(ordered))
    steps, dropped = _steps(ordered, size)
    ends = [sum(map(len, steps[: n + 1])) for n in range(len(steps))]
    checkpoints = arguments.checkpoints or tuple(ends)
    _check_checkpoints(checkpoints, ends, size)
    numbered = [(number, edit, case) for number, (edit, case) in enumerate((m for s in steps for m in s), start=1)]
    numbered = numbered[: checkpoints[-1]]
    numbers = {edit.key: number for number, edit, _ in numbered}
    facts: dict[tuple[str, str], list[int]] = {}
    last: dict[int | str, int] = {}
    for number, edit, case in numbered:
        facts.setdefault(edit.fact, []).append(number)
        last[case.case_id] = number
    several = {case.case_id for number, _, case in numbered if last[case.case_id] != number}
    edits = []
    for number, edit, case in numbered:
        step = next(n for n, end in enumerate(ends, start=1) if number <= end)
        later = min((n for n in facts[edit.fact] if n > number), default=None)
        whole = number == last[case.case_id] and all(other.key in numbers for other in case.edits)
        needs = tuple(numbers[other.key] for other in case.edits) if whole else ()
        name = f"{case.case_id}/{case.edits.index(edit) + 1}" if case.case_id in several else case.case_id
        asked = replace(case, case_id=name, edits=(edit,), hops=(_hop_of(edit),), old_hops=())
        edits.append(SequenceEdit(number, step, asked, needs, later))
        if later is not None:
            logger.warning(
                "edits %d and %d contradict each other (%s): the later one wins", number, later, edit.request.cloze
            )
    for text in dropped:
        logger.warning("two edits of one step contradict each other: the later one wins, %s is not made", text)
    return SequencePlan(tuple(edits), checkpoints, tuple(dropped))


def _size(arguments: RunArguments, total: int) -> int:
    if arguments.protocol not in PRESETS:
        return arguments.sequential or 1
    steps = PRESETS[arguments.protocol]
    if total < steps:
        raise RunError(
            f"--protocol {arguments.protocol} makes {steps} steps, and the chosen cases have {total} unique edits: "
            "choose more cases."
        )
    return -(-total // steps)


def _steps(ordered: Sequence[tuple[CaseEdit, Case]], size: int) -> tuple[list[list[tuple[CaseEdit, Case]]], list[str]]:
    """Full steps in order, the last as long as what is left. Edits that contradict each other share no step."""
    steps: list[list[tuple[CaseEdit, Case]]] = [[]]
    dropped = []
    for edit, case in ordered:
        if len(steps[-1]) == size:
            steps.append([])
        for earlier in [e for e in steps[-1] if e[0].fact == edit.fact]:
            steps[-1].remove(earlier)
            dropped.append(f"{earlier[0].request.cloze} {earlier[0].request.target_new} (case {earlier[1].case_id})")
        steps[-1].append((edit, case))
    return steps, dropped


def _check_checkpoints(checkpoints: Sequence[int], ends: Sequence[int], size: int) -> None:
    shown = ",".join(map(str, checkpoints))
    if checkpoints[-1] > ends[-1]:
        raise RunError(
            f"--checkpoints {shown}: the chosen cases have {ends[-1]} unique edits: give checkpoints up to "
            f"{ends[-1]}, or choose more cases."
        )
    if inside := [n for n in checkpoints if n not in ends]:
        near = max((end for end in ends if end < inside[0]), default=ends[0])
        raise RunError(
            f"--checkpoints {shown}: {inside[0]} lies within a step of --sequential {size}: give the end of one, "
            f"{near} for example."
        )


def _hop_of(edit: CaseEdit) -> Hop:
    """An edit as the hop that it makes."""
    request = edit.request
    return Hop(request.question_form, request.cloze, request.target_new, edit.new_aliases)
