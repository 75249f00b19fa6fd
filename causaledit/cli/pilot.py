"""`causaledit pilot`: the unedited model is made to say the new answer, with and without the narrative."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from causaledit.cli import options as judging
from causaledit.cli.judging import judge_with_progress, show

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from causaledit.judges.base import Judge
    from causaledit.metrics.paired import BookComparison
    from causaledit.metrics.scores import Source
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
    from causaledit.metrics.judged import check_some_verdict
    from causaledit.metrics.paired import compare_books
    from causaledit.metrics.predictions import cases_of, read_metrics
    from causaledit.metrics.summary import summarise
    from causaledit.support.files import write_json, write_text

    file = folder / "metrics.json"
    cases = cases_of(read_metrics(file))
    verdicts = judge_with_progress(file, cases, ["refutation"], judge, options)
    metrics = summarise(cases, verdicts)
    compared = compare_books(metrics)
    result = {
        "judge": metrics.judge,
        "cases": metrics.cases,
        "edits": metrics.edits,
        "errors": verdicts.errors(),
        "sources": {source: comparison.to_dict() for source, comparison in compared.items()},
    }
    text = table_text(metrics, compared)
    written = write_json(analysis_folder(file) / "pilot.json", result)
    write_text(analysis_folder(file) / "pilot.txt", text)
    show(text, check_some_verdict(verdicts), f"{folder}; the table is {written.with_suffix('.txt')}")


_HEADS = ("self-refutation by source", "closed-book", "with the narrative", "repaired", "harmed", "McNemar p")


def table_text(metrics: RunMetrics, compared: Mapping[Source, BookComparison]) -> str:
    """The pilot study's table as text."""
    from causaledit.metrics.wording import SOURCE_NAMES, p_value, srr_notes, worded_rate

    rows = [_HEADS]
    for source, name in SOURCE_NAMES.items():
        found = compared[source]
        closed, opened = metrics.self_refutation[source], (metrics.open_book_self_refutation or {}).get(source)
        rows.append(
            (
                name,
                str(worded_rate(found.closed_book, srr_notes(closed, metrics.judge))),
                str(worded_rate(found.open_book, srr_notes(opened, metrics.judge))),
                f"{found.paired.repaired} of {found.paired.n}",
                f"{found.paired.harmed} of {found.paired.n}",
                p_value(found.paired.p),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join(
        [
            f"Pilot study on the unedited model: {metrics.cases} cases, {metrics.edits} edits; judge {metrics.judge}",
            "Every response is made to open with the new answer. Edits with a self-refuting response, of those whose "
            "hop-wise responses assert the new answer; repaired and harmed by the narrative, of the edits in both.",
            "",
            *lines,
            "",
        ]
    )
