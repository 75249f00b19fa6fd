"""Experiment trackers: transformers' own callbacks, each stage of an edit as a run of its own."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from transformers import TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import TensorBoardCallback, get_reporting_integration_callbacks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import torch
    from transformers import TrainerCallback

    StepLog = Callable[[int, Mapping[str, float]], None]

PROJECT = "causaledit"  # unless the tracker's own environment variable names another
_NAMED = 2  # subjects that a run's name spells out


class TrackedSettings(Protocol):
    """A method's hyper-parameters for its trackers."""

    ALG_NAME: ClassVar[str]

    @property
    def trackers(self) -> tuple[str, ...]:
        """The trackers of `report_to`."""


def run_name(method: str, stage: str, subjects: Sequence[str]) -> str:
    """The name of a stage's run: method, subjects of the edits, stage, time (`CausalEdit Boeing bootstrap 2026-…`).

    A tracker goes on with a run whose name it knows: without the time, the next edit of the subject would.
    """
    named = list(dict.fromkeys(filter(None, subjects)))
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    parts = (method, ", ".join(named[:_NAMED]) + more, stage, f"{datetime.now():%Y-%m-%d %H:%M:%S}")
    return " ".join(part for part in parts if part)


def tracker_arguments(hparams: TrackedSettings, stage: str, subjects: Sequence[str]) -> dict[str, Any]:
    """The arguments of transformers' trainers that name the trackers and the run."""
    return {
        "report_to": list(hparams.trackers) or "none",
        "run_name": run_name(hparams.ALG_NAME, stage, subjects),
        "project": os.environ.get("TRACKIO_PROJECT", PROJECT),
    }


def tracker_output(hparams: TrackedSettings) -> contextlib.AbstractContextManager[Any]:
    """A block in which what trackers print goes to standard error: a command's output stays its own."""
    return contextlib.redirect_stdout(sys.stderr) if hparams.trackers else contextlib.nullcontext()


@contextlib.contextmanager
def open_runs(callbacks: Sequence[TrainerCallback], name: str) -> Iterator[None]:
    """For the block the trackers among a trainer's callbacks keep one run under this name; at its end it is closed.

    transformers leaves a Weights & Biases run open, and any tracker's after an exception; the next stage would then
    be written into it.

    Args:
        callbacks: All callbacks of the trainer.
        name: As from `run_name`.
    """
    found = [callback for callback in callbacks if type(callback).__module__.startswith("transformers.integrations")]
    if not found:
        yield
        return
    for callback in found:
        if isinstance(callback, TensorBoardCallback):  # its own default is the trainer's folder, which is temporary
            callback.logging_dir = str(Path(callback.logging_dir or "runs") / re.sub(r"[^\w.,-]+", "_", name))
    modules = [getattr(callback, attribute, None) for callback in found for attribute in ("_trackio", "_wandb")]
    with _project(PROJECT):
        try:
            yield
        finally:
            for module in filter(None, modules):
                with contextlib.suppress(Exception):  # closed already, or never opened
                    module.finish()


@contextlib.contextmanager
def _project(name: str) -> Iterator[None]:
    """Weights & Biases' project for the block, where the user names none."""
    given = os.environ.get("WANDB_PROJECT")
    os.environ["WANDB_PROJECT"] = given or name
    try:
        yield
    finally:
        if given is None:
            del os.environ["WANDB_PROJECT"]
        else:
            os.environ["WANDB_PROJECT"] = given


@contextlib.contextmanager
def step_log(
    hparams: TrackedSettings, device: torch.device, *, stage: str, subjects: Sequence[str]
) -> Iterator[StepLog]:
    """For the block, the log of a loop without a trainer: what is given to it goes to the trackers of `report_to`.

    Args:
        hparams: The method's.
        device: Where it trains.
        stage, subjects: As for `run_name`.

    Yields:
        Takes an optimiser step's number, from 1, and its values by name (`loss` and its parts).
    """
    if not hparams.trackers:
        yield lambda step, values: None
        return
    arguments = tracker_arguments(hparams, stage, subjects)
    state, control = TrainerState(), TrainerControl()
    with contextlib.ExitStack() as stack:
        stack.enter_context(tracker_output(hparams))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="causaledit-"))
        callbacks: list[Any] = [kind() for kind in get_reporting_integration_callbacks(list(hparams.trackers))]
        stack.enter_context(open_runs(callbacks, arguments["run_name"]))
        made = TrainingArguments(output_dir=folder, use_cpu=device.type == "cpu", **arguments)

        def log(step: int, values: Mapping[str, float]) -> None:
            state.global_step = step
            for callback in callbacks:
                callback.on_log(made, state, control, logs=dict(values))

        for callback in callbacks:
            callback.on_train_begin(made, state, control)
        yield log
        for callback in callbacks:
            callback.on_train_end(made, state, control)
