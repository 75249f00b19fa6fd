"""`causaledit report`: one HTML page about runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from causaledit.cli.options import JudgeOptions, takes
from causaledit.support.console import plain_console

RunsArgument = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders, or their metrics.json.")]
HtmlOption = Annotated[Path, typer.Option("--html", help="The page to write.")]


@takes(judging=JudgeOptions)
def report(
    runs: RunsArgument,
    html: HtmlOption,
    judging: JudgeOptions,
) -> None:
    """Write one self-contained HTML page: metrics side by side, by hop, costs, and every single prediction."""
    from causaledit.errors import JudgingStoppedError
    from causaledit.report.html import write_report
    from causaledit.support.progress import terminal_progress

    try:
        with terminal_progress() as progress:
            page = write_report(
                runs,
                html,
                judge=judging.load(),
                workers=judging.workers,
                retry_errors=judging.retry_errors,
                progress=progress,
            )
    except (JudgingStoppedError, KeyboardInterrupt) as error:
        raise JudgingStoppedError(
            f"{str(error) or 'interrupted'}; no page is written; run the same command again to resume."
        ) from None
    size = page.stat().st_size / 2**20
    plain_console(soft_wrap=True).print(f"written to {page} ({size:.1f} MB)", highlight=False, markup=False)
