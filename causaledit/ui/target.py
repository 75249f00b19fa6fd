"""What a path names: a saved model or a run; and the models that can be asked about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.errors import ModelError, RunError
from causaledit.support.paths import exists, expanded
from causaledit.ui.of_model import CONFIGURATIONS, show_model
from causaledit.ui.of_run import show_run

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.judges.base import Judge
    from causaledit.support.progress import ProgressSink
    from causaledit.ui.asking import BeforeAndAfter
    from causaledit.ui.shown import Shown


def look_at(
    target: str | Path,
    judge: Judge,
    *,
    base: str = "",
    workers: int = 4,
    retry_errors: bool = False,
    progress: ProgressSink | None = None,
) -> Shown:
    """Read what a page shows; no model is loaded.

    Args:
        target: Folder of a saved model or adapter, of a run, or a run's metrics.json.
        judge: Gives the verdicts.
        base: The model before the edit, for a saved model; empty for the one that its card names.
        workers: Requests at a time, for a judge that waits for an endpoint.
        retry_errors: Judge again the responses whose verdict is an error.
        progress: Where progress goes.

    Raises:
        ModelError: It is neither, or a model whose base is not known.
        RunError: It is a run that has no metrics.json yet, or `base` is given for a run.
        MetricsError, RequestError: It is a run that is damaged or holds no case.
        JudgingStoppedError: The judge cannot continue.
    """
    path = expanded(target)
    if not exists(path):
        raise ModelError(f"{str(path)!r} does not exist: give the folder of a saved model or of a run.")
    if path.is_file() or (path / "metrics.json").is_file():
        if base:
            raise RunError(f"--base {base!r} is for a saved model, and {str(path)!r} is a run: leave it out.")
        return show_run(path, judge, workers=workers, retry_errors=retry_errors, progress=progress)
    if any((path / name).is_file() for name in CONFIGURATIONS):
        return show_model(path, judge, base=base)
    if (path / "meta" / "run_args.json").is_file():
        raise RunError(f"The run {str(path)!r} has no case yet (there is no metrics.json): let it finish one first.")
    known = " or ".join(CONFIGURATIONS)
    raise ModelError(
        f"{str(path)!r} is neither a saved model ({known}) nor a run (metrics.json): give the folder of one."
    )


def models_of(shown: Shown, *, own_base: bool, device: str = "auto") -> BeforeAndAfter | None:
    """The models before and after the edit, loaded; None where nothing can be asked.

    Args:
        shown: From `look_at`.
        own_base: Whether the model before the edit is the one that the card names.
        device: As in `load_model`.

    Raises:
        ModelError: One of them cannot be loaded.
    """
    from causaledit.ui.asking import BeforeAndAfter

    if shown.base is None or shown.edited is None:
        return None
    return BeforeAndAfter.load(shown.edited, shown.base, own_base=own_base, device=device)
