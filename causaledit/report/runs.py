"""The runs a report is about, read from their folders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.metrics.predictions import cases_of, read_metrics
from causaledit.runs.losses import read_losses
from causaledit.support.files import read_object
from causaledit.support.paths import expanded, is_file, is_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from causaledit.judges.store import VerdictTable
    from causaledit.metrics.predictions import JudgedCase
    from causaledit.metrics.summary import RunMetrics
    from causaledit.runs.losses import GroupLosses


@dataclass(frozen=True)
class RunSource:
    """A run as it lies on disk.

    Attributes:
        file: Its metrics.json.
        method, model, dataset, tag, name: Identify the run: from meta/run_args.json, else from the published layout of
            folders; empty where neither says.
        content: The content of the file.
        cases: Read from it.
        info: meta/run_info.json; empty where there is none.
        data_id: Tells data sets apart: two runs are paired only where it is the same.
        losses: What the training of each group of edits reported; none where the run kept nothing of it.
    """

    file: Path
    method: str
    model: str
    dataset: str
    tag: str
    name: str
    content: list[dict[str, Any]] = field(repr=False)
    cases: list[JudgedCase] = field(repr=False)
    info: Mapping[str, Any] = field(repr=False)
    data_id: str = ""
    losses: Sequence[GroupLosses] = field(default=(), repr=False)


@dataclass(frozen=True)
class ReportedRun:
    """A run with everything that the page says about it.

    Attributes:
        source: As it lies on disk.
        label: What the page calls it; no two runs of a page are called the same.
        verdicts: What a judge says of its predictions.
        metrics: Its metrics by these verdicts.
    """

    source: RunSource
    label: str
    verdicts: VerdictTable = field(repr=False)
    metrics: RunMetrics = field(repr=False)


def read_run(path: str | Path) -> RunSource:
    """A run from its folder, or from its metrics.json (all there is of a published run).

    Raises:
        MetricsError: There is no metrics.json, or it is not of the published form.
        RequestError: It is truncated or unreadable.
    """
    path = expanded(path)
    file = path / "metrics.json" if is_folder(path) else path
    if not is_file(file):
        raise MetricsError(f"RUN {str(path)!r}: there is no {file.name}: give a run's folder or its metrics.json.")
    content = read_metrics(file, "RUN")
    arguments, info = (read_object(file.parent / "meta" / f"{name}.json") for name in ("run_args", "run_info"))
    folders = _published_layout(file)
    dataset = str(arguments.get("datatype") or folders.get("dataset", ""))
    return RunSource(
        file=file,
        method=str(arguments.get("editing_method") or folders.get("method", "")),
        model=Path(str(arguments.get("model_type") or folders.get("model", ""))).name,
        dataset=Path(dataset).stem if dataset.endswith(".json") else Path(dataset).name,
        tag=str(arguments.get("exp_tag") or folders.get("tag", "")),
        name=str(arguments.get("run_id") or file.resolve().parent.name),
        content=content,
        cases=cases_of(content),
        info=info,
        data_id=str(arguments.get("dataset_sha256") or ""),
        losses=read_losses(file.parent),
    )


def _published_layout(file: Path) -> dict[str, str]:
    """{datatype}/{model_type}/{editing_method}/tag-{exp_tag}/n…_seed…/metrics.json"""
    parts = file.resolve().parts
    if len(parts) < 6 or not parts[-3].startswith("tag-") or not re.match(r"n\d+_seed", parts[-2]):
        return {}
    return dict(
        zip(("dataset", "model", "method", "tag"), (*parts[-6:-3], parts[-3].removeprefix("tag-")), strict=True)
    )


def labels_of(runs: Sequence[RunSource]) -> list[str]:
    """A name for every run: its method, and as much more as is needed to tell it from the others."""
    pilots = [" (pilot)" if run.tag == "pilot" and run.method else "" for run in runs]
    labels = [f"{run.method or run.name}{pilot}" for run, pilot in zip(runs, pilots, strict=True)]
    for part in ("model", "dataset", "tag", "name"):
        for label in [label for label in set(labels) if labels.count(label) > 1]:
            same = [i for i, known in enumerate(labels) if known == label]
            if len({getattr(runs[i], part) for i in same}) > 1:
                for i in same:
                    labels[i] = f"{label}, {getattr(runs[i], part) or 'unnamed'}"
    return [
        label if labels.count(label) == 1 else f"{label} ({labels[: i + 1].count(label)})"
        for i, label in enumerate(labels)
    ]
