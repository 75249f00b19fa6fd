"""One self-contained HTML page about one run or several: tables, plots, and a browser of single predictions.

Data flow: run folders → `read_run` → judge → `tables`, `records` and `plots` → template → file.
The page loads nothing: plots are data, script and style are inside, and its content security policy allows neither
a connection nor a script that is not its own. Nothing a model wrote is ever parsed as HTML: the template escapes, the
records are JSON in which `<` is written `\\u003c`, and the page's script only creates text.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causaledit.ability.summary import read_ability
from causaledit.errors import MetricsError, SaveError
from causaledit.judges.registry import get_judge
from causaledit.metrics.ability import compared_rows
from causaledit.metrics.judged import check_some_verdict, judge_file
from causaledit.metrics.summary import TASKS, summarise
from causaledit.report import plots, sequences, tables, training
from causaledit.report.records import browser_data
from causaledit.report.runs import ReportedRun, labels_of, read_run
from causaledit.support.extras import require_extra
from causaledit.support.files import check_writable, write_text
from causaledit.support.paths import expanded
from causaledit.support.progress import SilentProgress
from causaledit.support.version import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.judges.base import Judge
    from causaledit.metrics.ability import AbilityTable
    from causaledit.support.progress import ProgressSink

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
    """Judge what is not judged yet, and write the page.

    Verdicts are kept in each run's `analysis/` folder, as `causaledit analyze` keeps them; where that cannot be
    written, they are used but not kept.

    Args:
        runs: Folders of runs, or metrics files; the first is the one that others are paired with.
        out: The page to write.
        judge: From `judges.registry.get_judge`; None for the rule judge.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again the responses whose verdict is an error.
        progress: Where progress goes.

    Returns:
        `out`.

    Raises:
        MetricsError, RequestError: A run is missing, damaged, or given twice.
        JudgingStoppedError: The judge cannot continue, or reaches no verdict at all; verdicts so far are kept.
        SaveError: `out` cannot be written.
        MissingExtraError: The packages of the extra `report` are not installed.
    """
    require_extra("report", "the report page")
    out = expanded(out)
    if out.is_dir():
        raise SaveError(f"--html {str(out)!r} is a folder: give a file.")
    check_writable(out.parent, "the folder of --html")
    loaded = [read_run(path) for path in runs]
    if not loaded:
        raise MetricsError("RUN: give at least one run's folder.")
    files = [run.file.resolve() for run in loaded]
    if twice := [str(run.file) for run, file in zip(loaded, files, strict=True) if files.count(file) > 1]:
        raise MetricsError(f"RUN {twice[0]!r} is given twice.")
    judge, progress = judge or get_judge("rule"), progress or SilentProgress()
    reported = []
    for source, label in zip(loaded, labels_of(loaded), strict=True):
        verdicts = judge_file(
            source.file, source.cases, TASKS, judge,
            workers=workers, retry_errors=retry_errors, progress=progress, label=label, must_keep=False,
        )  # fmt: skip
        reported.append(ReportedRun(source, label, verdicts, summarise(source.cases, verdicts)))
    check_some_verdict(*(run.verdicts for run in reported))
    return write_text(out, render_page(reported, judge.identity))


def render_page(runs: Sequence[ReportedRun], judge: str) -> str:
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
    paired, notes = tables.paired_rows(runs)
    return environment.get_template("template.html.jinja").render(
        version=__version__,
        written=datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        judge=judge,
        style=Markup(style),
        script=Markup(script),
        style_hash=_hash(style),
        script_hash=_hash(script),
        runs=tables.run_rows(runs),
        metrics=tables.metric_rows(runs),
        hops=tables.hop_rows(runs),
        books=tables.book_rows(runs),
        paired=paired,
        paired_notes=notes,
        costs=tables.cost_rows(runs),
        metrics_plot=_image(plots.metrics_plot(runs)),
        chains_plot=_image(plots.chains_plot(runs)),
        costs_plot=_image(plots.costs_plot(runs)),
        sequences=sequences.sequence_rows(runs),
        curves_plot=_image(sequences.curves_plot(runs)),
        heat_maps=[(run.label, _image(drawn)) for run in runs if (drawn := sequences.heat_map(run))],
        training=training.training_rows(runs),
        training_notes=training.training_notes(runs),
        training_plots=[
            (run.label, _image(drawn)) for n, run in enumerate(runs) if (drawn := training.training_plot(run, n))
        ],
        ability=_ability(runs),
        data=browser_data(runs),
    )


def _ability(runs: Sequence[ReportedRun]) -> AbilityTable | None:
    """The table of every run whose ability was measured."""
    found = [
        (run.label, summary)
        for run in runs
        if (summary := read_ability(run.source.file.parent, sequence=run.metrics.retention is not None))
    ]
    return compared_rows(found) if found else None


def _hash(text: str) -> str:
    """What a content security policy calls an inline script or style by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _image(svg: str | None) -> Any:
    return svg and f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
