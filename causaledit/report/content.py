"""What stands on the report's page, as plain data: runs, tables, and one record per prediction.

Data flow: run folders → `read_run` → judge → `evaluate_run` → **tables** and **records**. Texts that occur in several
records (prompts, narratives) are kept once; the page looks them up by number.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.evaluation.answers import alias_match
from causaledit.evaluation.metrics import RunMetrics, compare_runs
from causaledit.evaluation.pilot import compare_books
from causaledit.evaluation.predictions import read_cases, read_metrics, read_prediction
from causaledit.evaluation.probe_sets import CONFLICT, HOP, OLD_KNOWLEDGE
from causaledit.evaluation.statistics import Mean, Rate
from causaledit.files import read_object
from causaledit.judges.base import verdict_to_dict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from causaledit.evaluation.predictions import Case, Item
    from causaledit.judges.store import VerdictTable

LONGEST_RESPONSE = 20_000  # characters; what goes beyond is cut, and the page says so
PROBES = {
    "hop_wise": "Hop-wise",
    "multi_hop": "Multi-hop",
    "conflict": "Conflict",
    "old_knowledge": "Old knowledge",
    "locality": "Locality",
    "open_book_hop_wise": "Hop-wise, open-book",
    "open_book_conflict": "Conflict, open-book",
}
_FORMS = {"hop_wise": HOP, "open_book_hop_wise": HOP, "conflict": CONFLICT, "open_book_conflict": CONFLICT}


# ---- runs ----------------------------------------------------------------------------------------------------------
@dataclass
class ReportedRun:
    """One run.

    Attributes:
        file: Its metrics.json.
        method, model, dataset, tag, name: Who it is: from meta/run_args.json, else from the published layout of
            folders; empty where neither says.
        metrics: The content of the file.
        cases: Read from it.
        info: meta/run_info.json; empty where there is none.
        label: What the page calls it; no two runs of a page are called the same.
        data_id: Tells data sets apart: two runs are paired only where it is the same.
        table: Verdicts, once judged.
        figures: All metrics, once judged.
    """

    file: Path
    method: str
    model: str
    dataset: str
    tag: str
    name: str
    metrics: list[dict[str, Any]] = field(repr=False)
    cases: list[Case] = field(repr=False)
    info: Mapping[str, Any] = field(repr=False)
    data_id: str = ""
    label: str = ""
    table: VerdictTable | None = field(default=None, repr=False)
    figures: RunMetrics | None = field(default=None, repr=False)


def read_run(path: str | Path) -> ReportedRun:
    """A run from its folder, or from its metrics.json (all there is of a published run).

    Raises:
        MetricsError: There is no metrics.json, or it is not of the published form.
        RequestError: It is cut or unreadable.
    """
    path = Path(path).expanduser()
    file = path / "metrics.json" if path.is_dir() else path
    if not file.is_file():
        raise MetricsError(f"RUN {str(path)!r}: there is no {file.name}: give a run's folder or its metrics.json.")
    metrics = read_metrics(file, "RUN")
    arguments, info = (read_object(file.parent / "meta" / f"{name}.json") for name in ("run_args", "run_info"))
    folders = _published_layout(file)
    dataset = str(arguments.get("datatype") or folders.get("dataset", ""))
    return ReportedRun(
        file=file,
        method=str(arguments.get("editing_method") or folders.get("method", "")),
        model=Path(str(arguments.get("model_type") or folders.get("model", ""))).name,
        dataset=Path(dataset).stem if dataset.endswith(".json") else Path(dataset).name,
        tag=str(arguments.get("exp_tag") or folders.get("tag", "")),
        name=str(arguments.get("run_id") or file.resolve().parent.name),
        metrics=metrics,
        cases=read_cases(metrics),
        info=info,
        data_id=str(arguments.get("dataset_sha256") or ""),
    )


def _published_layout(file: Path) -> dict[str, str]:
    """{datatype}/{model_type}/{editing_method}/tag-{exp_tag}/n…_seed…/metrics.json"""
    parts = file.resolve().parts
    if len(parts) < 6 or not parts[-3].startswith("tag-") or not re.match(r"n\d+_seed", parts[-2]):
        return {}
    return dict(
        zip(("dataset", "model", "method", "tag"), (*parts[-6:-3], parts[-3].removeprefix("tag-")), strict=True)
    )


def label_runs(runs: Sequence[ReportedRun]) -> None:
    """Name every run by its method, and by as much more as tells it from the others."""
    pilots = [" (pilot)" if run.tag == "pilot" and run.method else "" for run in runs]
    labels = [f"{run.method or run.name}{pilot}" for run, pilot in zip(runs, pilots, strict=True)]
    for part in ("model", "dataset", "tag", "name"):
        for label in [label for label in set(labels) if labels.count(label) > 1]:
            same = [i for i, known in enumerate(labels) if known == label]
            if len({getattr(runs[i], part) for i in same}) > 1:
                for i in same:
                    labels[i] = f"{label}, {getattr(runs[i], part) or 'unnamed'}"
    for i, run in enumerate(runs):
        run.label = labels[i] if labels.count(labels[i]) == 1 else f"{labels[i]} ({labels[: i + 1].count(labels[i])})"


# ---- tables --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cell:
    """A figure as the page shows it."""

    value: str
    detail: str = ""


def percent(share: float) -> str:
    """A share as the page writes it."""
    return f"{100 * share:.1f} %"


def cell(figure: Rate | Mean | None) -> Cell:
    """A rate or mean with its count, its interval, and what was not judged."""
    if figure is None:
        return Cell("–")
    single = getattr(figure, "predictions_not_judged", 0)
    missing = f"{figure.not_judged} not judged" if figure.not_judged else f"{single} answers not judged" * bool(single)
    if figure.rate is None:
        return Cell("not judged" if missing else "–", missing)
    count = f"{figure.hits}/{figure.total}" if isinstance(figure, Rate) else _cases(figure.n)
    spread = figure.interval and f"95 %: {100 * figure.interval.low:.0f} to {100 * figure.interval.high:.0f}"
    return Cell(percent(figure.rate), "; ".join(part for part in (count, spread, missing) if part))


def _cases(number: int) -> str:
    return f"{number} case{'' if number == 1 else 's'}"


def _signed(share: float) -> str:
    return f"{100 * share:+.1f}".replace("-", "−")


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
class Texts:
    """Texts and objects that records share, each kept once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._known: dict[str, int] = {}

    def number(self, value: Any) -> int:
        """Where a value stands in `values`."""
        key = json.dumps(value, ensure_ascii=False)
        if key not in self._known:
            self._known[key] = len(self.values)
            self.values.append(value)
        return self._known[key]


def browser_data(runs: Sequence[ReportedRun]) -> dict[str, Any]:
    """What the page's browser of predictions works on."""
    texts = Texts()
    records = [record for number, run in enumerate(runs) for record in _records(number, run, texts)]
    present = {record["probe"] for record in records}
    return {
        "runs": [run.label for run in runs],
        "probes": {key: name for key, name in PROBES.items() if key in present},
        "texts": texts.values,
        "records": records,
    }


def _records(number: int, run: ReportedRun, texts: Texts) -> Iterator[dict[str, Any]]:
    for case, data in zip(run.cases, run.metrics, strict=True):
        edits = [
            texts.number(
                {
                    "subject": edit.subject, "question": edit.question, "old": edit.target_old,
                    "new": edit.target_new, "narrative": edit.narrative,
                }
            )
            for edit in case.edits
        ]  # fmt: skip
        together: dict[tuple[Any, ...], list[Item]] = {}
        for item in case.items:
            together.setdefault(item.path, []).append(item)
        for path, items in together.items():
            first = items[0]
            prediction: Any = run.metrics
            for step in path:
                prediction = prediction[step]
            yield _record(number, case, first.probe, _form(first), prediction, texts) | {
                "edits": list(dict.fromkeys(edits[i.edit] for i in items if _within(i.edit, edits))),
                "verdicts": [_verdict(item, run.table, edits) for item in items],
            }
        yield from _old_knowledge(number, case, data, texts, edits)


def _record(number: int, case: Case, probe: str, form: str, prediction: Any, texts: Texts) -> dict[str, Any]:
    read = read_prediction(prediction)
    record = {
        "run": number,
        "case": str(case.case_id),
        "probe": probe,
        "form": form,
        "prompt": texts.number(read.prompt or read.question),
        "refs": texts.number(list(read.references)),
    }
    record |= _response("response", read.response)
    if probe == "locality":
        record |= _response("before", read_prediction(prediction, "pred_before").response)
    if isinstance(prediction, dict) and isinstance(prediction.get("forced_prefix"), str):
        record["forced"] = texts.number(prediction["forced_prefix"])
    return record


def _response(key: str, text: str | None) -> dict[str, Any]:
    if text is None or len(text) <= LONGEST_RESPONSE:
        return {key: text}
    return {key: text[:LONGEST_RESPONSE], f"{key}_cut": len(text) - LONGEST_RESPONSE}


def _form(item: Item) -> str:
    """Which of the probe's prompt forms it is."""
    forms = _FORMS.get(item.probe, ())
    name = forms[item.slot].name if item.slot < len(forms) else f"{item.slot + 1}"
    return name if item.hop is None else f"hop {item.hop + 1}, {name}"


def _within(index: int | None, edits: Sequence[int]) -> bool:
    return isinstance(index, int) and 0 <= index < len(edits)


def _verdict(item: Item, table: VerdictTable, edits: Sequence[int]) -> dict[str, Any]:
    """A verdict without its empty fields."""
    verdict = table.get(item.task, item.response)
    found = {"error": item.problem or "not judged"} if verdict is None else verdict_to_dict(verdict)
    data = {key: value for key, value in found.items() if value not in (None, "")}
    data["task"] = item.task
    if item.before:
        data["before"] = True
    if item.task != "answer" and _within(item.edit, edits):
        data["edit"] = edits[item.edit]
    return data


def _old_knowledge(
    number: int, case: Case, data: Mapping[str, Any], texts: Texts, edits: Sequence[int]
) -> Iterator[dict[str, Any]]:
    """No judge is asked about these: whether the old answer occurs is an alias match, as in res.json."""
    post = data.get("post")
    predictions = post.get("old_knowledge_probe") if isinstance(post, dict) else None
    for place, prediction in enumerate(predictions if isinstance(predictions, list) else ()):
        index, slot = divmod(place, len(OLD_KNOWLEDGE))
        read = read_prediction(prediction)
        grade = None
        if read.response is not None and read.references:
            grade = "PASS" if alias_match(read.response, read.references) else "FAIL"
        verdict = {"task": "answer", "by": "alias match", **({"grade": grade} if grade else {"error": "not judged"})}
        yield _record(number, case, "old_knowledge", OLD_KNOWLEDGE[slot].name, prediction, texts) | {
            "edits": [edits[index]] if _within(index, edits) else [],
            "verdicts": [verdict],
        }
