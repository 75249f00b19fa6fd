"""What a run's ability.json says, summed up for tables: before, and after each checkpoint or over all edits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from causaledit.ability.scores import Ability, compare_abilities
from causaledit.support.files import read_object
from causaledit.support.statistics import Mean

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def read_ability(folder: Path, *, sequence: bool) -> dict[str, Any] | None:
    """The summary of a run's ability.json; None where it has none.

    Args:
        folder: The run's.
        sequence: Whether the run kept its edits: each of its states then has a row of its own; else one row is over
            all of them, each with its own edits alone.
    """
    data = read_object(folder / "ability.json")
    return summarise_ability(data, sequence=sequence) if data.get("before") else None


def summarise_ability(data: Mapping[str, Any], *, sequence: bool) -> dict[str, Any]:
    """`{"before": …, "after": [{"when", "edits", "tasks", "overall", "drift", "against_before"}, …]}` as plain data."""
    before = Ability.from_dict(data["before"])
    states = {int(key): Ability.from_dict(found) for key, found in (data.get("after") or {}).items()}
    rows = []
    if sequence:
        for edits, found in sorted(states.items()):
            rows.append({"when": f"after {edits} edit{'' if edits == 1 else 's'}", "edits": edits, **_row(found),
                         "against_before": compare_abilities(before, found)})  # fmt: skip
    elif states:
        rows.append(_pooled(before, [states[key] for key in sorted(states)]))
    return {"before": _row(before), "after": rows}


def _row(found: Ability) -> dict[str, Any]:
    return {
        "tasks": {name: found.rate(name).to_dict() for name in found.scores},
        "overall": found.overall.to_dict() if found.scores else None,
        "drift": found.drift and found.drift.to_dict(),
    }


def _pooled(before: Ability, states: list[Ability]) -> dict[str, Any]:
    """Several edits, each undone before the next: every item once per edit. No test: the items are the same ones."""
    tasks = {}
    for name in dict.fromkeys(task for state in states for task in state.scores):
        tasks[name] = _over_states([s.rate(name).rate for s in states if name in s.scores])
    drifts = [state.drift for state in states if state.drift is not None]
    drift = None
    if drifts:
        drift = {
            "tokens": drifts[0].tokens,
            "perplexity": _over_states([d.perplexity for d in drifts])["rate"],
            "kl": _over_states([d.kl for d in drifts])["rate"],
            "same_top": _over_states([d.same_top for d in drifts])["rate"],
        }
    overall = _over_states([state.overall.rate for state in states if state.scores])
    if before.scores and overall["rate"] is not None and before.overall.rate is not None:
        overall["difference"] = overall["rate"] - before.overall.rate
    return {
        "when": f"each edit alone, mean of {len(states)}",
        "edits": len(states),
        "tasks": tasks,
        "overall": overall if before.scores else None,
        "drift": drift,
        "against_before": {},
    }


def _over_states(values: list[float | None]) -> dict[str, Any]:
    return Mean(tuple(value for value in values if value is not None)).to_dict()
