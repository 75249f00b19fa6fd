"""The scores of the portability protocol: the paper's match and a judge's verdicts, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.probes.portability import Kind
from causaledit.support.statistics import Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

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

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"name": self.name, "judged": self.judged.to_dict(), "paper_match": self.matched.to_dict()}


def portability_scores(
    cases: Iterable[JudgedCase], right: Callable[[Item], bool | None]
) -> tuple[PortabilityScore, ...]:
    """The scores of a run, in the order of `ORDER`; empty where the protocol was not asked.

    Args:
        cases: From `cases_of`.
        right: The judge's verdict on an item; None where there is none.
    """
    answers: dict[str, list[list[Item]]] = {kind.key: [] for kind in ORDER}
    for case in cases:
        parts: dict[tuple[Any, ...], list[Item]] = {}
        for item in case.of("answer", "portability"):
            parts.setdefault(item.path, []).append(item)
        for items in parts.values():
            if items[0].kind in answers:
                answers[items[0].kind].append(items)
    return tuple(
        PortabilityScore(
            kind,
            Rate.of(_all([right(item) for item in items]) for items in answers[kind.key]),
            Rate.of(items[0].hit for items in answers[kind.key]),
        )
        for kind in ORDER
        if answers[kind.key]
    )


def _all(verdicts: Sequence[bool | None]) -> bool | None:
    """Whether all parts are right; None where none is wrong and some are not judged."""
    if False in verdicts:
        return False
    return None if None in verdicts else True
