"""losses/: what an edit's training reported step by step, one file for each group of edits or step of a sequence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.support.curves import read_curves
from causaledit.support.files import read_object, write_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class GroupLosses:
    """The curves of edits that were trained together.

    Attributes:
        edits: How many edits these are.
        curves: As in `support.curves`.
    """

    edits: int
    curves: Mapping[str, Sequence[float]]


def write_losses(run: Path, number: int, edits: int, losses: Mapping[str, Sequence[float]]) -> None:
    """Keep a group's curves, whole or not at all; nothing is written for a method that reports none.

    Args:
        run: The run's folder.
        number: The group's, or the step's.
        edits: How many edits it has.
        losses: As in `MethodReport.losses`.
    """
    if losses:
        write_json(run / "losses" / f"{number:06d}.json", {"edits": edits, "losses": losses})


def read_losses(run: Path) -> list[GroupLosses]:
    """The curves of all groups of a run; none where it kept none, as runs did before there was such a folder."""
    found = []
    for file in sorted((run / "losses").glob("*.json")):
        data = read_object(file)
        edits = data.get("edits")
        if curves := read_curves(data.get("losses")):
            found.append(GroupLosses(edits if isinstance(edits, int) and edits > 0 else 1, curves))
    return found
