"""The runs a report is about, read from their folders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.metrics.predictions import read_cases, read_metrics
from causaledit.support.files import read_object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import Case
    from causaledit.metrics.summary import RunMetrics


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
