"""`causaledit`: the typer application, and how errors end it.

Exit codes: 0 done, 1 the work failed or was interrupted, 2 the input was unusable. One line says why; a
traceback is shown with `--debug` only.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.logging import RichHandler

from causaledit.cli import (
    ability,
    analyze,
    compare,
    data,
    demo,
    doctor,
    edit,
    evaluate,
    generate,
    history,
    judge,
    pilot,
    plan,
    report,
    run,
    scaffold,
    show,
    undo,
)  # fmt: skip
from causaledit.errors import CausalEditError, HostError
from causaledit.support.console import plain_console
from causaledit.support.launch import launched
from causaledit.support.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="causaledit",
    help="Causal on-policy distillation for knowledge editing.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_IN_SEVERAL_PROCESSES = ("edit",)  # it says itself which methods are for one


def _interruptible(command: Callable[..., None], name: str) -> Callable[..., None]:
    """Ctrl-C inside a command ends like any other failure; typer alone would end without a word.

    Nor do several copies of it start at once, which would all do the same work and write to the same files.
    """

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        if launched() > 1 and name not in _IN_SEVERAL_PROCESSES:
            raise HostError(
                f"This is one of {launched()} processes (WORLD_SIZE), and `causaledit {name}` "
                "works in one: start it without `torchrun` or `accelerate launch`, or unset WORLD_SIZE. Cases are "
                "spread over GPUs with --ray-workers (run, compare, pilot, judge, scaffold)."
            )
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            raise CausalEditError("interrupted; nothing was written") from None

    return run


for _command in (
    demo.demo, edit.edit, history.history, undo.undo, show.show, generate.generate, run.run, compare.compare,
    judge.judge, analyze.analyze, pilot.pilot, plan.plan, report.report, scaffold.scaffold, doctor.doctor,
    evaluate.evaluate, ability.ability,
):  # fmt: skip
    app.command(name=_command.__name__)(_interruptible(_command, _command.__name__))

_data = typer.Typer(help="Fetch, check and filter MQuAKE files.", no_args_is_help=True)
for _command in (data.fetch, data.check, data.filter_):
    _name = _command.__name__.rstrip("_")
    _data.command(name=_name)(_interruptible(_command, f"data {_name}"))
app.add_typer(_data, name="data")


def _show_version(value: bool) -> None:
    if value:
        plain_console(markup=True).print(f"causaledit {__version__}")
        raise typer.Exit


# what to do next, each with what it is for
_FIRST_STEPS = (
    ("causaledit demo", "edit a small model on the CPU and see what it says"),
    ("causaledit edit --help", "change facts in your model and save it"),
    ("causaledit run --help", "measure a method on MQuAKE cases"),
    ("causaledit compare --help", "several methods on the same cases, side by side"),
    ("causaledit --help", "all commands; README.md and docs/ explain them"),
)


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks and all logs.")] = False,
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True)] = False,
) -> None:
    """Causal on-policy distillation for knowledge editing."""
    # messages of other libraries about our set-up do not concern the user, unless they ask
    logging.basicConfig(
        level=logging.DEBUG if debug else logging.ERROR,
        format="%(message)s",
        handlers=[RichHandler(console=plain_console(markup=True, stderr=True), show_path=debug, show_time=debug)],
        force=True,
    )
    logging.getLogger("causaledit").setLevel(logging.DEBUG if debug else logging.INFO)
    logging.captureWarnings(True)
    if not debug:
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if context.invoked_subcommand is None:
        width = max(len(command) for command, _ in _FIRST_STEPS)
        for command, purpose in _FIRST_STEPS:
            plain_console(markup=True, soft_wrap=True).print(
                f"{command:{width}}  {purpose}", highlight=False, markup=False
            )


def main() -> None:
    """Console entry point: run the application, turn errors into one line and an exit code."""
    debug = "--debug" in sys.argv[1:]
    if debug:  # accepted before and after the command's name
        sys.argv = [sys.argv[0], "--debug", *[a for a in sys.argv[1:] if a != "--debug"]]
    try:
        app(standalone_mode=True)
    except CausalEditError as error:
        _end(str(error), error.exit_code, debug)
    except KeyboardInterrupt:
        _end("interrupted; nothing was written", 1, debug)
    except Exception as error:
        if debug:
            raise
        first = (str(error).strip().splitlines() or [""])[0]
        _end(f"{type(error).__name__}: {first} (run with --debug for the traceback)", 1, debug)


def _end(message: str, code: int, debug: bool) -> None:
    if debug:
        logging.getLogger("causaledit").debug("traceback", exc_info=True)
    plain_console(markup=True, stderr=True, soft_wrap=True).print(
        f"[bold red]error:[/] {_escape(message)}", highlight=False
    )
    raise SystemExit(code)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


if __name__ == "__main__":
    main()
