"""`causaledit pilot`: the unedited model is made to say the new answer, with and without the narrative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from causaledit.cli import options as judging
from causaledit.metrics.judged import check_some_verdict, judge_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from causaledit.judges.base import Judge
    from causaledit.metrics.paired import BookComparison
    from causaledit.metrics.summary import RunMetrics

_MODEL_TYPE = "Name of an hparams file that names the model, or a model's folder or hub name."


def pilot(
    datatype: Annotated[str, typer.Option("--datatype", help="A data set with narratives, or the path of one.")],
    model_type: Annotated[str, typer.Option("--model_type", help=_MODEL_TYPE)],
    hparams_path: Annotated[str | None, typer.Option("--hparams_path", help="A YAML file instead.")] = None,
    max_cases: Annotated[int, typer.Option("--max_cases", help="At most so many cases.")] = 200,
    hop: Annotated[int | None, typer.Option("--hop", min=1, max=4, help="Only cases of so many hops.")] = None,
    shuffle_seed: Annotated[int, typer.Option("--shuffle_seed", help="Seed of the selection.")] = 70,
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", help="Longest continuation.")] = 256,
    token_budget: Annotated[int, typer.Option("--token_budget", help="Most tokens in one batch.")] = 16384,
    judge: judging.JudgeOption = "rule",
    judge_model: judging.ModelOption = "",
    base_url: judging.UrlOption = "",
    api_key_env: judging.KeyOption = "OPENAI_API_KEY",
    workers: judging.WorkersOption = 4,
    timeout: judging.TimeoutOption = 60.0,
    retry_errors: judging.RetryOption = False,
    output_root: Annotated[str, typer.Option("--output_root", help="Where runs are kept.")] = "./output/experiments",
    run_id: Annotated[str | None, typer.Option("--run_id", help="The same name resumes a run.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Of the model, and of the hf judge.")] = None,
) -> None:  # fmt: skip
    """Force the new answer on the unedited model, closed-book and with the narrative, and compare self-refutation."""
    console = Console(stderr=True)
    options = judging.JudgeOptions(
        judge, judge_model, base_url, api_key_env, workers, timeout, device or "auto", retry_errors
    )
    with console.status("checking"):
        from causaledit.cli.bars import RunBars
        from causaledit.errors import CausalEditError
        from causaledit.runs.execution import execute
        from causaledit.runs.pilot import make_pilot_plan

        # a judge that lacks its key is refused now; only a local model waits until the other is done with
        chosen = None if judge == "hf" else options.load()
        plan = make_pilot_plan(
            datatype=datatype, model_type=model_type, hparams_path=hparams_path, max_cases=max_cases, hop=hop,
            shuffle_seed=shuffle_seed, max_new_tokens=max_new_tokens, token_budget=token_budget,
            output_root=output_root, run_id=run_id, device=device,
        )  # fmt: skip
    try:
        with RunBars(console) as bars:
            execute(plan, bars)
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; finished cases are kept in {str(plan.folder)!r}, and the same command with --run_id "
            f"{plan.arguments.run_id} goes on from there."
        ) from None
    _judge_and_show(plan.folder, chosen or options.load(), options)


def _judge_and_show(folder: Path, judge: Judge, options: judging.JudgeOptions) -> None:
    from causaledit.judges.store import analysis_folder
    from causaledit.metrics.paired import compare_books
    from causaledit.metrics.predictions import read_cases, read_metrics
    from causaledit.metrics.summary import evaluate_run
    from causaledit.support.files import write_json, write_text

    file = folder / "metrics.json"
    cases = read_cases(read_metrics(file))
    table = judge_file(file, cases, ["refutation"], judge, workers=options.workers, retry_errors=options.retry_errors)
    figures = evaluate_run(cases, table)
    compared = compare_books(figures)
    result = {
        "judge": figures.judge,
        "cases": figures.cases,
        "edits": figures.edits,
        "errors": table.errors(),
        "sources": {source: comparison.to_dict() for source, comparison in compared.items()},
    }
    text = table_text(figures, compared)
    written = write_json(analysis_folder(file) / "pilot.json", result)
    write_text(analysis_folder(file) / "pilot.txt", text)
    problem = check_some_verdict(table)
    console = Console(soft_wrap=True)
    console.print(text, highlight=False, markup=False)
    if problem:
        Console(stderr=True, soft_wrap=True).print(problem, highlight=False, markup=False)
    console.print(f"written to {folder}; the table is {written.with_suffix('.txt')}", highlight=False, markup=False)


_HEADS = ("self-refutation by source", "closed-book", "with the narrative", "repaired", "harmed", "McNemar p")


def table_text(figures: RunMetrics, compared: Mapping[Any, BookComparison]) -> str:
    """The pilot study's table as text."""
    from causaledit.metrics.wording import SOURCE_NAMES, figure_text

    rows = [_HEADS]
    for source, name in SOURCE_NAMES.items():
        found = compared[source]
        p = found.paired.p
        rows.append(
            (
                name,
                figure_text(found.closed_book),
                figure_text(found.open_book),
                f"{found.paired.repaired} of {found.paired.n}",
                f"{found.paired.harmed} of {found.paired.n}",
                "none" if p is None else f"{p:.3g}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            f"Pilot study on the unedited model: {figures.cases} cases, {figures.edits} edits; judge {figures.judge}",
            "Every response is made to open with the new answer. Edits with a self-refuting response, of those whose "
            "hop-wise responses assert the new answer; repaired and harmed by the narrative, of the edits in both.",
            "",
            *lines,
            "",
        ]
    )
