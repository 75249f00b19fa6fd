"""`causaledit run`: edit and probe MQuAKE cases, one at a time or in batches."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.console import Console

from causaledit.cli.bars import RunBars, averages_text

_MODEL_TYPE = "Name of the file in hparams/METHOD/ (a label with --hparams_path); for PreEdited also a model."
_PROBES = "hop,multi_hop,conflict,old_knowledge,locality"


def run(
    editing_method: Annotated[str, typer.Option("--editing_method", help="A method's name, or PreEdited.")],
    datatype: Annotated[str, typer.Option("--datatype", help="Data set name, or path of an MQuAKE file.")],
    model_type: Annotated[str, typer.Option("--model_type", help=_MODEL_TYPE)],
    hparams_path: Annotated[str | None, typer.Option("--hparams_path", help="A YAML file instead.")] = None,
    max_cases: Annotated[int, typer.Option("--max_cases", help="At most so many cases.")] = 200,
    hop: Annotated[int | None, typer.Option("--hop", min=1, max=4, help="Only cases of so many hops.")] = None,
    shuffle_seed: Annotated[int, typer.Option("--shuffle_seed", help="Seed of the selection.")] = 70,
    exp_tag: Annotated[str, typer.Option("--exp_tag", help="Part of the folder's name.")] = "default",
    batch_edit: Annotated[int | None, typer.Option("--batch_edit", help="Apply so many unique edits together.")] = None,
    skip_cases: Annotated[int, typer.Option("--skip_cases", help="Leave out so many of the first.")] = 0,
    output_root: Annotated[str, typer.Option("--output_root", help="Where runs are kept.")] = "./output/experiments",
    run_id: Annotated[str | None, typer.Option("--run_id", help="The same name resumes a run.")] = None,
    device: Annotated[str | None, typer.Option("--device", help="Instead of the hparams' device.")] = None,
    probes: Annotated[str, typer.Option("--probes", help="Comma-separated; also open_book.")] = _PROBES,
    max_new_tokens: Annotated[int, typer.Option("--max_new_tokens", help="Longest answer to a probe.")] = 256,
    token_budget: Annotated[int, typer.Option("--token_budget", help="Most tokens in one batch of probes.")] = 16384,
) -> None:  # fmt: skip
    """Edit cases, probe them, undo the edits exactly, and write metrics.json. The same --run_id resumes."""
    console = Console(stderr=True)
    with console.status("checking"):
        from causaledit.errors import CausalEditError, EditFailedError
        from causaledit.probes.sets import parse_kinds
        from causaledit.runs.execution import execute
        from causaledit.runs.plan import RunArguments, make_plan

        plan = make_plan(
            RunArguments(
                editing_method=editing_method, datatype=datatype, model_type=model_type, hparams_path=hparams_path,
                max_cases=max_cases, hop=hop, shuffle_seed=shuffle_seed, exp_tag=exp_tag, batch_edit=batch_edit,
                skip_cases=skip_cases, output_root=output_root, run_id=run_id, device=device,
                probes=parse_kinds(probes), max_new_tokens=max_new_tokens, token_budget=token_budget,
            )
        )  # fmt: skip
    again = f"the same command with --run_id {plan.arguments.run_id} goes on from there"
    try:
        with RunBars(console) as bars:
            summary = execute(plan, bars)
    except KeyboardInterrupt:
        raise CausalEditError(f"interrupted; finished cases are kept in {str(plan.folder)!r}, and {again}.") from None
    _show(summary, plan, Console())
    if summary.failed:
        first = next(iter(summary.failed.items()))
        raise EditFailedError(
            f"{len(summary.failed)} of {len(plan.cases)} cases failed (case {first[0]}: {first[1]}); the others are in "
            f"{str(plan.folder / 'metrics.json')!r}, and the same command with --run_id {plan.arguments.run_id} tries "
            "the failed ones again."
        )


def _show(summary: Any, plan: Any, console: Console) -> None:
    results, costs = summary.results, summary.costs
    done = f"{results['cases']} cases, {results['edits']} edits; {averages_text(results)} (by alias match, not judged)"
    console.print(done, highlight=False, markup=False, soft_wrap=True)
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
