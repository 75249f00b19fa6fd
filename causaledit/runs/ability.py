"""A run's ability.json: what the unedited model can do, and what each state of it that the run measured can.

{"names": […], "limit": …, "before": {…}, "after": {"10": {…}}}     by checkpoint, or by group of cases
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.ability.bundled import VERSION
from causaledit.ability.measuring import AbilityMeter
from causaledit.ability.scores import Ability
from causaledit.support.files import read_object, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.ability.tasks import AbilityTasks

FILE = "ability.json"


class RunAbility:
    """Measures a run's models, and keeps what it measured.

    Args:
        folder: The run's.
        tasks: What is measured.
        model: The unedited model; left as it is. It is measured now, unless an earlier call of the run did.
        tokenizer: Its tokenizer.
    """

    def __init__(self, folder: Path, tasks: AbilityTasks, model: Any, tokenizer: Any) -> None:
        self.file = folder / FILE
        data = read_object(self.file)
        if (data.get("before") or {}).get("version") != VERSION:
            data = {}
        known = Ability.from_dict(data["before"]) if data else None
        self.meter = AbilityMeter(tasks, model, tokenizer, known)
        self.data: dict[str, Any] = {
            "names": list(tasks.names),
            "limit": tasks.limit,
            "before": self.meter.before.to_dict(),
            "after": data.get("after", {}),
        }
        write_json(self.file, self.data)

    def measure(self, key: int, model: Any, *, again: bool = True) -> None:
        """Measure an edited model, and keep it under a checkpoint's or a group's number.

        Args:
            again: Also where it is there already.
        """
        if str(key) in self.data["after"] and not again:
            return
        if (found := self.meter.after(model)) is not None:
            self.data["after"][str(key)] = found.to_dict()
            write_json(self.file, self.data)
