"""`causaledit compare`: methods side by side on the same cases."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from causaledit.cli import options as judging
from causaledit.cli.bars import CompareBars

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.comparison.execution import MethodRow
    from causaledit.comparison.plan import ComparePlan

_METHODS = "Names with commas between them: registered methods, and PreEdited."
_PROBES = "hop,multi_hop,conflict,old_knowledge,locality"
_NARROWEST = 150  # columns of the tables where there is no terminal


def compare(
    methods: Annotated[str, typer.Option("--methods", help=_METHODS)],
    datatype: Annotated[str, typer.Option("--datatype", help="Data set name, or path of an MQuAKE file.")],
    model_type: Annotated[str, typer.Option("--model_type", help="Name of the file in hparams/METHOD/.")],
    max_cases: Annotated[int, typer.Option("--max_cases", help="At most so many cases.")] = 200,
    hop: Annotated[int | None, typer.Option("--hop", min=1, max=4, help="Only cases of so many hops.")] = None,
    shuffle_seed: Annotated[int, typer.Option("--shuffle_seed", help="Seed of the selection.")] = 70,
    exp_tag: Annotated[str, typer.Option("--exp_tag", help="Part of the folders' names.")] = "default",
    batch_edit: Annotated[int | None, typer.Option("--batch_edit", help="Apply so many unique edits together.")] = None,
    skip_cases: Annotated[int, typer.Option("--skip_cases", help="Leave out so many of the first.")] = 0,
    output_root: Annotated[str, typer.Option("--output_root", help="Where runs are kept.")] = "./output/experiments",
    run_id: Annotated[str | None, typer.Option("--run_id", help="Name of the comparison and its runs.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a comparison of the same arguments.")] = False,
    device: Annotated[str | None, typer.Option("--device", help="Instead of the hparams' device.")] = None,
    probes: Annotated[str, typer.Option("--probes", help="Comma-separated; also open_book.")] = _PROBES,
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", help="Longest answer to a probe.")] = 256,
    token_budget: Annotated[int, typer.Option("--token_budget", help="Most tokens in one batch of probes.")] = 16384,
    html: Annotated[Path | None, typer.Option("--html", help="Also write a report page.")] = None,
    judge: judging.JudgeOption = "rule",
    judge_model: judging.ModelOption = "",
    base_url: judging.UrlOption = "",
    api_key_env: judging.KeyOption = "OPENAI_API_KEY",
    workers: judging.WorkersOption = 4,
    timeout: judging.TimeoutOption = 60.0,
    judge_device: Annotated[str, typer.Option("--judge-device", help="auto, cpu, cuda or cuda:N (hf).")] = "auto",
    retry_errors: judging.RetryOption = False,
) -> None:  # fmt: skip
    """Run methods on the same cases with the same probes and judge, and tabulate them. --resume goes on."""
    console = Console(stderr=True)
    with console.status("checking"):
        from causaledit.comparison.execution import execute_comparison
        from causaledit.comparison.plan import make_compare_plan, parse_methods
        from causaledit.errors import CausalEditError, SaveError
        from causaledit.probes.sets import parse_kinds
        from causaledit.runs.plan import RunArguments
        from causaledit.support.extras import require_extra
        from causaledit.support.files import check_writable

        names = parse_methods(methods)
        if html is not None:
            require_extra("report", "--html")
            if html.expanduser().is_dir():
                raise SaveError(f"--html {str(html)!r} is a folder: give a file.")
            check_writable(html.parent, "the folder of --html")
        options = judging.JudgeOptions(
            judge, judge_model, base_url, api_key_env, workers, timeout, judge_device, retry_errors
        )
        arguments = RunArguments(
            editing_method=names[0], datatype=datatype, model_type=model_type, max_cases=max_cases, hop=hop,
            shuffle_seed=shuffle_seed, exp_tag=exp_tag, batch_edit=batch_edit, skip_cases=skip_cases,
            output_root=output_root, run_id=run_id, device=device, probes=parse_kinds(probes),
            max_new_tokens=max_new_tokens, token_budget=token_budget,
        )  # fmt: skip
        chosen = options.load()
        plan = make_compare_plan(names, arguments, judge=chosen.identity, resume=resume)
    again = f"the same command with --run_id {plan.run_id} --resume goes on from there"
    try:
        with CompareBars(console) as bars:
            rows = execute_comparison(plan, chosen, bars, workers=workers, retry_errors=retry_errors)
    except KeyboardInterrupt:
        raise CausalEditError(f"interrupted; finished cases are kept under {output_root!r}, and {again}.") from None
    _show(plan)
    page_problem = None
    if html is not None:
        page_problem = _write_page(rows, html, chosen, workers)
    _end(rows, again, page_problem)


def _show(plan: ComparePlan) -> None:
    """The tables of compare.json, as they are on disk."""
    import json

    from rich.table import Table

    from causaledit.comparison.tables import tables

    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _NARROWEST))
    file = plan.folder / "compare.json"
    for table in tables(json.loads(file.read_text(encoding="utf-8"))):
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
    Console(soft_wrap=True).print(f"written to {page}", highlight=False, markup=False)
    return None


def _end(rows: Sequence[MethodRow], again: str, page_problem: str | None) -> None:
    from causaledit.errors import EditFailedError

    failed = [f"{row.method}: {row.problem}" for row in rows if row.problem]
    if page_problem:
        failed.append(page_problem)
    if failed:
        raise EditFailedError(f"{'; '.join(failed)}. The rest is done, and {again}.")
