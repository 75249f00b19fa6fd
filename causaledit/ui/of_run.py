"""What the page shows of a run: its cases, with every prediction and the verdicts on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.errors import MetricsError
from causaledit.metrics.judged import check_some_verdict, judge_file
from causaledit.metrics.summary import TASKS, summarise
from causaledit.metrics.wording import counted
from causaledit.report.records import browser_data
from causaledit.report.runs import ReportedRun, labels_of, read_run
from causaledit.support.progress import SilentProgress
from causaledit.ui.shown import Part, Response, Shown, ShownEdit, ShownProbe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from causaledit.judges.base import Judge
    from causaledit.metrics.predictions import JudgedCase
    from causaledit.report.runs import RunSource
    from causaledit.support.progress import ProgressSink

SILENCE = (
    "A run undoes every edit and keeps no model, so nothing can be asked here: keep one with causaledit edit --save, "
    "and show its folder."
)


def show_run(
    path: Path, judge: Judge, *, workers: int = 4, retry_errors: bool = False, progress: ProgressSink | None = None
) -> Shown:
    """A run, judged where it is not judged yet; verdicts are kept as `causaledit report` keeps them.

    Args:
        path: Its folder, or its metrics.json.
        judge: The judge.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again the responses whose verdict is an error.
        progress: Where progress goes.

    Raises:
        MetricsError, RequestError: The run is damaged, or no case of it has predictions.
        JudgingStoppedError: The judge cannot continue, or reaches no verdict at all.
    """
    source = read_run(path)
    if all(case.error is not None for case in source.cases):
        raise MetricsError(
            f"TARGET {str(path)!r}: none of its {counted(len(source.cases), 'case')} has predictions "
            f"({source.cases[0].error}): nothing can be shown."
        )
    [label] = labels_of([source])
    verdicts = judge_file(
        source.file, source.cases, TASKS, judge,
        workers=workers, retry_errors=retry_errors, progress=progress or SilentProgress(), label=label, must_keep=False,
    )  # fmt: skip
    check_some_verdict(verdicts)
    data = browser_data([ReportedRun(source, label, verdicts, summarise(source.cases, verdicts))])
    return Shown(
        title=label,
        about=tuple(_about(source)),
        part_label="case",
        parts=tuple(_parts(source.cases, data)),
        history=(),
        judge=judge,
        silence=SILENCE,
    )


def _about(source: RunSource) -> Iterator[tuple[str, str]]:
    failed = sum(case.error is not None for case in source.cases)
    cases = counted(len(source.cases), "case") + (f", {failed} without predictions" if failed else "")
    for label, value in (
        ("Model", source.model), ("Data", source.dataset), ("Cases", cases),
        ("Finished", str(source.info.get("written") or "")), ("Folder", str(source.file.parent)),
    ):  # fmt: skip
        if value:
            yield label, value


def _parts(cases: Sequence[JudgedCase], data: Mapping[str, Any]) -> Iterator[Part]:
    """Cases in the file's order; of a sequence of edits, a case with all its checkpoints."""
    records: dict[str, list[Mapping[str, Any]]] = {}
    for record in data["records"]:
        records.setdefault(record["case"], []).append(record)
    first = {str(case.case_id): case for case in reversed(cases)}
    for name in dict.fromkeys(str(case.case_id) for case in cases):
        case = first[name]
        edits = tuple(
            ShownEdit(e.subject, e.question, e.target_old, e.target_new, e.narrative, aliases=e.aliases)
            for e in case.edits
        )
        facts = "; ".join(f"{e.subject}: {e.old or '?'} → {e.new}" for e in edits)
        probes = tuple(_probe(record, data) for record in records.get(name, ()))
        yield Part(f"{name}. {facts}" if facts else name, edits, probes, case.error or "")


def _probe(record: Mapping[str, Any], data: Mapping[str, Any]) -> ShownProbe:
    texts = data["texts"]

    def response(key: str, when: str, before: bool) -> Response:
        found = [
            {**verdict, **({"about": texts[verdict["edit"]]["subject"]} if "edit" in verdict else {})}
            for verdict in record["verdicts"]
            if bool(verdict.get("before")) == before
        ]
        return Response(when, record[key], tuple(found), record.get(f"{key}_cut", 0))

    both = "before" in record
    responses = [response("before", "before", True)] if both else []
    responses.append(response("response", "after" if both else "", False))
    return ShownProbe(
        kind=f"{data['probes'][record['probe']]}: {record['form']}",
        prompt=texts[record["prompt"]],
        references=tuple(texts[record["refs"]]),
        responses=tuple(responses),
    )
