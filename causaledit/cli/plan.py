"""`causaledit plan`: what an edit needs, from the model's configuration alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from causaledit.cli.options import finite, takes
from causaledit.support.console import plain_console
from causaledit.support.lengths import Lengths

if TYPE_CHECKING:
    from rich.console import Console

    from causaledit.methods.memory_plan import MemoryPlan, Way

_NARROWEST = 110  # width of the table where there is no terminal


@takes(lengths=Lengths)
def plan(
    hparams: Annotated[str, typer.Option("--hparams", help="YAML file or bundled name.")],
    lengths: Lengths,
    model: Annotated[str, typer.Option(help="Folder (a config.json is enough), hub name or embedded name.")] = "",
    method: Annotated[str, typer.Option(help="Name of the method.")] = "CausalEdit",
    gpus: Annotated[int, typer.Option(min=1, help="Number of GPUs that the base weights are spread over.")] = 1,
    gpu_memory: Annotated[
        float | None, typer.Option("--gpu-memory", min=0.1, callback=finite, help="Memory of each GPU, in GiB.")
    ] = None,
    device: Annotated[str, typer.Option(help="cuda, or cpu.")] = "cuda",
    generate_rate: Annotated[
        float | None,
        typer.Option(
            "--generate-rate", min=0.1, callback=finite, help="Tokens per second generated, all rows together."
        ),
    ] = None,
    train_rate: Annotated[
        float | None, typer.Option("--train-rate", min=0.1, callback=finite, help="Tokens per second trained on.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Tell memory, tokens and time of one edit without loading the model, and what to switch on if it does not fit."""
    console = plain_console(stderr=True)
    with console.status("planning") as status:
        from causaledit.errors import ModelError
        from causaledit.hosts.lookup import get_method
        from causaledit.methods.memory_plan import as_data, plan_edit, way_to_fit

        if device not in ("cuda", "cpu"):
            raise ModelError(f"--device must be cuda or cpu, got {device!r}.")
        chosen = get_method(method, host="embedded")
        config = chosen.load_hparams().from_hparams(hparams)
        memory = round(gpu_memory * 2**30) if gpu_memory is not None else None
        found = plan_edit(
            chosen, config, model=model or None, lengths=lengths, gpu=device == "cuda", gpus=gpus, memory=memory
        )
        way = None
        if found.fits is False:
            status.update("looking for settings that fit")
            way = way_to_fit(chosen, found)
    out = plain_console()
    if not out.is_terminal:
        out = plain_console(width=max(out.width, _NARROWEST))
    if json:
        import json as texts

        print_data = {**as_data(found), "switch_on": [r.changes for r in way.remedies] if way else []}
        out.print(texts.dumps(print_data, indent=1), highlight=False, markup=False, soft_wrap=True)
        return
    _show(found, out)
    if way is not None:
        _show_way(way, out)
    if generate_rate and train_rate:
        minutes = found.seconds(generate_rate, train_rate) / 60
        out.print(f"at most {minutes:.1f} minutes an edit at these rates", highlight=False)


def _show(found: MemoryPlan, out: Console) -> None:
    from rich.table import Table

    where = "each GPU" if found.planner.gpu else "the CPU"
    out.print(
        f"{found.weights / 1e9:.2f} billion parameters, {_gib(found.parameters)} GiB of weights on {where}",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(title="GiB at the highest moment of each stage, and tokens at most", title_justify="left")
    engines = any(stage.engine for stage in found.stages)
    kinds = ("logits", "cache", "activations", "adapter", "optimiser", "copies", *(("vLLM",) if engines else ()))
    numbers = (*kinds, "in all", "generated", "trained")
    for name in ("stage", *numbers):
        table.add_column(name, justify="left" if name == "stage" else "right", no_wrap=True)
    for stage in found.stages:
        parts = [stage.peak.parts.get(kind, 0) for kind in ("logits", "cache", "activations")]
        parts += [stage.adapter, stage.optimizer, stage.copies]
        parts += [stage.engine] if engines else []
        parts.append(stage.total(found.parameters))
        tokens = [f"{count:,}" if count else "" for count in (stage.generated, stage.trained)]
        table.add_row(stage.stage, *map(_gib, parts), *tokens)
    out.print(table)
    out.print(
        f"peak {_gib(found.peak)} GiB ({found.highest.stage}); a GPU needs {_gib(found.needed)} GiB with CUDA's own; "
        f"at most {found.generated:,} tokens generated and {found.trained:,} trained on for one edit",
        highlight=False,
        soft_wrap=True,
    )
    if found.host:
        out.print(
            f"{_gib(found.host)} GiB of host memory for copies of weights and statistics",
            highlight=False,
            soft_wrap=True,
        )
    if found.memory is not None:
        out.print(
            f"{'fits' if found.fits else 'does not fit'} in {_gib(found.memory)} GiB", highlight=False, soft_wrap=True
        )


def _show_way(way: Way, out: Console) -> None:
    lines = []
    for remedy in way.remedies:
        values = ", ".join(f"{name}: {_value(value)}" for name, value in remedy.changes.items())
        lines.append(f"  set {values}  ({remedy.effect})")
    ending = "it then fits" if way.plan.fits else "that is not enough: take larger or more GPUs (--gpus)"
    lines.append(f"  {ending}: {_gib(way.plan.needed)} GiB")
    out.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def _value(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f}"
