"""What AlphaEdit's stages need in memory: those of MEMIT, with a projection per layer in place of a factor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.shared.locate_edit.footprint import PROJECTION, stages

if TYPE_CHECKING:
    from causaledit.methods.footprint import Planner, StageFootprint


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    return stages(planner, PROJECTION, at_projection=False)
