"""`causaledit run`: edit and probe MQuAKE cases, one at a time or in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.cli.bars import RunBars, averages_text
from causaledit.cli.options import takes
from causaledit.cli.workers import worker_pool
from causaledit.runs.arguments import RunArguments
from causaledit.runs.worker_options import WorkerOptions
from causaledit.support.console import plain_console

if TYPE_CHECKING:
    from rich.console import Console


@takes(arguments=RunArguments, editing=WorkerOptions)
def run(arguments: RunArguments, editing: WorkerOptions) -> None:
    """Edit cases, probe them, undo the edits exactly, and write metrics.json. The same --run_id resumes."""
    console = plain_console(stderr=True)
    with console.status("checking"):
        from causaledit.errors import CausalEditError, EditFailedError
        from causaledit.runs.execution import execute
        from causaledit.runs.plan import make_plan

        plan = make_plan(arguments)
    again = f"the same command with --run_id {plan.arguments.run_id} resumes the run"
    try:
        with worker_pool(editing) as pool, RunBars(console) as bars:
            summary = execute(plan, bars, pool=pool)
    except KeyboardInterrupt:
        raise CausalEditError(f"interrupted; finished cases are kept in {str(plan.folder)!r}, and {again}.") from None
    show_run(summary, plan, plain_console())
    if summary.failed:
        first = next(iter(summary.failed.items()))
        if plan.sequence is not None:
            raise EditFailedError(
                f"{len(summary.failed)} of {len(plan.cases)} edits of the sequence could not be made (case {first[0]}: "
                f"{first[1]}); the others were, and their answers are in {str(plan.folder / 'metrics.json')!r}."
            )
        raise EditFailedError(
            f"{len(summary.failed)} of {len(plan.cases)} cases failed (case {first[0]}: {first[1]}); the others are in "
            f"{str(plan.folder / 'metrics.json')!r}, and the same command with --run_id {plan.arguments.run_id} tries "
            "the failed ones again."
        )


def show_run(summary: Any, plan: Any, console: Console) -> None:
    """Print how a run ended."""
    from causaledit.metrics.wording import counted

    results, costs = summary.results, summary.costs
    by = "alias match"
    if "portability" in results:
        by = "the paper's match" if plan.arguments.protocol == "portability" else f"{by} and the paper's match"
    done = f"{results['cases']} cases, {results['edits']} edits; {averages_text(results)} (by {by}, not judged)"
    console.print(done, highlight=False, markup=False, soft_wrap=True)
    if without := results.get("portability_answers", 0) - results.get("portability_tagged", 0):
        console.print(
            f"{without} of {counted(results['portability_answers'], 'answer')} to the portability questions without "
            "<answer> tags, which the paper's match counts as wrong; `causaledit judge --input "
            f"{plan.folder / 'metrics.json'}` reads them all.",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
    parts = [
        f"{costs['seconds_per_edit']:.1f} s per edit" if costs["seconds_per_edit"] is not None else "no edits",
        f"plain generation {costs['plain_tokens_per_second']:.0f} tokens/s" if costs["plain_tokens_per_second"] else "",
        f"probes {costs['probe_seconds']:.0f} s for {costs['probe_tokens']} tokens",
        f"peak memory {costs['peak_rss_mb']:.0f} MB",
    ]
    console.print("; ".join(part for part in parts if part), highlight=False, markup=False, soft_wrap=True)
    if plan.left_out:
        console.print(f"{len(plan.left_out)} cases are in no batch", highlight=False)
    console.print(f"written to {plan.folder}", highlight=False, markup=False, soft_wrap=True)
