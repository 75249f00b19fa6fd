"""`causaledit evaluate`: a model that was edited elsewhere, with our probes, judge and ability tasks."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from causaledit.cli.analyze import analyse_file
from causaledit.cli.bars import RunBars
from causaledit.cli.options import Group, JudgeOptions, takes
from causaledit.cli.run import show_run
from causaledit.runs.arguments import PRE_EDITED, RunArguments
from causaledit.support.console import plain_console


@takes(
    arguments=Group(
        RunArguments,
        fixed={"editing_method": PRE_EDITED, "model_type": PRE_EDITED},
        without=("model", "host", "hparams_path", "batch_edit", "sequential", "checkpoints", "protocol"),
        helps={"base": "The model before the edits: locality, ability and drift are measured against it."},
    ),
    judging=Group(JudgeOptions, renamed={"device": "--judge-device"}),
)
def evaluate(
    model: Annotated[str, typer.Option("--model", help="A model's or adapter's folder, or its hub name.")],
    arguments: RunArguments,
    judging: JudgeOptions,
) -> None:
    """Probe and judge a model that already holds a data set's edits, made by any tool. The same --run_id resumes."""
    console = plain_console(stderr=True)
    with console.status("checking"):
        from causaledit.errors import CausalEditError
        from causaledit.runs.execution import execute
        from causaledit.runs.plan import make_plan

        judging.check()
        plan = make_plan(dataclasses.replace(arguments, model_type=model))
    try:
        with RunBars(console) as bars:
            summary = execute(plan, bars)
    except KeyboardInterrupt:
        raise CausalEditError(
            f"interrupted; finished cases are kept in {str(plan.folder)!r}, and the same command with --run_id "
            f"{plan.arguments.run_id} goes on."
        ) from None
    show_run(summary, plan, plain_console())
    analyse_file(plan.folder / "metrics.json", judging)
