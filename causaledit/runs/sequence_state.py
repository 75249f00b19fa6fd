"""The kept edits of a sequence: in the model, on disk after every step, and taken back in the end.

    sequence/state-000003/   state.json  weights.safetensors  memory.pt      after step 3: what differs from the model
    sequence/constants.pt                                                    what a method computed once

A state is written into a hidden folder and renamed; the one before it is removed afterwards. What is no tensor of the
network (facts in a prompt, modules of another library) cannot be written: such a sequence is made again from its first
edit when it is resumed.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from typing import TYPE_CHECKING, Any

import torch

from causaledit.errors import RunError, SaveError
from causaledit.models.edited import AdapterEdit, EditsInTurn, WeightsEdit
from causaledit.models.weights import restore, set_back
from causaledit.support.files import write_json

if TYPE_CHECKING:
    from pathlib import Path

    from causaledit.methods.method import EditSequence
    from causaledit.models.edited import Edited

logger = logging.getLogger(__name__)

LARGEST_GROWTH = 2.0  # of a weight's norm, from which on a warning is given
_STATE = re.compile(r"state-(\d{6})")


class KeptEdits:
    """The edits that are in a model, and the way back to it as it was.

    Args:
        model: The unedited network.

    Attributes:
        plain: That.
        model: What the next edit is made in.
        asked: What answers with the edits.
        originals: The tensors that edits changed, as they were.
        own_generate: As in `Edited`.
    """

    def __init__(self, model: Any) -> None:
        self.plain = self.model = self.asked = model
        self.originals: dict[str, torch.Tensor] = {}
        self.own_generate = False
        self._others: list[Edited] = []
        self._norms: dict[str, float] = {}

    @property
    def storable(self) -> bool:
        """Whether every edit is one of weights."""
        return not self._others

    def keep(self, edited: Edited) -> list[str]:
        """Leave an edit in the model, merged where it is an adapter.

        Returns:
            The names of the weights that it may have changed.
        """
        names: list[str] = []
        for part in edited.edits if isinstance(edited, EditsInTurn) else (edited,):
            kept = part.merged() if isinstance(part, AdapterEdit) else part
            self.own_generate = self.own_generate or kept.own_generate
            if isinstance(kept, WeightsEdit):
                self.remember(kept.originals)
                names += kept.originals
            else:
                self._others.append(kept)
            self.asked, self.model = kept.model, kept.keep()
        return list(dict.fromkeys(names))

    def remember(self, originals: dict[str, torch.Tensor]) -> None:
        """Note original weights; those of the first edit that changed one are the model's."""
        for name, value in originals.items():
            if name not in self.originals:
                self.originals[name] = value
                self._norms[name] = float(value.float().norm())

    def undo(self) -> None:
        """Take every edit back, to the bit."""
        for edit in reversed(self._others):
            edit.undo()
        restore(self.plain, self.originals)
        self.model = self.asked = self.plain

    def growth(self) -> tuple[float, str] | None:
        """The largest ratio of a weight's norm to what it was, with the weight's name; None without a weight."""
        ratios = [
            (float(self.plain.get_parameter(name).detach().float().norm()) / (norm or 1.0), name)
            for name, norm in self._norms.items()
        ]
        odd = [ratio for ratio in ratios if not ratio[0] < float("inf")]  # inf and NaN
        return (odd or [max(ratios)])[0] if ratios else None

    def changed(self) -> int | None:
        """How many weights differ from the unedited model's; None where nobody can say."""
        return WeightsEdit(self.plain, self.originals).parameters_changed() if self.storable else None


class StateFolder:
    """The kept edits of a run on disk.

    Args:
        folder: `sequence/` in the run's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _states(self) -> list[tuple[int, Path]]:
        found = [(m, path) for path in self.folder.glob("state-*") if (m := _STATE.fullmatch(path.name))]
        return sorted((int(match[1]), path) for match, path in found)

    def write(self, step: int, kept: KeptEdits, sequence: EditSequence, untouched: tuple[int, ...]) -> None:
        """Write what the steps so far left in the model; nothing where that cannot be written.

        Args:
            step: The last of them.
            kept: The edits.
            sequence: The methods' memories.
            untouched: The unedited model's `fingerprint`.

        Raises:
            SaveError: The folder cannot be written or is full.
        """
        from safetensors.torch import save_file

        memories = sequence.stored()
        if not kept.storable or memories is None:
            if step == 1:
                logger.info("this method's edits cannot be kept on disk: a resumed run makes them again")
            return
        scratch, target = self.folder / f".state-{step:06d}", self.folder / f"state-{step:06d}"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            names = {name: f"{number:05d}" for number, name in enumerate(sorted(kept.originals))}  # tied ones have two
            weights = {key: kept.plain.get_parameter(name).detach().to("cpu", copy=True).contiguous()
                       for name, key in names.items()}  # fmt: skip
            save_file(weights, scratch / "weights.safetensors")
            torch.save({name: state for name, (_, state) in memories.items()}, scratch / "memory.pt")
            if memories and not (self.folder / "constants.pt").is_file():
                unfinished = self.folder / ".constants.pt"
                torch.save({name: constants for name, (constants, _) in memories.items()}, unfinished)
                unfinished.replace(self.folder / "constants.pt")
            write_json(scratch / "state.json", {"step": step, "names": names, "fingerprint": list(untouched)})
            if target.exists():  # of a sequence that could not be read any more
                shutil.rmtree(target)
            scratch.replace(target)
        except SaveError:
            raise
        except Exception as error:  # safetensors reports a full disk with an error class of its own
            reason = getattr(error, "strerror", None) or error
            raise SaveError(f"The kept edits cannot be written to {str(self.folder)!r}: {reason}.") from error
        for number, path in self._states():
            if number < step:
                shutil.rmtree(path, ignore_errors=True)

    def read(self, kept: KeptEdits, sequence: EditSequence, untouched: tuple[int, ...]) -> int:
        """Put the newest readable state into the model and the memories.

        Returns:
            The last step that is in it; 0 where there is none.

        Raises:
            RunError: The state was made from other weights.
        """
        from safetensors.torch import load_file

        for step, path in reversed(self._states()):
            try:
                about = json.loads((path / "state.json").read_text(encoding="utf-8"))
                weights = load_file(path / "weights.safetensors")
                states = torch.load(path / "memory.pt", map_location="cpu", weights_only=True)
                file = self.folder / "constants.pt"
                constants = torch.load(file, map_location="cpu", weights_only=True) if states else {}
                values = {name: weights[key] for name, key in about["names"].items()}
                memories = {name: (constants[name], state) for name, state in states.items()}
            except Exception as error:  # the machine lost power: the steps since the last readable one are made again
                logger.warning("%s cannot be read (%s): its edits are made again", path, error)
                continue
            if about["fingerprint"] != list(untouched):
                raise RunError(
                    f"The edits in {str(path)!r} were made in other weights than the model now has: load the model "
                    "that the run was started with, or give another --run_id."
                )
            self._put(kept, values)
            sequence.go_on(memories)
            return step
        return 0

    @staticmethod
    @torch.no_grad()
    def _put(kept: KeptEdits, values: dict[str, torch.Tensor]) -> None:
        parameters = {name: kept.plain.get_parameter(name) for name in values}
        kept.remember({name: p.detach().to("cpu", copy=True) for name, p in parameters.items()})
        for name, value in values.items():
            set_back(parameters[name], value)
