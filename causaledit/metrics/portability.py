"""The scores of the portability protocol: the paper's match and a judge's verdicts, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.metrics.wording import worded_rate
from causaledit.probes.portability import Kind
from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from causaledit.metrics.predictions import Item, JudgedCase

# the order in which scores are shown: first without reasoning, then with it
ORDER = tuple(
    Kind(metric, form, reasoned)
    for reasoned in (False, True)
    for metric, form in (
        ("edit_success", "original"),
        ("edit_success", "rephrased"),
        ("locality", "original"),
        ("portability", "original"),
        ("portability", "unseen"),
        ("portability", "multi_fact"),
    )
)
_METRICS = {"edit_success": "Edit success", "locality": "Locality", "portability": "Portability"}
_FORMS = {"original": "", "rephrased": ", rephrased", "unseen": ", unseen forms", "multi_fact": ", multi-fact"}


@dataclass(frozen=True)
class PortabilityAnswer:
    """One answer.

    Attributes:
        edit: Position in the case of the edit that the question is about; None for the case as a whole.
        question: As it was asked, without what says how to answer.
        judged: The judge's verdict; an answer of several parts is right where all of them are, and None is not judged.
        matched: The paper's match.
    """

    edit: int | None
    question: str
    judged: bool | None
    matched: bool


@dataclass(frozen=True)
class PortabilityScore:
    """One score.

    Attributes:
        kind: Which.
        judged: By the judge; an answer of several parts is right where all of them are.
        matched: By the paper's match, over the same answers.
    """

    kind: Kind
    judged: Rate
    matched: Rate

    @property
    def name(self) -> str:
        """As tables call it."""
        how = "with reasoning" if self.kind.reasoned else "answer alone"
        return f"{_METRICS[self.kind.metric]}{_FORMS[self.kind.form]}, {how}"

    def line(self) -> str:
        """In one line, the judge's rate with the paper's match beside it."""
        return f"{self.name:<43} {worded_rate(self.judged)}; paper's match {worded_rate(self.matched).value}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "judged": self.judged.to_dict(), "paper_match": self.matched.to_dict()}


def portability_answers(
    case: JudgedCase, right: Callable[[Item], bool | None]
) -> dict[str, tuple[PortabilityAnswer, ...]]:
    """The answers of one case by `Kind.key`, in the order of `ORDER`; kinds that were not asked are left out.

    Args:
        case: From `cases_of`.
        right: The judge's verdict on an item; None where there is none.
    """
    parts: dict[tuple[Any, ...], list[Item]] = {}
    for item in case.of("answer", "portability"):
        parts.setdefault(item.path, []).append(item)
    found: dict[str, list[PortabilityAnswer]] = {kind.key: [] for kind in ORDER}
    for first, *others in parts.values():
        if first.kind in found:
            verdict = _all([right(item) for item in (first, *others)])
            found[first.kind].append(PortabilityAnswer(first.edit, first.asked, verdict, first.hit is True))
    return {key: tuple(answers) for key, answers in found.items() if answers}


def portability_scores(cases: Iterable[Mapping[str, Sequence[PortabilityAnswer]]]) -> tuple[PortabilityScore, ...]:
    """The scores of a run, in the order of `ORDER`; empty where the protocol was not asked.

    Args:
        cases: From `portability_answers`.
    """
    listed = list(cases)
    of_kind = ((kind, [answer for case in listed for answer in case.get(kind.key, ())]) for kind in ORDER)
    return tuple(
        PortabilityScore(kind, Rate.of(a.judged for a in answers), Rate.of(a.matched for a in answers))
        for kind, answers in of_kind
        if answers
    )


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    """Whether all parts are right; None where none is wrong and some are not judged."""
    if False in verdicts:
        return False
    return None if None in verdicts else True
