"""What ROME's stages need in memory (`methods.shared.locate_edit.footprint`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.shared.locate_edit.footprint import FACTOR, stages

if TYPE_CHECKING:
    from causaledit.methods.footprint import Planner, StageFootprint


def footprint(planner: Planner) -> list[StageFootprint]:
    """The stages of one edit, in their order."""
    return stages(planner, FACTOR if planner.hparams.mom2_adjustment else None, at_projection=True)
