"""The ability of a run's models in words: one row per state of the model, one column per task and measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.ability.bundled import TASKS
from causaledit.metrics.wording import NOTHING, Worded, p_value, percent, worded_difference, worded_rate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ALL = "All items"


@dataclass(frozen=True)
class AbilityTable:
    """What was measured.

    Attributes:
        columns: Tasks, all items together, perplexity, drift.
        rows: The state of the model, and its cells.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Worded, ...]], ...]


def ability_table(summary: Mapping[str, Any]) -> AbilityTable:
    """The table of one run.

    Args:
        summary: From `ability.summary.read_ability`.
    """
    states = [{"when": "before", **summary["before"]}, *summary["after"]]
    names = list(dict.fromkeys(name for state in states for name in state["tasks"]))
    measured: list[tuple[str, Any]] = [(_title(name), lambda s, n=name: _task(s, n)) for name in names]
    if names:
        measured.append((ALL, _overall))
    if any(state["drift"] for state in states):
        measured += [("Perplexity", _drift("perplexity", "{:.2f}")), ("KL per token", _drift("kl", "{:.4f}")),
                     ("Same top token", _drift("same_top", None))]  # fmt: skip
    rows = tuple((state["when"], tuple(cell(state) for _, cell in measured)) for state in states)
    return AbilityTable(tuple(title for title, _ in measured), rows)


def ability_lines(summary: Mapping[str, Any]) -> list[str]:
    """The table as lines of text."""
    table = ability_table(summary)
    lines = []
    for when, cells in table.rows:
        shown = [f"{title} {cell}" for title, cell in zip(table.columns, cells, strict=True) if cell.value != NOTHING]
        lines.append(f"{when}: {'; '.join(shown)}")
    return lines


def compared_rows(named: Sequence[tuple[str, Mapping[str, Any]]]) -> AbilityTable:
    """Several runs in one table; each row is called by its run and the state of its model."""
    tables = [(name, ability_table(summary)) for name, summary in named]
    columns = tuple(dict.fromkeys(column for _, table in tables for column in table.columns))
    rows = []
    for name, table in tables:
        for when, cells in table.rows:
            known = dict(zip(table.columns, cells, strict=True))
            rows.append((f"{name}, {when}", tuple(known.get(column, Worded()) for column in columns)))
    return AbilityTable(columns, tuple(rows))


def _title(name: str) -> str:
    return name.removeprefix("bundled_").capitalize() if name in TASKS else name


def _task(state: Mapping[str, Any], name: str) -> Worded:
    return worded_rate(state["tasks"].get(name))


def _overall(state: Mapping[str, Any]) -> Worded:
    """Over all items, with the paired difference from the model before."""
    if state["overall"] is None:
        return Worded()
    against = (state.get("against_before") or {}).get("all")
    notes: list[str] = []
    if against:
        notes.append(str(worded_difference({**against, "mean": against["difference"]})))
        if against["paired"]:
            notes.append(f"p {p_value(against['paired']['p'])}")
    elif state["overall"].get("difference") is not None:
        notes.append(f"{100 * state['overall']['difference']:+.1f} points")
    return worded_rate(state["overall"], notes)


def _drift(name: str, form: str | None) -> Any:
    def cell(state: Mapping[str, Any]) -> Worded:
        value = (state["drift"] or {}).get(name)
        if value is None:
            return Worded()
        return Worded(percent(value) if form is None else form.format(value))

    return cell
