"""`causaledit pilot`: the unedited model is made to say the new answer, with and without the narrative."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from causaledit.cli.judging import judge_with_progress, show
from causaledit.cli.options import Group, JudgeOptions, takes
from causaledit.cli.workers import judge_on, worker_pool
from causaledit.runs.arguments import OPTIONAL_FIELDS, PILOT, RunArguments
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from causaledit.judges.base import Judge
    from causaledit.metrics.paired import BookComparison
    from causaledit.metrics.scores import Source
    from causaledit.metrics.summary import RunMetrics


@takes(
    arguments=Group(
        RunArguments,
        fixed={**PILOT, "batch_edit": None, "skip_cases": 0},
        without=("host", "protocol", *(name for name in OPTIONAL_FIELDS if name != "vllm")),
        helps={
            "datatype": "Name of a data set with narratives, or path of an MQuAKE file that has them.",
            "model_type": "Name of an hparams file that names the model, or a model's folder or hub name.",
            "device": "Device of the model, and of the hf judge.",
            "max_new_tokens": "Maximum length of a continuation, in tokens.",
            "token_budget": "Maximum number of tokens in one batch.",
        },
    ),
    judging=Group(JudgeOptions, without=("device",)),
    editing=Group(WorkerOptions, renamed={"workers": "--ray-workers"}),
)
def pilot(arguments: RunArguments, judging: JudgeOptions, editing: WorkerOptions) -> None:
    """Force the new answer on the unedited model, closed-book and with the narrative, and compare self-refutation."""
    console = plain_console(stderr=True)
    options = dataclasses.replace(judging, device=arguments.device or judging.device)
    with console.status("checking"):
        from causaledit.cli.bars import RunBars
        from causaledit.errors import CausalEditError
        from causaledit.runs.execution import execute
        from causaledit.runs.plan import make_plan

        options.check()  # a local judge is loaded later, when the edited model is done
        plan = make_plan(arguments)
    try:
        with worker_pool(editing) as pool:
            with RunBars(console) as bars:
                execute(plan, bars, pool=pool)
            _judge_and_show(plan.folder, judge_on(pool, options), options)
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; finished cases are kept in {str(plan.folder)!r}, and the same command with --run_id "
            f"{plan.arguments.run_id} resumes the run."
        ) from None


def _judge_and_show(folder: Path, judge: Judge, options: JudgeOptions) -> None:
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
