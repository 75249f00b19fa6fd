"""Two runs, or two parts of one, on the same cases: paired tables and exact McNemar tests."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.facts.text import normalise
from causaledit.metrics.scores import SOURCES
from causaledit.support.statistics import Interval, PairedTable, Rate, bootstrap_mean, mean

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

    from causaledit.metrics.predictions import JudgedCase, JudgedEdit
    from causaledit.metrics.scores import CaseScores, Source
    from causaledit.metrics.summary import RunMetrics


@dataclass(frozen=True)
class BookComparison:
    """One source of SRR, closed-book against open-book.

    Attributes:
        closed_book: Edits with a self-refuting response, of those whose hop-wise responses assert the new answer.
        open_book: The same with the narrative before the question.
        paired: Edits that are in both denominators; "this" is open-book, "other" closed-book: repaired is what the
            narrative puts right.
    """

    closed_book: Rate
    open_book: Rate
    paired: PairedTable

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "closed_book": self.closed_book.to_dict(),
            "open_book": self.open_book.to_dict(),
            "paired": self.paired.to_dict(),
        }


def compare_books(metrics: RunMetrics) -> Mapping[Source, BookComparison]:
    """SRR closed-book and open-book by source, paired by edit.

    Args:
        metrics: Of a run whose prompts were asked both ways: the pilot study's, or any with open-book twins.

    Returns:
        One comparison per source; empty where the run has no open-book twins.
    """
    if metrics.open_book_self_refutation is None:
        return {}
    pairs = [pair for s in metrics.scores for pair in zip(s.edits, s.open_book_edits, strict=False)]
    compared = {}
    for source in SOURCES:
        outcomes = [
            # whether an edit belongs in the denominators may itself be unknown
            (None, None) if None in (o.asserted, c.asserted) else (o.refutes[source], c.refutes[source])
            for c, o in pairs
            if source in c.refutes and source in o.refutes and c.asserted is not False and o.asserted is not False
        ]
        compared[source] = BookComparison(
            closed_book=metrics.self_refutation[source].conditional,
            open_book=metrics.open_book_self_refutation[source].conditional,
            paired=PairedTable.of(outcomes, yes_is_good=False),
        )
    return compared


@dataclass(frozen=True)
class Difference:
    """Mean of the per-case differences this − other, with its bootstrap 95 % interval."""

    mean: float | None
    n: int
    interval: Interval | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"mean": self.mean, "n": self.n, "interval": None if self.interval is None else list(self.interval)}


@dataclass(frozen=True)
class PairedComparison:
    """Two runs compared on the cases and edits that both have.

    Attributes:
        cases: How many cases are in both.
        only_this, only_other: How many are in one of them only (or failed in the other).
        tables: Metric → 2×2 table. Units are cases (`any_right_accuracy`), answers (`hop_wise_answers`,
            `multi_hop_answers`, `locality` right after the edit, `locality_unchanged`, `rationale`, and by `Kind.key`
            those of the portability protocol); those of one case are correlated, so their p is too small; or edits
            (`self_refutation.*`: those that assert the new answer in both runs; `*.all_edits`: all).
        differences: `h_acc` and `m_acc` → difference of the per-case scores.
    """

    cases: int
    only_this: int
    only_other: int
    tables: Mapping[str, PairedTable]
    differences: Mapping[str, Difference]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cases": self.cases,
            "only_this": self.only_this,
            "only_other": self.only_other,
            "tables": {name: table.to_dict() for name, table in self.tables.items()},
            "differences": {name: difference.to_dict() for name, difference in self.differences.items()},
        }


def compare_runs(this: RunMetrics, other: RunMetrics) -> PairedComparison:
    """Compare two runs pairwise: `repaired` is bad in `other` and good in `this`.

    Raises:
        MetricsError: They share no case, a `case_id` is not unique, or the judges differ.
    """
    if this.judge != other.judge:
        raise MetricsError(f"Two runs can be compared only under one judge, got {this.judge!r} and {other.judge!r}.")
    shared = shared_cases([s.case for s in this.scores], [s.case for s in other.scores])
    mine, theirs = ({str(s.case.case_id): s for s in run.scores if s.case.error is None} for run in (this, other))
    pairs = [(mine[i], theirs[i]) for i in shared]
    tables = {
        "any_right_accuracy": PairedTable.of(
            (a.any_right, b.any_right) for a, b in pairs if a.multi_hop_answers and b.multi_hop_answers
        ),
        "hop_wise_answers": PairedTable.of(_matched(pairs, lambda s: s.hop_answers)),
        "multi_hop_answers": PairedTable.of(_matched(pairs, lambda s: s.multi_hop_answers)),
        "locality": PairedTable.of(_matched(pairs, lambda s: _locality(s, 2))),
        "locality_unchanged": PairedTable.of(_matched(pairs, lambda s: _locality(s, 0))),
        "rationale": PairedTable.of(_matched(pairs, _rationales)),
    }
    for kind in (score.kind.key for score in this.portability):
        table = PairedTable.of(_matched(pairs, partial(_portability, kind=kind)))
        if table.n or table.not_judged:
            tables[kind] = table
    edits = [
        (own, match[own.edit.identity])
        for a, b in pairs
        for match in [{o.edit.identity: o for o in b.edits}]
        for own in a.edits
        if own.edit.identity in match
    ]
    for source in SOURCES:
        probed = [(a, b) for a, b in edits if source in a.refutes and source in b.refutes]
        both = [
            (None, None) if None in (a.asserted, b.asserted) else (a.refutes[source], b.refutes[source])
            for a, b in probed
            if a.asserted is not False and b.asserted is not False
        ]
        tables[f"self_refutation.{source}"] = PairedTable.of(both, yes_is_good=False)
        tables[f"self_refutation.{source}.all_edits"] = PairedTable.of(
            ((a.refutes[source], b.refutes[source]) for a, b in probed), yes_is_good=False
        )
    return PairedComparison(
        cases=len(shared),
        only_this=len(mine) - len(shared),
        only_other=len(theirs) - len(shared),
        tables=tables,
        differences={
            "h_acc": _difference([(a.h_acc, b.h_acc) for a, b in pairs]),
            "m_acc": _difference([(a.m_acc, b.m_acc) for a, b in pairs]),
        },
    )


def shared_cases(these: Sequence[JudgedCase], others: Sequence[JudgedCase]) -> list[str]:
    """Ids of the cases that have predictions in both runs, in the order of the first.

    Raises:
        MetricsError: There is none, an id is not unique, or it names a case with other edits in the other file.
    """
    found = []
    for cases in (these, others):
        listed = [case for case in cases if case.error is None]
        by_id = {str(case.case_id): case for case in listed}
        if len(by_id) < len(listed):
            raise MetricsError("A case_id occurs more than once in a file: its cases cannot be paired.")
        found.append(by_id)
    mine, theirs = found
    if not (shared := [case_id for case_id in mine if case_id in theirs]):
        raise MetricsError("The two files share no case_id with predictions: they cannot be compared.")
    for case_id in shared:
        edits, others_edits = mine[case_id].edits, theirs[case_id].edits
        if edits and others_edits and not {edit.identity for edit in edits} & {edit.identity for edit in others_edits}:
            raise MetricsError(
                f"case_id {case_id} is another case in each of the two files ({_edit_in_words(edits[0])} in one, "
                f"{_edit_in_words(others_edits[0])} in the other): compare runs on the same data."
            )
    return shared


def _edit_in_words(edit: JudgedEdit) -> str:
    return f"{edit.question!r} gets {edit.target_new!r}"


def _matched(
    pairs: list[tuple[CaseScores, CaseScores]], answers: Callable[[CaseScores], Mapping[Any, bool | None]]
) -> Iterable[tuple[bool | None, bool | None]]:
    for a, b in pairs:
        mine, theirs = answers(a), answers(b)
        yield from ((mine[key], theirs[key]) for key in mine if key in theirs)


def _locality(scores: CaseScores, part: int) -> dict[Hashable, bool | None]:
    """One outcome of the locality answers, by edit and question: two files may ask different ones in one place."""
    edits = {outcome.edit.index: outcome.edit.identity for outcome in scores.edits}
    return {
        (
            edits.get(item.edit) if isinstance(item.edit, int) else None,
            normalise(item.asked) or item.slot,
        ): scores.locality[item.slot][part]
        for item in scores.case.of("answer", "locality")
        if not item.before
    }


def _portability(scores: CaseScores, kind: str) -> dict[Hashable, bool | None]:
    """Whether an answer of the portability protocol is right, by edit and question."""
    edits = {outcome.edit.index: outcome.edit.identity for outcome in scores.edits}
    return {
        (None if answer.edit is None else edits.get(answer.edit), normalise(answer.question)): answer.judged
        for answer in scores.portability.get(kind, ())
    }


def _rationales(scores: CaseScores) -> dict[Hashable, bool | None]:
    """Whether an explanation agrees with the narrative, by edit and place."""
    edits = {outcome.edit.index: outcome.edit.identity for outcome in scores.edits}
    items = scores.case.of("rationale", "hop_wise")
    return {
        (edits[item.edit], item.hop, item.slot): None if grade is None else grade == "PASS"
        for item, grade in zip(items, scores.rationales, strict=True)
        if item.edit is not None
    }


def _difference(pairs: list[tuple[float | None, float | None]]) -> Difference:
    values = [a - b for a, b in pairs if a is not None and b is not None]
    # the Wilson fallback of `bootstrap_mean` is for shares; a constant difference has no interval
    interval = bootstrap_mean(values) if len(set(values)) > 1 else None
    return Difference(mean(values), len(values), interval)
