"""Which tasks are meant by `--ability`, refused before anything is loaded.

`bundled` stands for all bundled tasks and `drift`; `bundled_facts` and the like name one of them; `drift` is perplexity
and drift on the bundled text. Every other name is one of lm-eval's own tasks, whose data come from the hub.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import Any

from causaledit.ability.bundled import FOLDER, KINDS, TASKS
from causaledit.errors import AbilityError, did_you_mean
from causaledit.support.extras import require_extra
from causaledit.support.hub import hub_fault, is_offline

logger = logging.getLogger(__name__)

BUNDLED, DRIFT = "bundled", "drift"
OWN = (BUNDLED, DRIFT, *TASKS)


@dataclass(frozen=True)
class AbilityTasks:
    """What is measured.

    Attributes:
        names: Tasks of lm-eval, bundled ones first.
        drift: Whether perplexity and drift are measured.
        limit: Only the first items of each task.
    """

    names: tuple[str, ...]
    drift: bool
    limit: int | None = None

    @property
    def standard(self) -> tuple[str, ...]:
        """Those that are lm-eval's own."""
        return tuple(name for name in self.names if name not in TASKS)


def parse_tasks(text: str, *, limit: int | None = None, option: str = "--ability") -> AbilityTasks:
    """The tasks of `--ability bundled,mmlu`.

    Args:
        text: Names with commas between them.
        limit: Only the first items of each task.
        option: The option they were given by, for messages.

    Raises:
        AbilityError: There is none, or `limit` is below 1.
    """
    given = [name.strip() for name in text.split(",")]
    if not all(given):
        raise AbilityError(f"{option} must be tasks with commas between them ({', '.join(OWN[:2])}, …), got {text!r}.")
    if limit is not None and limit < 1:
        raise AbilityError(f"{option}_limit must be at least 1, got {limit}.")
    names: list[str] = []
    for name in given:
        name = f"{BUNDLED}_{name}" if name in KINDS else name
        names += TASKS if name == BUNDLED else [name] if name != DRIFT else []
    ordered = sorted(dict.fromkeys(names), key=lambda name: name not in TASKS)
    return AbilityTasks(tuple(ordered), BUNDLED in given or DRIFT in given, limit)


def check_tasks(tasks: AbilityTasks, option: str = "--ability") -> None:
    """Refuse what cannot be measured here.

    Raises:
        MissingExtraError: lm-eval is not installed, and a task needs it.
        AbilityError: A task is unknown, or its data cannot be reached.
    """
    if not tasks.names:
        return
    require_extra("ability", f"{option} {','.join(tasks.names[:2])}")
    if not tasks.standard:
        return
    known = manager(defaults=True).all_tasks
    for name in tasks.standard:
        if name not in known:
            raise AbilityError(
                f"{option}: lm-eval has no task {name!r}.{did_you_mean(name, [*OWN, *known])} Bundled, without a "
                f"network: {', '.join(OWN)}."
            )
    _check_hub(tasks.standard, option)


def _check_hub(names: tuple[str, ...], option: str) -> None:
    """Refuse at once where nothing answers: the libraries would try again for half a minute, for each file."""
    if is_offline():
        logger.info("HF_HUB_OFFLINE is set: the data of %s must be in the cache", ", ".join(names))
    elif fault := hub_fault():
        raise AbilityError(
            f"{option} {names[0]}: its data come from the hub, and {fault}: use the bundled tasks, or set "
            "HF_HUB_OFFLINE=1 where the data are in the cache."
        )


@functools.cache
def manager(*, defaults: bool) -> Any:
    """lm-eval's tasks: ours, and with `defaults` its own, whose index takes a quarter of a minute."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_defaults=defaults, include_path=str(FOLDER))
