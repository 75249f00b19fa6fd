"""What a method's losses and rewards say step by step: their names in words, means over edits, missing gradients.

A curve is a list of numbers under a name, as `MethodReport.losses` has them: a stage's loss under the stage's name, and
beside it `STAGE_preservation`, `STAGE_clipped`, `STAGE_kl`, `reward` with its parts `reward_PART`, and `flat_groups`.
"""

from __future__ import annotations

import math
from statistics import fmean
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

REWARD = "reward"
FLAT_GROUPS = "flat_groups"
MANY_FLAT = 0.5  # the share of groups with equal rewards from which on it is pointed out

_NAMES = {REWARD: "reward, all parts", FLAT_GROUPS: "groups with equal rewards (no gradient)"}
_SUFFIXES = {
    "_preservation": "preservation term",
    "_clipped": "share of clipped tokens",
    "_kl": "KL to the starting policy",
}


def curve_label(name: str) -> str:
    """A curve's name in words."""
    if name in _NAMES:
        return _NAMES[name]
    if is_reward(name):
        return f"reward: {name.removeprefix(f'{REWARD}_')}"
    for suffix, meaning in _SUFFIXES.items():
        if name.endswith(suffix):
            return f"{name.removesuffix(suffix)}: {meaning}"
    return name.replace("_", " ")


def is_reward(name: str) -> bool:
    """Whether a curve is the reward or a part of it."""
    return name == REWARD or name.startswith(f"{REWARD}_")


def read_curves(losses: Any) -> dict[str, list[float]]:
    """The curves in a file's `losses`, without what is no finite number and without empty ones."""
    if not isinstance(losses, dict):
        return {}
    found = {
        str(name): [float(v) for v in values if type(v) in (int, float) and math.isfinite(v)]
        for name, values in losses.items()
        if isinstance(values, list)
    }
    return {name: values for name, values in found.items() if values}


def aligned(curves: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """Per step the values of all curves; one that ended earlier counts with its last value.

    Args:
        curves: At least one value each.
    """
    longest = max(map(len, curves), default=0)
    return [tuple(curve[min(step, len(curve) - 1)] for curve in curves) for step in range(longest)]


def first_and_last(value: float, last: float) -> str:
    """Where a curve begins and where it ends."""
    return f"{value:.3g} → {last:.3g}".replace("-", "−")


def missing_gradient(curves: Mapping[str, Sequence[float]]) -> str:
    """Says that rewards gave no gradient, or hardly any; empty where they did, or where there are none."""
    flat = curves.get(FLAT_GROUPS)
    if not flat or fmean(flat) < MANY_FLAT:
        return ""
    if min(flat) >= 1:
        return "the rewards of every group of responses were equal: they gave no gradient"
    return f"in {100 * fmean(flat):.0f} % of the groups of responses all rewards were equal, which gives no gradient"
