"""`causaledit data`: fetch the public MQuAKE files, check any MQuAKE file."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 (typer reads the annotations)
from typing import Annotated

import typer
from rich.console import Console


def fetch(
    name: Annotated[str, typer.Argument(help="MQuAKE-CF-3k, MQuAKE-CF-3k-v2 or MQuAKE-T.")],
    base_url: Annotated[str | None, typer.Option(help="Folder to fetch from, instead of the public one.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Where to keep it, instead of the cache.")] = None,
) -> None:
    """Download a public data set; an interrupted download is resumed."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    from causaledit.mquake.datasets import BASE_URL, fetch_dataset

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as bars:
        task = bars.add_task(name, total=None)
        fetched = fetch_dataset(
            name,
            base_url=base_url or BASE_URL,
            folder=folder,
            progress=lambda done, total: bars.update(task, completed=done, total=total),
        )
    out = Console()
    how = "fetched" if fetched.downloaded else "already there"
    for line in (f"{how}: {fetched.path} ({fetched.cases} cases)", f"SHA-256 {fetched.sha256}"):
        out.print(line, highlight=False, markup=False, soft_wrap=True)
    if fetched.problems:
        console.print(
            f"{len(fetched.problems)} problem(s) in the file; `causaledit data check` lists them", highlight=False
        )


def check(file: Annotated[Path, typer.Argument(help="A file of any form that --datatype takes.")]) -> None:
    """Validate a data file and list what is wrong, by case and field."""
    from causaledit.errors import DatasetError
    from causaledit.mquake.cases import describe_cases, read_cases
    from causaledit.mquake.checks import check_cases

    data = read_cases(file, "data check", keep_flawed=True)
    problems = check_cases(data)
    console = Console(soft_wrap=True)
    for problem in problems:
        console.print(str(problem), highlight=False, markup=False)
    if problems:
        bad = len({problem.case for problem in problems})
        raise DatasetError(f"{str(file)!r}: {len(problems)} problem(s) in {bad} of {len(data)} cases.")
    console.print(f"{file}: {describe_cases(data)}; nothing is wrong", highlight=False, markup=False)
