"""What stands on the report's page, as plain data: runs, tables, and one record per prediction.

Data flow: run folders → `read_run` → judge → `evaluate_run` → **tables** and **records**. Texts that occur in several
records (prompts, narratives) are kept once; the page looks them up by number.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.metrics.paired import compare_books, compare_runs
from causaledit.metrics.wording import Cell, _signed, cell
from causaledit.support.statistics import Mean, Rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from causaledit.metrics.summary import RunMetrics
    from causaledit.report.runs import ReportedRun


# ---- runs ----------------------------------------------------------------------------------------------------------


# ---- tables --------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """A share as the page writes it."""
    return f"{100 * share:.1f} %"


@dataclass(frozen=True)
class Measure:
    """A metric that is shown for every run.

    Attributes:
        name: As the page calls it.
        of: Takes it out of a run's figures; None where the run has none.
        lower_is_better: For the figure's title.
        drawn: Whether it is in the overview figure.
    """

    name: str
    of: Callable[[RunMetrics], Rate | Mean | None]
    lower_is_better: bool = False
    drawn: bool = False


def _opened(source: Any) -> Callable[[RunMetrics], Rate | None]:
    return lambda f: f.open_book_self_refutation and f.open_book_self_refutation[source].conditional


MEASURES = (
    Measure("H-Acc: hop-wise accuracy", lambda f: f.h_acc, drawn=True),
    Measure("M-Acc: multi-hop, all questions", lambda f: f.m_acc, drawn=True),
    Measure("M-Acc: multi-hop, any question", lambda f: f.any_right_accuracy, drawn=True),
    Measure("SRR: self-refutation, combined", lambda f: f.self_refutation["combined"].conditional, True, True),
    Measure("SRR, hop-wise only", lambda f: f.self_refutation["hop_wise"].conditional, True),
    Measure("SRR, conflict only", lambda f: f.self_refutation["conflict"].conditional, True),
    Measure(
        "SRR, conflict with the subject described first",
        lambda f: f.self_refutation["conflict_described_first"].conditional,
        True,
    ),
    Measure("SRR, combined, over all edits", lambda f: f.self_refutation["combined"].all_edits, True),
    Measure("SRR, combined, open-book", _opened("combined"), True),
    Measure("Edits that assert the new answer", lambda f: f.asserting_edits),
    Measure("Rationale agrees with narrative", lambda f: f.rationale.aligned, drawn=True),
    Measure("Locality: answer unchanged", lambda f: f.locality.unchanged, drawn=True),
    Measure("Locality: still right", lambda f: f.locality.still_right),
)


def has_figure(figure: Rate | Mean | None) -> bool:
    """Whether there is something to show: a rate, or something that could not be judged."""
    return figure is not None and (figure.rate is not None or figure.not_judged > 0)


def metric_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Cell]]]:
    """One row per metric that some run has."""
    rows = [(m.name, [m.of(run.figures) for run in runs]) for m in MEASURES]
    return [(name, [cell(f) for f in figures]) for name, figures in rows if any(map(has_figure, figures))]


HOP_MEASURES = (
    Measure("H-Acc", lambda part: part.h_acc),
    Measure("M-Acc, all questions", lambda part: part.m_acc),
    Measure("M-Acc, any question", lambda part: part.any_right_accuracy),
    Measure("SRR, combined", lambda part: part.self_refutation.conditional, True),
)


def chain_lengths(runs: Sequence[ReportedRun]) -> list[int]:
    """Lengths of chains that occur; 0 stands for cases without hop-wise predictions."""
    return sorted({length for run in runs for length in run.figures.by_hops})


def hop_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Cell]]]:
    """Main figures by length of the chain, then H-Acc by the hop's place in it."""
    rows = []
    for measure in HOP_MEASURES:
        for length in chain_lengths(runs):
            parts = [run.figures.by_hops.get(length) for run in runs]
            figures = [None if part is None else measure.of(part) for part in parts]
            name = f"{measure.name}: {'chains of unknown length' if not length else f'{length}-hop chains'}"
            rows.append((name, figures))
    places = range(max((length for length in chain_lengths(runs)), default=0))
    rows += [(f"Answers right at hop {n + 1} of the chain", [_at_hop(run.figures, n) for run in runs]) for n in places]
    return [(name, [cell(f) for f in figures]) for name, figures in rows if any(map(has_figure, figures))]


def _at_hop(figures: RunMetrics, hop: int) -> Mean:
    """Mean over cases of the share of the hop's answers that are right."""
    values, missing = [], 0
    for scores in figures.scores:
        answers = [right for (number, _), right in scores.hop_answers.items() if number == hop]
        judged = [right for right in answers if right is not None]
        missing += bool(answers and not judged)
        values += [sum(judged) / len(judged)] if judged else []
    return Mean(tuple(values), missing)


def book_rows(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Closed-book against open-book, for runs that have both."""
    names = {"hop_wise": "hop-wise only", "conflict": "conflict only", "combined": "combined"}
    rows = []
    for run in runs:
        compared = compare_books(run.figures)
        for source, name in names.items():
            if source in compared and any(map(has_figure, (compared[source].closed_book, compared[source].open_book))):
                found = compared[source]
                rows.append(
                    {
                        "run": run.label,
                        "name": name,
                        "closed": cell(found.closed_book),
                        "open": cell(found.open_book),
                        **_paired(found.paired),
                    }
                )
    return rows


def paired_rows(runs: Sequence[ReportedRun]) -> tuple[list[dict[str, Any]], list[str]]:
    """Every run against the first, on the cases both have; and notes on those that cannot be paired."""
    rows, notes = [], []
    for run in runs[1:]:
        first = runs[0]
        if run.data_id and first.data_id and run.data_id != first.data_id:
            notes.append(f"{run.label}: other data than {first.label}, not paired.")
            continue
        try:
            found = compare_runs(run.figures, first.figures)
        except MetricsError as error:
            notes.append(f"{run.label}: {error}")
            continue
        for key, name in (("any_right_accuracy", "M-Acc, any question"), ("self_refutation.combined", "SRR, combined")):
            if found.tables[key].n:
                rows.append({"run": run.label, "name": name, **_paired(found.tables[key])})
        for key, name in (("h_acc", "H-Acc"), ("m_acc", "M-Acc, all questions")):
            difference = found.differences[key]
            if difference.mean is not None:
                spread = difference.interval
                told = f" (95 %: {_signed(spread.low)} to {_signed(spread.high)})" if spread else ""
                value = f"{_signed(difference.mean)} points{told}"
                rows.append({"run": run.label, "name": name, "n": difference.n, "difference": value})
    return rows, notes


def _paired(table: Any) -> dict[str, Any]:
    p = table.p
    told = "–" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"
    return {"n": table.n, "repaired": table.repaired, "harmed": table.harmed, "p": told}


def seconds_per_edit(run: ReportedRun) -> float | None:
    """From run_info.json; for a published run from the cases' `time`. None for the unedited model."""
    costs = run.info.get("costs")
    if isinstance(costs, dict):
        return _number(costs.get("seconds_per_edit"))
    timed = [(data, case) for data, case in zip(run.metrics, run.cases, strict=True) if case.error is None]
    seconds = sum(_number(data.get("time")) or 0.0 for data, _ in timed)
    edits = sum(len(case.edits) for _, case in timed)
    return seconds / edits if seconds and edits else None


def cost_of(run: ReportedRun, name: str) -> float | None:
    """A figure of run_info.json's `costs`."""
    costs = run.info.get("costs")
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


def cost_rows(runs: Sequence[ReportedRun]) -> list[tuple[str, list[Cell]]]:
    """One row per cost that some run has."""

    def row(name: str, values: Sequence[float | None], form: str) -> tuple[str, list[Cell]]:
        return name, [Cell("–" if value is None else form.format(value)) for value in values]

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
    devices = [run.info.get("device") if isinstance(run.info.get("device"), dict) else {} for run in runs]
    told = [" ".join(str(d.get(key) or "") for key in ("name", "type", "dtype")).strip() for d in devices]
    return [*rows, ("Device", [Cell(text or "–") for text in told])] if any(told) else rows


def run_rows(runs: Sequence[ReportedRun]) -> list[dict[str, Any]]:
    """Which runs these are, with the cases that have no predictions."""
    rows = []
    for run in runs:
        failed = [(str(case.case_id), case.error) for case in run.cases if case.error is not None]
        rows.append(
            {
                "label": run.label,
                "method": run.method or "–",
                "model": run.model or "–",
                "dataset": run.dataset or "–",
                "name": run.name,
                "cases": run.figures.cases,
                "edits": run.figures.edits,
                "status": str(run.info.get("status") or "–"),
                "failed": failed,
                "errors": sorted(run.table.errors().items(), key=lambda pair: -pair[1]),
            }
        )
    return rows


# ---- records -------------------------------------------------------------------------------------------------------
