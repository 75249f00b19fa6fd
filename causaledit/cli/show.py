"""`causaledit show`: a local page to look at an edit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from causaledit.cli.options import Group, JudgeOptions, takes
from causaledit.support.console import plain_console

TargetArgument = Annotated[
    Path, typer.Argument(metavar="MODEL|RUN", help="Folder of a saved model or adapter, or of a run.")
]
_DEVICE = "Where both models and the hf judge run: auto, cpu, cuda or cuda:N."


@takes(judging=Group(JudgeOptions, helps={"device": _DEVICE}, shared=("device",)))
def show(
    target: TargetArgument,
    judging: JudgeOptions,
    base: Annotated[str, typer.Option(help="The model before the edit; by default the one it was made from.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 for any that is free.")] = 7860,
) -> None:
    """Open a page on this machine: ask before and after the edit; its narrative, probes, verdicts and history."""
    from causaledit.errors import JudgingStoppedError
    from causaledit.support.extras import require_extra

    require_extra("ui", "causaledit show")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported

    from causaledit.ui.serving import address_of, open_port, server_of

    with open_port(port) as opened:
        from causaledit.support.progress import terminal_progress
        from causaledit.ui.target import look_at, models_of

        try:
            with terminal_progress() as progress:
                shown = look_at(
                    target, judging.load(),
                    base=base, workers=judging.workers, retry_errors=judging.retry_errors, progress=progress,
                )  # fmt: skip
        except (JudgingStoppedError, KeyboardInterrupt) as error:
            raise JudgingStoppedError(
                f"{str(error) or 'interrupted'}; nothing is shown; run the same command again to resume."
            ) from None
        with plain_console(stderr=True).status("loading the models"):
            models = models_of(shown, own_base=not base, device=judging.device)
            from causaledit.ui.page import build

            server = server_of(build(shown, models))
        where = f"{shown.title}: {address_of(opened)} (Ctrl-C ends it)"
        plain_console(soft_wrap=True).print(where, highlight=False, markup=False)
        try:
            server.run(sockets=[opened])
        except KeyboardInterrupt:  # how this command ends
            return
