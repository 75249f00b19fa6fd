"""The metrics of a run: pure functions over a metrics file and verdicts (definitions in docs/metrics.md).

Data flow: cases and verdicts → one `CaseScores` per case → **rates and means**. "Not judged" is an outcome of its
own (None): it counts neither as right nor as wrong, and its number is reported beside every figure.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from causaledit.errors import MetricsError
from causaledit.evaluation.answers import normalise
from causaledit.evaluation.predictions import Case, Edit, Item, read_cases, units_of
from causaledit.evaluation.statistics import Interval, Mean, PairedTable, Rate, bootstrap_mean
from causaledit.judges.base import Task
from causaledit.judges.store import VerdictTable, judge_responses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from causaledit.judges.base import Judge
    from causaledit.judges.prompts import Verdict

TASKS: tuple[Task, ...] = get_args(Task)
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
    """What the responses of one edit's probes add up to.

    Attributes:
        edit: The edit.
        asserted: A hop-wise response asserts the new answer; None where none does and some are not judged.
        refutes: Per source with responses, whether one of them refutes itself; None as above. A source that
            was not probed is missing.
    """

    edit: Edit
    asserted: bool | None
    refutes: Mapping[Source, bool | None]


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
    """

    case: Case
    hop_answers: Mapping[tuple[int, int], bool | None]
    multi_hop_answers: Mapping[int, bool | None]
    edits: tuple[EditOutcome, ...]
    open_book_edits: tuple[EditOutcome, ...]
    rationales: tuple[str | None, ...]
    locality: Mapping[int, tuple[bool | None, bool | None, bool | None]]

    @property
    def h_acc(self) -> float | None:
        """Mean over hops of the share of the hop's answers that are right."""
        hops: dict[int, list[bool]] = {}
        for (hop, _), right in self.hop_answers.items():
            if right is not None:
                hops.setdefault(hop, []).append(right)
        return _mean([sum(answers) / len(answers) for answers in hops.values()])

    @property
    def m_acc(self) -> float | None:
        """Share of the case's multi-hop questions answered right."""
        return _mean([float(right) for right in self.multi_hop_answers.values() if right is not None])

    @property
    def any_right(self) -> bool | None:
        """Whether one of the multi-hop questions is answered right."""
        return _any(self.multi_hop_answers.values())


@dataclass(frozen=True)
class SelfRefutation:
    """SRR of one source.

    Attributes:
        conditional: Over the edits whose hop-wise responses assert the new answer at least once (the published SRR).
        all_edits: Over all edits.
        not_probed: Edits without responses of the source (or, for `conditional`, without hop-wise ones).
    """

    conditional: Rate
    all_edits: Rate
    not_probed: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "conditional": self.conditional.to_dict(),
            "all_edits": self.all_edits.to_dict(),
            "not_probed": self.not_probed,
        }


@dataclass(frozen=True)
class Rationale:
    """Rationale alignment: explanations by grade."""

    passed: int
    failed: int
    unsure: int
    not_judged: int

    @property
    def aligned(self) -> Rate:
        """The share that agrees with the narrative; UNSURE is in the denominator."""
        return Rate(self.passed, self.passed + self.failed + self.unsure, self.not_judged)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**self.aligned.to_dict(), "PASS": self.passed, "FAIL": self.failed, "UNSURE": self.unsure}


@dataclass(frozen=True)
class Locality:
    """What the edit left alone.

    Attributes:
        unchanged: The answer is that of the model before the edit (the same text, or right both times).
        still_right: Right after the edit, of those that were right before.
    """

    unchanged: Rate
    still_right: Rate

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {"unchanged": self.unchanged.to_dict(), "still_right": self.still_right.to_dict()}


@dataclass(frozen=True)
class HopCount:
    """The figures of the cases with chains of one length."""

    cases: int
    h_acc: Mean
    m_acc: Mean
    any_right_accuracy: Rate
    self_refutation: SelfRefutation

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "cases": self.cases,
            "h_acc": self.h_acc.to_dict(),
            "m_acc": {"qa": self.m_acc.to_dict(), "any_right_accuracy": self.any_right_accuracy.to_dict()},
            "self_refutation": self.self_refutation.to_dict(),
        }


@dataclass(frozen=True)
class RunMetrics:
    """All figures of a run.

    Attributes:
        judge: Identity of the judge.
        cases: Cases in the file.
        failed_cases: Those without predictions; they are in no other figure.
        edits: Edits of the others.
        asserting_edits: Edits whose hop-wise responses assert the new answer at least once: SRR's denominator.
        h_acc: H-Acc.
        m_acc: M-Acc over all questions (`qa`).
        any_right_accuracy: M-Acc, any of a case's questions.
        self_refutation: SRR by source; `combined` is the published headline.
        open_book_self_refutation: The same over the open-book twins; None where the run has none.
        rationale: Rationale alignment.
        locality: Locality.
        by_hops: The main figures by length of the chain.
        scores: The outcomes behind all that, per case (not in `to_dict`).
    """

    judge: str
    cases: int
    failed_cases: int
    edits: int
    asserting_edits: Rate
    h_acc: Mean
    m_acc: Mean
    any_right_accuracy: Rate
    self_refutation: Mapping[Source, SelfRefutation]
    open_book_self_refutation: Mapping[Source, SelfRefutation] | None
    rationale: Rationale
    locality: Locality
    by_hops: Mapping[int, HopCount]
    scores: tuple[CaseScores, ...] = field(repr=False, default=())

    def to_dict(self) -> dict[str, Any]:
        """Plain data; every figure carries its count, its interval and what was not judged."""
        opened = self.open_book_self_refutation
        return {
            "judge": self.judge,
            "cases": self.cases,
            "failed_cases": self.failed_cases,
            "edits": self.edits,
            "asserting_edits": self.asserting_edits.to_dict(),
            "h_acc": self.h_acc.to_dict(),
            "m_acc": {"qa": self.m_acc.to_dict(), "any_right_accuracy": self.any_right_accuracy.to_dict()},
            "self_refutation": {source: figure.to_dict() for source, figure in self.self_refutation.items()},
            "open_book_self_refutation": opened and {source: figure.to_dict() for source, figure in opened.items()},
            "rationale": self.rationale.to_dict(),
            "locality": self.locality.to_dict(),
            "by_hops": {str(hops): figures.to_dict() for hops, figures in self.by_hops.items()},
        }


def evaluate_run(
    metrics: Sequence[Mapping[str, Any]] | Sequence[Case],
    judged: VerdictTable | Judge,
    *,
    tasks: Sequence[Task] = TASKS,
) -> RunMetrics:
    """All figures of a run.

    Args:
        metrics: The content of a metrics file (`read_metrics`), or its cases (`read_cases`).
        judged: Verdicts, or a judge that gives them now.
        tasks: Which tasks that judge is given; what is left out comes back as not judged.
    """
    known = [c for c in metrics if isinstance(c, Case)] or read_cases(metrics)  # type: ignore[arg-type]
    table = judged if isinstance(judged, VerdictTable) else judge_responses(judged, units_of(known, tasks))
    scores = tuple(score_case(case, table) for case in known)
    return _summary(scores, table.judge)


def _summary(scores: tuple[CaseScores, ...], judge: str) -> RunMetrics:
    answered = [s for s in scores if s.case.error is None]
    outcomes = [outcome for s in answered for outcome in s.edits]
    opened = [outcome for s in answered for outcome in s.open_book_edits]
    grades = [grade for s in answered for grade in s.rationales]
    local = [triple for s in answered for triple in s.locality.values()]
    return RunMetrics(
        judge=judge,
        cases=len(scores),
        failed_cases=len(scores) - len(answered),
        edits=len(outcomes),
        asserting_edits=Rate.of(o.asserted for o in outcomes if "hop_wise" in o.refutes),
        h_acc=_h_acc(answered),
        m_acc=_m_acc(answered),
        any_right_accuracy=_any_right(answered),
        self_refutation={source: _self_refutation(outcomes, source) for source in SOURCES},
        open_book_self_refutation={source: _self_refutation(opened, source) for source in SOURCES} if opened else None,
        rationale=Rationale(*(grades.count(grade) for grade in ("PASS", "FAIL", "UNSURE", None))),
        locality=Locality(
            unchanged=Rate.of(unchanged for unchanged, _, _ in local),
            # an answer that was wrong before cannot be kept right; one not judged before might have been right
            still_right=Rate.of(None if before is None else after for _, before, after in local if before is not False),
        ),
        by_hops={hops: _hop_count([s for s in answered if s.case.hops == hops]) for hops in _lengths(answered)},
        scores=scores,
    )


def _lengths(scores: Iterable[CaseScores]) -> list[int]:
    return sorted({s.case.hops for s in scores})


def _hop_count(scores: list[CaseScores]) -> HopCount:
    outcomes = [outcome for s in scores for outcome in s.edits]
    return HopCount(
        len(scores), _h_acc(scores), _m_acc(scores), _any_right(scores), _self_refutation(outcomes, "combined")
    )


def _h_acc(scores: list[CaseScores]) -> Mean:
    return _mean_over_cases([s for s in scores if s.hop_answers], lambda s: s.h_acc, lambda s: s.hop_answers)


def _m_acc(scores: list[CaseScores]) -> Mean:
    probed = [s for s in scores if s.multi_hop_answers]
    return _mean_over_cases(probed, lambda s: s.m_acc, lambda s: s.multi_hop_answers)


def _any_right(scores: list[CaseScores]) -> Rate:
    return Rate.of(s.any_right for s in scores if s.multi_hop_answers)


def _mean_over_cases(
    scores: list[CaseScores],
    value: Callable[[CaseScores], float | None],
    answers: Callable[[CaseScores], Mapping[Any, bool | None]],
) -> Mean:
    values = [value(s) for s in scores]
    return Mean(
        values=tuple(v for v in values if v is not None),
        not_judged=sum(v is None for v in values),
        predictions_not_judged=sum(right is None for s in scores for right in answers(s).values()),
    )


def _self_refutation(outcomes: list[EditOutcome], source: Source) -> SelfRefutation:
    probed = [o for o in outcomes if source in o.refutes]
    conditional = [o for o in probed if "hop_wise" in o.refutes and o.asserted is not False]
    return SelfRefutation(
        # whether an edit belongs into the denominator may itself be unknown
        conditional=Rate.of(None if o.asserted is None else o.refutes[source] for o in conditional),
        all_edits=Rate.of(o.refutes[source] for o in probed),
        not_probed=len(outcomes) - len(probed),
    )


def score_case(case: Case, verdicts: VerdictTable) -> CaseScores:
    """The outcomes of one case."""
    opened = any(item.probe.startswith("open_book") for item in case.items)
    return CaseScores(
        case=case,
        hop_answers={(i.hop, i.slot): _right(i, verdicts) for i in case.of("answer", "hop_wise")},  # type: ignore[misc]
        multi_hop_answers={i.slot: _right(i, verdicts) for i in case.of("answer", "multi_hop")},
        edits=tuple(_outcome(case, edit, verdicts) for edit in case.edits),
        open_book_edits=tuple(_outcome(case, edit, verdicts, "open_book_") for edit in case.edits) if opened else (),
        rationales=tuple(_grade(i, verdicts) for i in case.of("rationale", "hop_wise")),
        locality=_locality(case, verdicts),
    )


def _outcome(case: Case, edit: Edit, verdicts: VerdictTable, prefix: str = "") -> EditOutcome:
    hop_wise = case.of("refutation", f"{prefix}hop_wise", edit=edit.index)  # type: ignore[arg-type]
    conflict = case.of("refutation", f"{prefix}conflict", edit=edit.index)  # type: ignore[arg-type]
    parts = {
        "hop_wise": hop_wise,
        "conflict": conflict,
        "described_first": [item for item in conflict if item.described_first],
    }
    refuted = {
        name: [_field(item, verdicts, "self_refutation") for item in items] for name, items in parts.items() if items
    }
    return EditOutcome(
        edit=edit,
        asserted=_any(_field(item, verdicts, "assertion_of_target_new") for item in hop_wise),
        refutes={
            source: _any(outcome for name in names for outcome in refuted[name])
            for source, names in _PARTS.items()
            if all(name in refuted for name in names)
        },
    )


def _locality(case: Case, verdicts: VerdictTable) -> dict[int, tuple[bool | None, bool | None, bool | None]]:
    items = case.of("answer", "locality")
    before = {item.slot: item for item in items if item.before}
    found = {}
    for after in (item for item in items if not item.before):
        was, now = before[after.slot], after
        was_right, is_right = _right(was, verdicts), _right(now, verdicts)
        if was.response and now.response and _same_text(was, now):
            unchanged: bool | None = True
        else:
            unchanged = None if was_right is None or is_right is None else was_right and is_right
        found[after.slot] = (unchanged, was_right, is_right)
    return found


def _same_text(a: Item, b: Item) -> bool:
    return a.response is not None and b.response is not None and (
        normalise(a.response.response) == normalise(b.response.response)
    )  # fmt: skip


def _verdict(item: Item, verdicts: VerdictTable) -> Verdict | None:
    verdict = verdicts.get(item.task, item.response)
    return None if verdict is None or verdict.error is not None else verdict


def _grade(item: Item, verdicts: VerdictTable) -> str | None:
    return getattr(_verdict(item, verdicts), "grade", None)


def _right(item: Item, verdicts: VerdictTable) -> bool | None:
    grade = _grade(item, verdicts)
    return None if grade is None else grade == "PASS"


def _field(item: Item, verdicts: VerdictTable, name: str) -> bool | None:
    return getattr(_verdict(item, verdicts), name, None)


def _any(outcomes: Iterable[bool | None]) -> bool | None:
    """Whether one is so; unknown where none is and some are unknown."""
    listed = list(outcomes)
    if any(listed):
        return True
    return None if None in listed else False


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


# ---- two runs on the same cases ----------------------------------------------------------------------------------
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
            `multi_hop_answers`, `locality`; those of one case hang together, so their p is too small), or edits
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
        raise MetricsError(f"Two runs compare under one judge only, got {this.judge!r} and {other.judge!r}.")
    shared = shared_cases([s.case for s in this.scores], [s.case for s in other.scores])
    mine, theirs = ({str(s.case.case_id): s for s in run.scores if s.case.error is None} for run in (this, other))
    pairs = [(mine[i], theirs[i]) for i in shared]
    tables = {
        "any_right_accuracy": PairedTable.of(
            (a.any_right, b.any_right) for a, b in pairs if a.multi_hop_answers and b.multi_hop_answers
        ),
        "hop_wise_answers": PairedTable.of(_matched(pairs, lambda s: s.hop_answers)),
        "multi_hop_answers": PairedTable.of(_matched(pairs, lambda s: s.multi_hop_answers)),
        "locality": PairedTable.of(_matched(pairs, lambda s: {k: v[2] for k, v in s.locality.items()})),
    }
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


def shared_cases(these: Sequence[Case], others: Sequence[Case]) -> list[str]:
    """Ids of the cases that have predictions in both runs, in the order of the first.

    Raises:
        MetricsError: There is none, or an id is not unique.
    """
    ids = [[str(case.case_id) for case in cases if case.error is None] for cases in (these, others)]
    for listed in ids:
        if len(set(listed)) < len(listed):
            raise MetricsError("A case_id occurs more than once in a file: its cases cannot be paired.")
    known = set(ids[1])
    if not (shared := [case_id for case_id in ids[0] if case_id in known]):
        raise MetricsError("The two files share no case_id with predictions: they cannot be compared.")
    return shared


def _matched(
    pairs: list[tuple[CaseScores, CaseScores]], answers: Callable[[CaseScores], Mapping[Any, bool | None]]
) -> Iterable[tuple[bool | None, bool | None]]:
    for a, b in pairs:
        mine, theirs = answers(a), answers(b)
        yield from ((mine[key], theirs[key]) for key in mine if key in theirs)


def _difference(pairs: list[tuple[float | None, float | None]]) -> Difference:
    values = [a - b for a, b in pairs if a is not None and b is not None]
    # the Wilson fallback of `bootstrap_mean` is for shares of yes; a constant difference has no interval of its own
    interval = bootstrap_mean(values) if len(set(values)) > 1 else None
    return Difference(_mean(values), len(values), interval)
