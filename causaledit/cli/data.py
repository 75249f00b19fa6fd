"""`causaledit data`: fetch public data sets, check a data file of any form, keep the cases that suit a model."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import Annotated

import typer

from causaledit.support.console import plain_console


def fetch(
    name: Annotated[str | None, typer.Argument(help="A public data set; without a name they are listed.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Folder to fetch from, instead of the public one.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to keep it, instead of the cache.")] = None,
) -> None:
    """Download a public data set; an interrupted download is resumed."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from causaledit.errors import CausalEditError, OptionError
    from causaledit.mquake.datasets import fetch_dataset

    if name is None:
        for flag, value in (("--base-url", base_url), ("--folder", folder)):
            if value is not None:
                raise OptionError(f"{flag} has no effect without the name of a data set: give one, or leave it out.")
        _list_datasets()
        return
    console = plain_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task(name, total=None)
        try:
            fetched = fetch_dataset(
                name,
                base_url=base_url,
                folder=folder,
                progress=lambda done, total: bars.update(task, completed=done, total=total),
            )
        except KeyboardInterrupt:
            raise CausalEditError("interrupted; what was fetched is kept, and the same command goes on.") from None
    out = plain_console()
    how = "fetched" if fetched.downloaded else "already there"
    checked = "" if fetched.verified else " (none is on record to compare it with)"
    source = fetched.source
    for line in (
        f"{how}: {fetched.path} ({fetched.cases} cases)",
        f"SHA-256 {fetched.sha256}{checked}",
        f"licence: {source.licence} ({source.page})",
        f"cite: {source.citation}",
    ):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if fetched.problems:
        console.print(
            f"{len(fetched.problems)} problem(s) in the file; `causaledit data check` lists them", highlight=False
        )


def _list_datasets() -> None:
    """The public data sets, which are here, and on what terms they are published."""
    from rich.table import Table

    from causaledit.mquake.datasets import datasets_dir
    from causaledit.mquake.published import DATASETS

    table = Table("name", "here", "licence", "published at")
    for name, spec in DATASETS.items():
        here = "yes" if (datasets_dir() / spec.file).is_file() else "no"
        table.add_row(name, here, spec.source.licence, spec.source.page)
    plain_console().print(table)


def check(file: Annotated[Path, typer.Argument(help="A file of any form that --datatype takes.")]) -> None:
    """Say of what form a data file is and what is in it, and list what is wrong, by case and field."""
    from causaledit.errors import DatasetError
    from causaledit.mquake.cases import describe_cases, read_cases
    from causaledit.mquake.checks import check_cases
    from causaledit.mquake.forms import name_of

    data = read_cases(file, "data check", keep_flawed=True)
    problems = check_cases(data)
    console = plain_console(soft_wrap=True)
    for problem in problems:
        console.print(str(problem), highlight=False, markup=False)
    form = name_of(data)
    if problems:
        bad = len({problem.case for problem in problems})
        raise DatasetError(f"{str(file)!r} ({form}): {len(problems)} problem(s) in {bad} of {len(data)} cases.")
    console.print(f"{file}: {form}; {describe_cases(data)}; nothing is wrong", highlight=False, markup=False)


def filter_(
    file: Annotated[Path, typer.Argument(help="An MQuAKE file, plain or causal-enhanced.")],
    model: Annotated[str, typer.Option(help="Folder of a model, hub name, .gguf file or embedded name.")],
    out: Annotated[Path, typer.Option(help="Where the cases that stay are written.")],
    known: Annotated[
        str, typer.Option(help="What the model must know: hops (those that no edit makes), chain (the old one).")
    ] = "hops,chain",
    drop_relations: Annotated[
        str, typer.Option("--drop-relations", help="Relation ids to leave out, with commas, such as P30,P36.")
    ] = "",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Keep the cases whose other facts a model knows and whose new fact it does not. The same command resumes."""
    from causaledit.errors import CausalEditError, SaveError
    from causaledit.models.loading import load_model
    from causaledit.mquake.cases import parse_cases, read_cases
    from causaledit.probes.known import filter_known, parse_requirements
    from causaledit.support.files import check_writable, write_json
    from causaledit.support.progress import terminal_progress

    required = parse_requirements(known)
    left_out = [name.strip() for name in drop_relations.split(",") if name.strip()]
    data = read_cases(file, "data filter")
    cases = parse_cases(data)
    if out.is_dir() or out.resolve() == file.resolve():
        what = "a folder" if out.is_dir() else "the file itself"
        raise SaveError(f"--out {str(out)!r} is {what}: name another file.")
    check_writable(out.parent, "the folder of --out")
    answers = out.with_name(f"{out.name}.answers.jsonl")
    console = plain_console(stderr=True)
    with console.status(f"loading {model}"):
        loaded = load_model(model, device=device)
    try:
        with terminal_progress() as progress:
            found = filter_known(
                cases, loaded.model, loaded.tokenizer, known=required, leave_out=left_out, answers=answers,
                label=model, progress=progress,
            )  # fmt: skip
    except KeyboardInterrupt:
        kept = f"answers are kept in {str(answers)!r}, and the same command goes on."
        raise CausalEditError(f"interrupted; {kept}") from None
    write_json(out, [data[position] for position in found.kept])
    summary = {
        "file": str(file),
        "model": model,
        "known": list(required),
        "drop_relations": left_out,
        "cases": len(cases),
        "kept": len(found.kept),
        "dropped": found.by_rule,
        "dropped_cases": [{"case_id": case, "rule": rule} for case, rule in found.dropped],
    }
    write_json(out.with_name(f"{out.name}.filter.json"), summary)
    show = plain_console(soft_wrap=True)
    show.print(f"{len(found.kept)} of {len(cases)} cases are kept: {out}", highlight=False, markup=False)
    for rule, number in found.by_rule.items():
        show.print(f"  dropped, {rule}: {number}", highlight=False, markup=False)
