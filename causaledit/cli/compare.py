"""`causaledit compare`: methods side by side on the same cases."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from causaledit.cli.bars import CompareBars
from causaledit.cli.options import Group, JudgeOptions, takes
from causaledit.cli.workers import judge_on, worker_pool
from causaledit.runs.arguments import PRE_EDITED, RunArguments
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.console import plain_console
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.comparison.execution import MethodRow
    from causaledit.comparison.plan import ComparePlan

_METHODS = (
    "Comma-separated names of registered methods; PreEdited is the unedited model, and easyedit:ROME and embedded:ROME "
    "say whose ROME."
)
_HPARAMS = "File of one method, instead of the one named by --model_type; may be repeated."
_NARROWEST = 150  # width of the tables where there is no terminal


@takes(
    arguments=Group(
        RunArguments,
        fixed={"editing_method": PRE_EDITED, "hparams_path": None},
        without=("base",),
        helps={
            "model_type": "Name of the file in each hparams/METHOD/.",
            "run_id": "Name of the comparison and of its runs.",
            "exp_tag": "Tag that becomes part of the folders' names.",
        },
    ),
    judging=Group(JudgeOptions, renamed={"device": "--judge-device"}),
    editing=Group(WorkerOptions, renamed={"workers": "--ray-workers"}),
)
def compare(
    methods: Annotated[str, typer.Option("--methods", help=_METHODS)],
    arguments: RunArguments,
    judging: JudgeOptions,
    editing: WorkerOptions,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the comparison of that --run_id.")] = False,
    hparams: Annotated[list[str] | None, typer.Option("--hparams", metavar="METHOD=FILE", help=_HPARAMS)] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a report page to this file.")] = None,
) -> None:
    """Run methods on the same cases with the same probes and judge, and tabulate them. Resumable with --resume."""
    console = plain_console(stderr=True)
    with console.status("checking"):
        from causaledit.comparison.execution import execute_comparison
        from causaledit.comparison.plan import make_compare_plan, parse_methods
        from causaledit.errors import CausalEditError, SaveError
        from causaledit.judges.hf import identity_of
        from causaledit.support.extras import require_extra
        from causaledit.support.files import check_writable

        names = parse_methods(methods)
        if html is not None:
            require_extra("report", "--html")
            if expanded(html).is_dir():
                raise SaveError(f"--html {str(html)!r} is a folder: give a file.")
            check_writable(html.parent, "the folder of --html")
        arguments = dataclasses.replace(arguments, editing_method=names[0])
        if on_workers := editing.workers > 0 and judging.judge == "hf":
            judging.check()
        chosen = None if on_workers else judging.load()
        identity = chosen.identity if chosen else identity_of(judging.judge_model)
        plan = make_compare_plan(names, arguments, judge=identity, resume=resume, hparams=hparams or ())
    again = f"the same command with --run_id {plan.run_id} --resume continues the comparison"
    try:
        with worker_pool(editing) as pool, CompareBars(console) as bars:
            chosen = chosen or judge_on(pool, judging)
            rows = execute_comparison(
                plan, chosen, bars, workers=judging.workers, retry_errors=judging.retry_errors, pool=pool
            )
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; finished cases are kept under {arguments.output_root!r}, and {again}."
        ) from None
    _show(plan)
    page_problem = None
    if html is not None:
        page_problem = _write_page(rows, html, chosen, judging.workers)
    _end(rows, again, page_problem)


def _show(plan: ComparePlan) -> None:
    """The tables of compare.json, as they are on disk."""
    import json

    from rich.table import Table

    from causaledit.comparison.tables import model_line, tables

    console = plain_console()
    if not console.is_terminal:
        console = plain_console(width=max(console.width, _NARROWEST))
    file = plan.folder / "compare.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    console.print(model_line(data), highlight=False, markup=False, soft_wrap=True)
    for table in tables(data):
        shown = Table(
            title=table.title, caption=table.note, title_justify="left", caption_justify="left", padding=(0, 1)
        )
        for heading in table.columns:
            shown.add_column(heading, overflow="fold")
        for row in table.rows:
            shown.add_row(*("\n".join(cell) for cell in row))
        console.print(shown, highlight=False, markup=False)
    console.print(f"written to {file} and compare.md beside it", highlight=False, markup=False, soft_wrap=True)


def _write_page(rows: Sequence[MethodRow], html: Path, judge: Any, workers: int) -> str | None:
    """Write the report page over the runs that have cases; why it could not be written, or None."""
    from causaledit.errors import CausalEditError
    from causaledit.report.html import write_report
    from causaledit.support.progress import terminal_progress

    runs = [Path(row.folder) for row in rows if row.metrics is not None]
    if not runs:
        return "no method has metrics for a report page"
    try:
        with terminal_progress() as progress:
            page = write_report(runs, html, judge=judge, workers=workers, progress=progress)
    except CausalEditError as error:
        return f"the report page is not written: {error}"
    plain_console(soft_wrap=True).print(f"written to {page}", highlight=False, markup=False)
    return None


def _end(rows: Sequence[MethodRow], again: str, page_problem: str | None) -> None:
    from causaledit.errors import EditFailedError

    failed = [f"{row.method}: {row.problem}" for row in rows if row.problem]
    if page_problem:
        failed.append(page_problem)
    if failed:
        raise EditFailedError(f"{'; '.join(failed)}. The rest is done, and {again}.")
