"""`causaledit ability`: what a model can do, alone or beside the model that it was edited from."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import Annotated

import typer

from causaledit.support.console import plain_console
from causaledit.support.paths import expanded


def ability(
    model: Annotated[str, typer.Option("--model", help="A model's or adapter's folder, hub name or embedded name.")],
    tasks: Annotated[
        str,
        typer.Option("--tasks", help="Comma-separated: bundled, drift, bundled_facts, …, or tasks of lm-eval."),
    ] = "bundled",
    base: Annotated[
        str | None, typer.Option("--base", help="The unedited model: differences and drift are against it.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Only the first items of each task.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    output: Annotated[Path | None, typer.Option("--output", help="Also write all scores to this JSON file.")] = None,
) -> None:
    """Measure general ability: lm-eval tasks (a bundled set needs no network), perplexity and drift on a text."""
    console = plain_console(stderr=True)
    with console.status("checking"):
        from causaledit.ability.measuring import AbilityMeter
        from causaledit.ability.summary import summarise_ability
        from causaledit.ability.tasks import check_tasks, parse_tasks
        from causaledit.errors import SaveError
        from causaledit.metrics.ability import ability_lines
        from causaledit.models.loading import load_model
        from causaledit.support.files import check_writable, write_json

        chosen = parse_tasks(tasks, limit=limit, option="--tasks")
        check_tasks(chosen, "--tasks")
        if output is not None:
            if expanded(output).is_dir():
                raise SaveError(f"--output {str(output)!r} is a folder: give a file.")
            check_writable(expanded(output).parent, "the folder of --output")
    first = base if base is not None else model
    with console.status(f"loading {first}"):
        loaded = load_model(first, device=device, argument="--base" if base is not None else "--model")
    with console.status(f"asking {first}"):
        meter = AbilityMeter(chosen, loaded.model, loaded.tokenizer)
    data = {"names": list(chosen.names), "limit": limit, "before": meter.before.to_dict(), "after": {}}
    if base is not None:
        del loaded
        with console.status(f"loading {model}"):
            loaded = load_model(model, device=device)
        with console.status(f"asking {model}"):
            after = meter.after(loaded.model)
        data["after"] = {"0": after.to_dict()} if after else {}
    summary = summarise_ability(data, sequence=True)
    for row, name in zip((summary["before"], *summary["after"]), (first, model), strict=False):
        row["when"] = name
    out = plain_console(soft_wrap=True)
    for line in ability_lines(summary):
        out.print(line, highlight=False, markup=False)
    if output is not None:
        written = write_json(output, {"model": model, "base": base, **data, "summary": summary})
        out.print(f"written to {written}", highlight=False, markup=False)
