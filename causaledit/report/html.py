"""One self-contained HTML page about one run or several: tables, figures, and a browser of single predictions.

Data flow: run folders → `content.read_run` → judge → `content` (tables, records) and `figures` → template → file.
The page loads nothing: figures are data, script and style are inside, and its content security policy allows neither
a connection nor a script that is not its own. Nothing a model wrote is ever parsed as HTML: the template escapes, the
records are JSON in which `<` is written `\\u003c`, and the page's script only creates text.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit import __version__
from causaledit.errors import JudgingStoppedError, MetricsError, SaveError
from causaledit.evaluation.metrics import TASKS, evaluate_run
from causaledit.evaluation.predictions import units_of
from causaledit.files import check_writable, write_text
from causaledit.judges.recall import recall_note
from causaledit.judges.registry import get_judge
from causaledit.judges.store import VerdictStore, analysis_folder, judge_responses, store_of
from causaledit.progress import SilentProgress
from causaledit.report import content, figures

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.judges.base import Judge
    from causaledit.progress import ProgressSink

logger = logging.getLogger(__name__)

_HERE = Path(__file__).parent


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    judge: Judge | None = None,
    workers: int = 4,
    retry_errors: bool = False,
    progress: ProgressSink | None = None,
) -> Path:
    """Judge runs as far as they are not judged yet, and write the page.

    Verdicts are kept in each run's `analysis/` folder, as `causaledit analyze` keeps them; where that cannot be
    written they are used and not kept.

    Args:
        runs: Folders of runs, or metrics files; the first is the one that others are paired with.
        out: The page to write.
        judge: From `judges.registry.get_judge`; None for the rule judge.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again what is kept as an error.
        progress: Where progress goes.

    Returns:
        `out`.

    Raises:
        MetricsError, RequestError: A run is missing, damaged, or given twice.
        JudgingStoppedError: The judge cannot go on, or reaches no verdict at all; verdicts so far are kept.
        SaveError: `out` cannot be written.
    """
    out = Path(out).expanduser()
    if out.is_dir():
        raise SaveError(f"--html {str(out)!r} is a folder: give a file.")
    check_writable(out.parent, "the folder of --html")
    loaded = [content.read_run(path) for path in runs]
    if not loaded:
        raise MetricsError("RUN: give at least one run's folder.")
    files = [run.file.resolve() for run in loaded]
    if twice := [str(run.file) for run, file in zip(loaded, files, strict=True) if files.count(file) > 1]:
        raise MetricsError(f"RUN {twice[0]!r} is given twice.")
    content.label_runs(loaded)
    judge = judge or get_judge("rule")
    for run in loaded:
        _judge(run, judge, workers, retry_errors, progress or SilentProgress())
    errors = [sum(run.table.errors().values()) for run in loaded]
    if sum(errors) and sum(errors) == sum(len(run.table) for run in loaded):
        reason = next(iter(loaded[0].table.errors()), "")[:200]
        raise JudgingStoppedError(f"None of {sum(errors)} responses could be judged, most often: {reason}. No page.")
    return write_text(out, render_page(loaded, judge.identity))


def _judge(run: content.ReportedRun, judge: Judge, workers: int, retry_errors: bool, progress: ProgressSink) -> None:
    """Fill in the run's verdicts and figures."""
    file = store_of(run.file, judge.name)
    try:
        check_writable(analysis_folder(run.file), "the run's folder")
        store = VerdictStore(file)
    except SaveError as error:
        logger.warning("%s: verdicts are not kept: %s", run.label, error)
        store = None
    try:
        run.table = judge_responses(
            judge,
            units_of(run.cases, TASKS),
            store=store,
            workers=workers,
            retry_errors=retry_errors,
            on_start=lambda missing: progress.start(f"judging {run.label}", missing),
            on_verdict=progress.advance,
        )
    finally:
        progress.finish()
        if store is not None:
            store.close()
    run.figures = evaluate_run(run.cases, run.table)


def render_page(runs: Sequence[content.ReportedRun], judge: str) -> str:
    """The page as a text.

    Args:
        runs: Judged runs.
        judge: The judge's identity.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # the filter `tojson` writes <, >, & and ' as escapes
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False, "separators": (",", ":")}
    style, script = ((_HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    paired, notes = content.paired_rows(runs)
    return environment.get_template("template.html.jinja").render(
        version=__version__,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        judge=judge,
        recall=recall_note(judge),
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        runs=content.run_rows(runs),
        metrics=content.metric_rows(runs),
        hops=content.hop_rows(runs),
        books=content.book_rows(runs),
        paired=paired,
        paired_notes=notes,
        costs=content.cost_rows(runs),
        metrics_figure=_image(figures.metrics_figure(runs)),
        chains_figure=_image(figures.chains_figure(runs)),
        costs_figure=_image(figures.costs_figure(runs)),
        data=content.browser_data(runs),
    )


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _image(svg: str | None) -> Any:
    return svg and f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
