"""The metrics of a run: pure functions over a metrics file and verdicts (definitions in docs/metrics.md).

Data flow: cases and verdicts → one `CaseScores` per case → **rates and means**. "Not judged" is an outcome of its
own (None): it counts neither as right nor as wrong, and its number is reported beside every metric.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from causaledit.judges.base import Task
from causaledit.judges.judging import judge_responses
from causaledit.judges.store import VerdictTable
from causaledit.metrics.portability import PortabilityScore, portability_scores
from causaledit.metrics.predictions import JudgedCase, cases_of, last_checkpoint, units_of
from causaledit.metrics.retention import Retention, retention_of
from causaledit.metrics.scores import SOURCES, CaseScores, EditOutcome, Source, score_case
from causaledit.support.statistics import Mean, Rate, mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from causaledit.judges.base import Judge

TASKS: tuple[Task, ...] = get_args(Task)


@dataclass(frozen=True)
class SelfRefutation:
    """SRR of one source.

    Attributes:
        conditional: Over the edits whose hop-wise responses assert the new answer at least once (the published SRR).
        all_edits: Over all edits.
        not_probed: Edits without responses of the source (or, for `conditional`, without hop-wise ones).
        answer_words: Mean number of words in a response of the source; None without responses. A model that answers
            in one line has little to refute.
    """

    conditional: Rate
    all_edits: Rate
    not_probed: int
    answer_words: float | None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "conditional": self.conditional.to_dict(),
            "all_edits": self.all_edits.to_dict(),
            "not_probed": self.not_probed,
            "answer_words": self.answer_words,
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
    """What the edit left unchanged.

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
class ChainMetrics:
    """The main metrics of the cases with chains of one length."""

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
    """All metrics of a run.

    Attributes:
        judge: Identity of the judge.
        cases: Cases in the file.
        failed_cases: Those without predictions; they are in no other metric.
        edits: Edits of the others.
        asserting_edits: Edits whose hop-wise responses assert the new answer at least once: SRR's denominator.
        h_acc: H-Acc.
        m_acc: M-Acc over all questions (`qa`).
        any_right_accuracy: M-Acc, any of a case's questions.
        self_refutation: SRR by source; `combined` is the published headline.
        open_book_self_refutation: The same over the open-book twins; None where the run has none.
        rationale: Rationale alignment.
        locality: Locality.
        by_hops: The main metrics by length of the chain.
        trained_predictions: How many predictions answer a prompt that the method trained on.
        unseen: The metrics without those; None where there are none.
        portability: The scores of the portability protocol; empty where it was not asked.
        scores: The outcomes behind these metrics, per case (not in `to_dict`).
        retention: Of a run over a sequence of edits, whose other metrics are those at the last checkpoint; else None.
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
    by_hops: Mapping[int, ChainMetrics]
    trained_predictions: int = 0
    unseen: RunMetrics | None = None
    portability: tuple[PortabilityScore, ...] = ()
    scores: tuple[CaseScores, ...] = field(repr=False, default=())
    retention: Retention | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data; every rate carries its count, its interval and what was not judged."""
        opened = self.open_book_self_refutation
        return {
            "judge": self.judge,
            "cases": self.cases,
            "failed_cases": self.failed_cases,
            "edits": self.edits,
            "asserting_edits": self.asserting_edits.to_dict(),
            "h_acc": self.h_acc.to_dict(),
            "m_acc": {"qa": self.m_acc.to_dict(), "any_right_accuracy": self.any_right_accuracy.to_dict()},
            "self_refutation": {source: found.to_dict() for source, found in self.self_refutation.items()},
            "open_book_self_refutation": opened and {source: found.to_dict() for source, found in opened.items()},
            "rationale": self.rationale.to_dict(),
            "locality": self.locality.to_dict(),
            "by_hops": {str(hops): part.to_dict() for hops, part in self.by_hops.items()},
            "trained_predictions": self.trained_predictions,
            "unseen": self.unseen and self.unseen.to_dict(),
            "portability": {score.kind.key: score.to_dict() for score in self.portability},
            **({"retention": self.retention.to_dict()} if self.retention else {}),
        }


def evaluate_run(
    metrics: Sequence[Mapping[str, Any]], judged: VerdictTable | Judge, *, tasks: Sequence[Task] = TASKS
) -> RunMetrics:
    """All metrics of a run, from the content of its file.

    Args:
        metrics: The content of a metrics file (`read_metrics`).
        judged: Verdicts, or a judge that gives them now.
        tasks: Which tasks that judge is given; predictions of other tasks come back as not judged.
    """
    cases = cases_of(metrics)
    verdicts = judged if isinstance(judged, VerdictTable) else judge_responses(judged, units_of(cases, tasks))
    return summarise(cases, verdicts)


def summarise(cases: Sequence[JudgedCase], verdicts: VerdictTable) -> RunMetrics:
    """All metrics of a run, from its cases and their verdicts.

    Args:
        cases: From `cases_of`. Of a run over a sequence of edits the metrics are those at the last checkpoint.
        verdicts: Of one judge; what has none is not judged.
    """
    every, cases = cases, last_checkpoint(cases)
    trained = {item.path for case in cases for item in case.items if item.trained}
    unseen = summarise([case.unseen for case in cases], verdicts) if trained else None
    scores = tuple(score_case(case, verdicts) for case in cases)
    answered = [s for s in scores if s.case.error is None]
    outcomes = [outcome for s in answered for outcome in s.edits]
    opened = [outcome for s in answered for outcome in s.open_book_edits]
    grades = [grade for s in answered for grade in s.rationales]
    local = [triple for s in answered for triple in s.locality.values()]
    return RunMetrics(
        judge=verdicts.judge,
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
        by_hops={hops: _chain_metrics([s for s in answered if s.case.hops == hops]) for hops in _lengths(answered)},
        trained_predictions=len(trained),
        unseen=unseen,
        portability=portability_scores(s.portability for s in answered),
        scores=scores,
        retention=retention_of(every, verdicts),
    )


def _lengths(scores: Iterable[CaseScores]) -> list[int]:
    return sorted({s.case.hops for s in scores})


def _chain_metrics(scores: list[CaseScores]) -> ChainMetrics:
    outcomes = [outcome for s in scores for outcome in s.edits]
    return ChainMetrics(
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
        # whether an edit belongs in the denominator may itself be unknown
        conditional=Rate.of(None if o.asserted is None else o.refutes[source] for o in conditional),
        all_edits=Rate.of(o.refutes[source] for o in probed),
        not_probed=len(outcomes) - len(probed),
        answer_words=mean([words for o in probed for words in o.words[source]]),
    )
