"""The files of a sequence of edits.

metrics.json       per checkpoint, one entry for each edit that holds there (`sequence`: checkpoint, edit, step)
res.json           averages at the last checkpoint, and at each
sequence/steps/    one file per step: what it cost, how the weights grew, why it failed
sequence/checkpoints/   one file per checkpoint: its entries
sequence/before.json    what the unedited model answered
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

from causaledit.runs.post import averages
from causaledit.support.files import read_object, write_json

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.runs.sequence import SequencePlan

logger = logging.getLogger(__name__)


class SequenceFolder:
    """The files of one run over a sequence; a `RunFolder` to whoever tabulates it."""

    def __init__(self, path: Path, plan: SequencePlan) -> None:
        self.path, self.plan = path, plan
        self.inside = path / "sequence"
        self.steps: dict[int, dict[str, Any]] = {}
        self.checkpoints: dict[int, dict[str, Any]] = {}
        for step in range(1, plan.edits[-1].step + 1):
            if record := read_object(self._step_file(step)):
                self.steps[step] = record
        for checkpoint in plan.checkpoints:
            record = read_object(self._checkpoint_file(checkpoint))
            if isinstance(record.get("items"), list) and isinstance(record.get("cost"), dict):
                self.checkpoints[checkpoint] = record
        self.before: dict[str, str] = read_object(self.inside / "before.json").get("locality", {})

    def _step_file(self, step: int) -> Path:
        return self.inside / "steps" / f"{step:06d}.json"

    def _checkpoint_file(self, checkpoint: int) -> Path:
        return self.inside / "checkpoints" / f"{checkpoint:06d}.json"

    # ---- what is done --------------------------------------------------------------------------------
    @property
    def complete(self) -> bool:
        """Whether every checkpoint has been asked."""
        return all(checkpoint in self.checkpoints for checkpoint in self.plan.checkpoints)

    @property
    def finished_cases(self) -> int:
        """How many edits were made, without those that failed."""
        return sum(edit.step in self.steps for edit in self.plan.edits) - len(self.failed)

    @property
    def items(self) -> list[dict[str, Any]]:
        """The entries of metrics.json, by checkpoint and edit."""
        return [item for checkpoint in sorted(self.checkpoints) for item in self.checkpoints[checkpoint]["items"]]

    @property
    def failed(self) -> dict[int | str, str]:
        """Edits that could not be made, by the name of their entry, with the reason."""
        return {
            edit.case.case_id: self.steps[edit.step]["error"]
            for edit in self.plan.edits
            if "error" in self.steps.get(edit.step, {})
        }

    @property
    def costs(self) -> list[dict[str, Any]]:
        """What the steps and the checkpoints cost."""
        steps = [{"group": step, **record} for step, record in sorted(self.steps.items()) if "error" not in record]
        return [*steps, *(record["cost"] for record in self.checkpoints.values())]

    def trained(self, step: int) -> list[str]:
        """Every prompt that the edits up to a step were trained on."""
        found = (prompt for n in range(1, step + 1) for prompt in self.steps.get(n, {}).get("trained_prompts", ()))
        return list(dict.fromkeys(found))

    def averages(self) -> dict[str, Any]:
        """The content of res.json: averages at the last checkpoint, and at each."""
        each = {str(checkpoint): averages(record["items"]) for checkpoint, record in sorted(self.checkpoints.items())}
        last = list(each.values())[-1] if each else averages([])
        return {**last, "checkpoints": each}

    def info(self) -> dict[str, Any]:
        """What run_info.json says of the sequence."""
        growth = [r["growth"] for r in self.steps.values() if r.get("growth") is not None]
        done = {"steps_made": len(self.steps), "largest_growth": max(growth, default=None)}
        return {"sequence": {**self.plan.to_dict(), **done}}

    # ---- writing -------------------------------------------------------------------------------------
    def write_before(self, locality: dict[str, str]) -> None:
        """Keep what the unedited model answered."""
        write_json(self.inside / "before.json", {"locality": locality})
        self.before = locality

    def write_step(self, step: int, record: dict[str, Any]) -> None:
        """Keep what a step did."""
        write_json(self._step_file(step), record)
        self.steps[step] = record

    def write_checkpoint(self, checkpoint: int, items: list[dict[str, Any]], cost: dict[str, Any]) -> None:
        """Keep the answers of a checkpoint, all or none."""
        record = {"items": items, "cost": cost}
        write_json(self._checkpoint_file(checkpoint), record)
        self.checkpoints[checkpoint] = json.loads(json.dumps(record))
        self.assemble()

    def assemble(self) -> None:
        """Write metrics.json and res.json from the finished checkpoints."""
        write_json(self.path / "metrics.json", self.items)
        write_json(self.path / "res.json", self.averages())
