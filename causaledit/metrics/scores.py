"""One case: from the verdicts of its predictions to its scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from causaledit.facts.text import normalise, word_count
from causaledit.judges.base import RefutationVerdict
from causaledit.metrics.portability import PortabilityAnswer, portability_answers
from causaledit.support.statistics import mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from causaledit.judges.prompts import Verdict
    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import Item, JudgedCase, JudgedEdit, ProbeGroup

Source = Literal["hop_wise", "conflict", "conflict_described_first", "combined", "combined_described_first"]

SOURCES: tuple[Source, ...] = get_args(Source)

# the parts a source needs; an edit that lacks responses of one of them is not counted for it
_PARTS: dict[Source, tuple[str, ...]] = {
    "hop_wise": ("hop_wise",),
    "conflict": ("conflict",),
    "conflict_described_first": ("described_first",),
    "combined": ("hop_wise", "conflict"),
    "combined_described_first": ("hop_wise", "described_first"),
}


@dataclass(frozen=True)
class EditOutcome:
    """The outcome of one edit's probes.

    Attributes:
        edit: The edit.
        asserted: A hop-wise response asserts the new answer; None where none does and some are not judged.
        refutes: Per source with responses, whether one of them refutes itself; None as above. A source that
            was not probed is missing.
        words: Per such source, how many words each response has.
    """

    edit: JudgedEdit
    asserted: bool | None
    refutes: Mapping[Source, bool | None]
    words: Mapping[Source, tuple[int, ...]]


@dataclass(frozen=True)
class CaseScores:
    """The outcomes of one case. None is "not judged" throughout.

    Attributes:
        case: The case.
        hop_answers: (hop, slot) → right or not.
        multi_hop_answers: Question → right or not.
        edits: One outcome per edit, from the closed-book probes.
        open_book_edits: The same from the open-book twins, where the run has them.
        rationales: Grades of the explanations.
        locality: Slot → (unchanged, right before, right after).
        portability: `Kind.key` → the answers of the portability protocol; empty where it was not asked.
    """

    case: JudgedCase
    hop_answers: Mapping[tuple[int, int], bool | None]
    multi_hop_answers: Mapping[int, bool | None]
    edits: tuple[EditOutcome, ...]
    open_book_edits: tuple[EditOutcome, ...]
    rationales: tuple[str | None, ...]
    locality: Mapping[int, tuple[bool | None, bool | None, bool | None]]
    portability: Mapping[str, tuple[PortabilityAnswer, ...]]

    @property
    def h_acc(self) -> float | None:
        """Mean over hops of the share of the hop's answers that are right."""
        hops: dict[int, list[bool]] = {}
        for (hop, _), right in self.hop_answers.items():
            if right is not None:
                hops.setdefault(hop, []).append(right)
        return mean([sum(answers) / len(answers) for answers in hops.values()])

    @property
    def m_acc(self) -> float | None:
        """Share of the case's multi-hop questions answered right."""
        return mean([float(right) for right in self.multi_hop_answers.values() if right is not None])

    @property
    def any_right(self) -> bool | None:
        """Whether one of the multi-hop questions is answered right."""
        return _any(self.multi_hop_answers.values())


def score_case(case: JudgedCase, verdicts: VerdictTable) -> CaseScores:
    """The outcomes of one case."""
    opened = any(item.probe.startswith("open_book") for item in case.items)
    return CaseScores(
        case=case,
        hop_answers={
            (item.hop, item.slot): is_right(item, verdicts)
            for item in case.of("answer", "hop_wise")
            if item.hop is not None
        },
        multi_hop_answers={item.slot: is_right(item, verdicts) for item in case.of("answer", "multi_hop")},
        edits=tuple(_outcome(case, edit, verdicts, "hop_wise", "conflict") for edit in case.edits),
        open_book_edits=tuple(
            _outcome(case, edit, verdicts, "open_book_hop_wise", "open_book_conflict") for edit in case.edits if opened
        ),
        rationales=tuple(_grade(item, verdicts) for item in case.of("rationale", "hop_wise")),
        locality=_locality(case, verdicts),
        portability=portability_answers(case, lambda item: is_right(item, verdicts)),
    )


def _outcome(
    case: JudgedCase, edit: JudgedEdit, verdicts: VerdictTable, hop_wise: ProbeGroup, conflict: ProbeGroup
) -> EditOutcome:
    hops = case.of("refutation", hop_wise, edit=edit.index)
    conflicts = case.of("refutation", conflict, edit=edit.index)
    parts = {
        "hop_wise": hops,
        "conflict": conflicts,
        "described_first": [item for item in conflicts if item.described_first],
    }
    probed = {source: names for source, names in _PARTS.items() if all(parts[name] for name in names)}
    responses = {source: [item for name in names for item in parts[name]] for source, names in probed.items()}
    return EditOutcome(
        edit=edit,
        asserted=_any(_refutation(item, verdicts, "assertion_of_target_new") for item in hops),
        refutes={
            source: _any(_refutation(item, verdicts, "self_refutation") for item in items)
            for source, items in responses.items()
        },
        words={
            source: tuple(word_count(item.response.response) for item in items if item.response is not None)
            for source, items in responses.items()
        },
    )


def _locality(case: JudgedCase, verdicts: VerdictTable) -> dict[int, tuple[bool | None, bool | None, bool | None]]:
    items = case.of("answer", "locality")
    before = {item.slot: item for item in items if item.before}
    found = {}
    for after in (item for item in items if not item.before):
        was, now = before[after.slot], after
        right_before, right_after = is_right(was, verdicts), is_right(now, verdicts)
        found[after.slot] = (_unchanged(was, now, right_before, right_after), right_before, right_after)
    return found


def _unchanged(was: Item, now: Item, right_before: bool | None, right_after: bool | None) -> bool | None:
    """Whether an answer is that of before the edit: the same text, or right both times; None where it is not judged.

    Which pairs count must not depend on their outcome: one that a judge could not judge is left out though its texts
    be equal (left in, equal texts alone would be counted), and without a reference the texts decide either way.
    """
    if was.said is None or now.said is None:
        return None
    same = normalise(was.said) == normalise(now.said)
    if was.response is None or now.response is None:  # nothing to compare them with but each other
        return same
    if right_before is None or right_after is None:
        return None
    return same or (right_before and right_after)


def _verdict(item: Item, verdicts: VerdictTable) -> Verdict | None:
    """The verdict; None where there is none, or an error."""
    verdict = verdicts.get(item.task, item.response)
    return None if verdict is None or verdict.error is not None else verdict


def _grade(item: Item, verdicts: VerdictTable) -> str | None:
    verdict = _verdict(item, verdicts)
    return None if verdict is None or isinstance(verdict, RefutationVerdict) else verdict.grade


def is_right(item: Item, verdicts: VerdictTable) -> bool | None:
    """Whether an answer is right; None where it is not judged."""
    grade = _grade(item, verdicts)
    return None if grade is None else grade == "PASS"


def _refutation(
    item: Item, verdicts: VerdictTable, name: Literal["assertion_of_target_new", "self_refutation"]
) -> bool | None:
    verdict = _verdict(item, verdicts)
    if not isinstance(verdict, RefutationVerdict):
        return None
    return verdict.self_refutation if name == "self_refutation" else verdict.assertion_of_target_new


def _any(outcomes: Iterable[bool | None]) -> bool | None:
    """Whether one is true; None where none is and some are None."""
    listed = list(outcomes)
    if any(listed):
        return True
    return None if None in listed else False
