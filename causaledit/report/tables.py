"""The tables of the report's page as plain data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.metrics.paired import compare_books, compare_runs
from causaledit.metrics.wording import NOTHING, Worded, p_value, srr_notes, worded_difference, worded_rate
from causaledit.support.statistics import Mean, mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.metrics.scores import Source
    from causaledit.metrics.summary import RunMetrics, SelfRefutation
    from causaledit.probes.portability import Kind
    from causaledit.report.runs import ReportedRun
    from causaledit.support.statistics import PairedTable, Rate


@dataclass(frozen=True)
class Measure:
    """A metric that is shown for every run.

    Attributes:
        name: As the page calls it.
        of: Takes it out of a run's metrics, or of those of one chain length; None where there is none.
        lower_is_better: For the plot's title.
        drawn: Whether it is in the overview plot.
        notes: What else stands beside it in a table.
    """

    name: str
    of: Callable[[Any], Rate | Mean | None]
    lower_is_better: bool = False
    drawn: bool = False
    notes: Callable[[Any, str], tuple[str, ...]] = lambda metrics, judge: ()

    def cell(self, metrics: Any, judge: str) -> Worded:
        """The metric in words; `metrics` is None for a run without such a part."""
        return Worded() if metrics is None else worded_rate(self.of(metrics), self.notes(metrics, judge))


def _srr(
    name: str, found: Callable[[Any], SelfRefutation | None], *, all_edits: bool = False, drawn: bool = False
) -> Measure:
    """A self-refutation rate, with what stands beside each."""

    def rate(metrics: Any) -> Rate | None:
        refutation = found(metrics)
        if refutation is None:
            return None
        return refutation.all_edits if all_edits else refutation.conditional

    return Measure(name, rate, True, drawn, lambda metrics, judge: srr_notes(found(metrics), judge))


MEASURES = (
    Measure("H-Acc: hop-wise accuracy", lambda m: m.h_acc, drawn=True),
    Measure("M-Acc: multi-hop, all questions", lambda m: m.m_acc, drawn=True),
    Measure("M-Acc: multi-hop, any question", lambda m: m.any_right_accuracy, drawn=True),
    _srr("SRR: self-refutation, combined", lambda m: m.self_refutation["combined"], drawn=True),
    _srr("SRR, hop-wise only", lambda m: m.self_refutation["hop_wise"]),
    _srr("SRR, conflict only", lambda m: m.self_refutation["conflict"]),
    _srr("SRR, conflict with the subject described first", lambda m: m.self_refutation["conflict_described_first"]),
    _srr("SRR, combined, over all edits", lambda m: m.self_refutation["combined"], all_edits=True),
    _srr("SRR, combined, open-book", lambda m: (m.open_book_self_refutation or {}).get("combined")),
    Measure("Edits that assert the new answer", lambda m: m.asserting_edits),
    Measure("Rationale agrees with narrative", lambda m: m.rationale.aligned, drawn=True),
    Measure("Locality: answer unchanged", lambda m: m.locality.unchanged, drawn=True),
    Measure("Locality: still right", lambda m: m.locality.still_right),
)
# beside the rows above, where a method trained on some of the prompts
UNSEEN_MEASURES = tuple(
    replace(m, name=f"{m.name}, prompts not trained on", drawn=False)
    for m in MEASURES
    if m.name.startswith(("H-Acc", "M-Acc", "SRR: ", "Locality"))
)


def is_known(measured: Rate | Mean | None) -> bool:
    """Whether there is something to show: a rate, or something that could not be judged."""
    return measured is not None and (measured.rate is not None or measured.not_judged > 0)


def metric_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Worded]]]:
    """One row per metric that some run has."""
    rows = _rows(MEASURES, [(run.metrics, run.metrics.judge) for run in runs])
    rows += _rows(UNSEEN_MEASURES, [(run.metrics.unseen, run.metrics.judge) for run in runs])
    return rows + _rows(_portability_measures(runs), [(run.metrics, run.metrics.judge) for run in runs])


def _portability_measures(runs: Sequence[ReportedRun]) -> list[Measure]:
    """Each score of the portability protocol that some run has, by the judge and by the paper's match."""
    names = {score.kind: score.name for run in runs for score in run.metrics.portability}
    found = []
    for kind, name in names.items():
        for how, which in (("", "judged"), (", paper's match", "matched")):
            found.append(Measure(f"{name}{how}", partial(_score, kind=kind, which=which)))
    return found


def _score(metrics: RunMetrics, *, kind: Kind, which: str) -> Rate | None:
    return next((getattr(score, which) for score in metrics.portability if score.kind == kind), None)


def _rows(measures: Sequence[Measure], columns: Sequence[tuple[Any, str]]) -> list[tuple[str, list[Worded]]]:
    return [
        (measure.name, [measure.cell(metrics, judge) for metrics, judge in columns])
        for measure in measures
        if any(metrics is not None and is_known(measure.of(metrics)) for metrics, _ in columns)
    ]


HOP_MEASURES = (
    Measure("H-Acc", lambda part: part.h_acc),
    Measure("M-Acc, all questions", lambda part: part.m_acc),
    Measure("M-Acc, any question", lambda part: part.any_right_accuracy),
    _srr("SRR, combined", lambda part: part.self_refutation),
)


def chain_lengths(runs: Sequence[ReportedRun]) -> list[int]:
    """Lengths of chains that occur; 0 means cases without hop-wise predictions."""
    return sorted({length for run in runs for length in run.metrics.by_hops})


def hop_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Worded]]]:
    """Main metrics by length of the chain, then H-Acc by the hop's place in it."""
    rows: list[tuple[str, list[Worded]]] = []
    lengths = chain_lengths(runs)
    for measure in HOP_MEASURES:
        for length in lengths:
            chains = f"{length}-hop chains" if length else "chains of unknown length"
            columns = [(run.metrics.by_hops.get(length), run.metrics.judge) for run in runs]
            rows += _rows([replace(measure, name=f"{measure.name}: {chains}")], columns)
    for hop in range(max(lengths, default=0)):
        means = [_at_hop(run.metrics, hop) for run in runs]
        if any(map(is_known, means)):
            rows.append((f"Answers right at hop {hop + 1} of the chain", [worded_rate(found) for found in means]))
    return rows


def _at_hop(metrics: RunMetrics, hop: int) -> Mean:
    """Mean over cases of the share of the hop's answers that are right."""
    values: list[float] = []
    missing = 0
    for scores in metrics.scores:
        answers = [right for (number, _), right in scores.hop_answers.items() if number == hop]
        share = mean([float(right) for right in answers if right is not None])
        if share is not None:
            values.append(share)
        elif answers:
            missing += 1
    return Mean(tuple(values), missing)


def book_rows(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Closed-book against open-book, for runs that have both."""
    names: dict[Source, str] = {
        "hop_wise": "hop-wise only",
        "conflict": "conflict only",
        "combined": "combined",
    }
    rows = []
    for run in runs:
        metrics = run.metrics
        compared = compare_books(metrics)
        for source, name in names.items():
            found = compared.get(source)
            if found is None or not (is_known(found.closed_book) or is_known(found.open_book)):
                continue
            closed, opened = metrics.self_refutation[source], (metrics.open_book_self_refutation or {}).get(source)
            rows.append(
                {
                    "run": run.label,
                    "name": name,
                    "closed": worded_rate(found.closed_book, srr_notes(closed, metrics.judge)),
                    "open": worded_rate(found.open_book, srr_notes(opened, metrics.judge)),
                    **_paired(found.paired),
                }
            )
    return rows


def paired_rows(runs: Sequence[ReportedRun]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run against the first, on the cases both have; and notes on those that cannot be paired."""
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for run in runs[1:]:
        first = runs[0]
        if run.source.data_id and first.source.data_id and run.source.data_id != first.source.data_id:
            notes.append(f"{run.label}: different data from {first.label}, not paired.")
            continue
        try:
            found = compare_runs(run.metrics, first.metrics)
        except MetricsError as error:
            notes.append(f"{run.label}: {error}")
            continue
        for key, name in (("any_right_accuracy", "M-Acc, any question"), ("self_refutation.combined", "SRR, combined")):
            if found.tables[key].n:
                rows.append({"run": run.label, "name": name, **_paired(found.tables[key])})
        for score in run.metrics.portability:
            if (table := found.tables.get(score.kind.key)) and table.n:
                rows.append({"run": run.label, "name": score.name, **_paired(table)})
        for key, name in (("h_acc", "H-Acc"), ("m_acc", "M-Acc, all questions")):
            difference = found.differences[key]
            if difference.mean is not None:
                worded = replace(worded_difference(difference), count="")  # it has a column of its own
                rows.append({"run": run.label, "name": name, "n": difference.n, "difference": str(worded)})
    return rows, notes


def _paired(table: PairedTable) -> dict[str, Any]:
    return {"n": table.n, "repaired": table.repaired, "harmed": table.harmed, "p": p_value(table.p)}


def seconds_per_edit(run: ReportedRun) -> float | None:
    """From run_info.json; for a published run from the cases' `time`. None for the unedited model."""
    costs = run.source.info.get("costs")
    if isinstance(costs, dict):
        return _number(costs.get("seconds_per_edit"))
    timed = [
        (data, case) for data, case in zip(run.source.content, run.source.cases, strict=True) if case.error is None
    ]
    seconds = sum(_number(data.get("time")) or 0.0 for data, _ in timed)
    edits = sum(len(case.edits) for _, case in timed)
    return seconds / edits if seconds and edits else None


def cost_of(run: ReportedRun, name: str) -> float | None:
    """A number of run_info.json's `costs`."""
    costs = run.source.info.get("costs")
    return _number(costs.get(name)) if isinstance(costs, dict) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


_COSTS = (
    ("Probing, seconds", "probe_seconds", 1, "{:,.0f}"),
    ("Probing, tokens generated", "probe_tokens", 1, "{:,.0f}"),
    ("Plain generation on that machine, tokens per second", "plain_tokens_per_second", 1, "{:,.0f}"),
    ("Peak memory, GB", "peak_rss_mb", 1 / 1024, "{:.1f}"),
    ("Peak GPU memory, GB", "peak_gpu_mb", 1 / 1024, "{:.1f}"),
)


def cost_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Worded]]]:
    """One row per cost that some run has."""

    def row(name: str, values: Sequence[float | None], form: str) -> tuple[str, list[Worded]]:
        return name, [Worded(NOTHING if value is None else form.format(value)) for value in values]

    found = [
        ([seconds_per_edit(run) for run in runs], "Editing, seconds per edit", "{:,.1f}"),
        (
            [cost_of(run, "cost_tokens_per_edit") for run in runs],
            "Editing, as tokens of plain generation per edit",
            "{:,.0f}",
        ),
    ]
    for name, key, factor, form in _COSTS:
        values = [cost_of(run, key) for run in runs]
        found.append(([None if value is None else value * factor for value in values], name, form))
    rows = [row(name, values, form) for values, name, form in found if any(v is not None for v in values)]
    devices = [_device(run.source.info.get("device")) for run in runs]
    return [*rows, ("Device", [Worded(text or NOTHING) for text in devices])] if any(devices) else rows


def _device(device: Any) -> str:
    if not isinstance(device, dict):
        return ""
    return " ".join(str(device.get(key) or "") for key in ("name", "type", "dtype")).strip()


def run_rows(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Which runs these are, with the cases that have no predictions."""
    rows = []
    for run in runs:
        failed = [(str(case.case_id), case.error) for case in run.source.cases if case.error is not None]
        rows.append(
            {
                "label": run.label,
                "method": run.source.method or NOTHING,
                "model": run.source.model or NOTHING,
                "dataset": run.source.dataset or NOTHING,
                "name": run.source.name,
                "cases": run.metrics.cases,
                "edits": run.metrics.edits,
                "status": str(run.source.info.get("status") or NOTHING),
                "failed": failed,
                "errors": sorted(run.verdicts.errors().items(), key=lambda pair: -pair[1]),
            }
        )
    return rows
