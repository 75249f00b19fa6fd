"""The tables of a comparison as texts, for the terminal and for Markdown. Plain data in, cells out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.judges.recall import recall_note

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Row = "Mapping[str, Any]"
NOTHING = "–"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: What it shows.
        columns: Headings; the first column is the method.
        rows: Cells; the parts of a cell are its value and what qualifies it.
        note: How to read it.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], ...], ...]
    note: str


def tables(data: Mapping[str, Any]) -> list[Table]:
    """The tables of a comparison.

    Args:
        data: The content of compare.json.
    """
    methods, reference = data["methods"], data["reference"]
    recall = recall_note(data["arguments"]["judge"])
    recall = f" SRR: {recall}." if recall else ""
    others = {name: row for name, row in methods.items() if name != reference}
    made = [_table("Figures", _FIGURES, methods, _FIGURES_NOTE + recall)]
    if any(row["paired"] for row in others.values()):
        title = f"Against {reference}, on the cases that both have"
        made.append(_table(title, _PAIRED, others, _PAIRED_NOTE.format(reference=reference) + recall))
    return [*made, _table("Costs", _COSTS, methods, _COSTS_NOTE)]


def problems(data: Mapping[str, Any]) -> list[str]:
    """One line for each method that something went wrong with."""
    return [f"{name}: {row['problem']}" for name, row in data["methods"].items() if row["problem"]]


def markdown(data: Mapping[str, Any]) -> str:
    """The whole comparison as Markdown."""
    arguments, versions = data["arguments"], data["versions"]
    devices = {_device(row["device"]) for row in data["methods"].values() if row["device"]}
    lines = [
        f"# {arguments['model_type']}: {', '.join(data['methods'])}",
        "",
        f"{len(data['cases'])} cases of {arguments['datatype']} (SHA-256 {data['dataset_sha256'][:12]}, selection seed "
        f"{arguments['shuffle_seed']}); probes {', '.join(arguments['probes'])} (version {data['probe_set_version']}), "
        f"at most {arguments['max_new_tokens']} new tokens; judge {arguments['judge']}.",
        f"Run id {data['run_id']}; {'; '.join(sorted(devices)) or 'no device yet'}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}.",
    ]
    for table in tables(data):
        lines += ["", f"## {table.title}", "", _line(table.columns), _line("---" for _ in table.columns)]
        lines += [_line(_in_one_line(cell) for cell in row) for row in table.rows]
        lines += ["", table.note]
    if found := problems(data):
        lines += ["", "## What went wrong", "", *(f"- {_escaped(line)}" for line in found)]
    return "\n".join(lines) + "\n"


def _table(title: str, columns: _Columns, methods: Mapping[str, Any], note: str) -> Table:
    rows = tuple(((name,), *(cell(row) for _, cell in columns)) for name, row in methods.items())
    return Table(title, ("Method", *(heading for heading, _ in columns)), rows, note)


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _in_one_line(cell: Sequence[str]) -> str:
    value, *details = cell
    return _escaped(f"{value} ({'; '.join(details)})" if details else value)


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _device(device: Mapping[str, Any]) -> str:
    known = [device.get("name"), device.get("type"), device.get("dtype")]
    threads = f"{device.get('threads')} threads" if device.get("type") == "cpu" else ""
    return " ".join(str(part) for part in [*known, threads] if part)


# ---- cells -----------------------------------------------------------------------------------------
def percent(share: float) -> str:
    """A share as the tables write it."""
    return f"{100 * share:.1f} %"


def _cases(row: Mapping[str, Any]) -> tuple[str, ...]:
    failed = len(row["failed_cases"])
    told = (f"{failed} failed",) if failed else ()
    return (f"{row['finished_cases']} of {row['cases']}", *told, *((row["status"],) * (row["status"] != "finished")))


def _figure(*path: str) -> Callable[[Mapping[str, Any]], tuple[str, ...]]:
    """A rate or mean with its count, its interval and what was not judged."""

    def cell(row: Mapping[str, Any]) -> tuple[str, ...]:
        figure = _at(row["metrics"], path)
        if figure is None:
            return (NOTHING,)
        single = figure.get("predictions_not_judged")
        missing = f"{figure['not_judged']} not judged" if figure["not_judged"] else ""
        missing = missing or (f"{single} answers not judged" if single else "")
        if figure["rate"] is None:
            return (NOTHING, missing) if missing else (NOTHING,)
        count = f"{figure['hits']}/{figure['total']}" if "total" in figure else f"{figure['n']} cases"
        parts = (percent(figure["rate"]), count, _spread(figure["interval"]), missing)
        return tuple(part for part in parts if part)

    return cell


def _spread(interval: Sequence[float] | None, form: str = ".0f") -> str:
    return "" if interval is None else f"{100 * interval[0]:{form}} to {100 * interval[1]:{form}}"


def _difference(name: str) -> Callable[[Mapping[str, Any]], tuple[str, ...]]:
    """A mean difference of per-case scores, in points."""

    def cell(row: Mapping[str, Any]) -> tuple[str, ...]:
        found = _at(row["paired"], ("differences", name))
        if found is None or found["mean"] is None:
            return (NOTHING,)
        spread = _spread(found["interval"], "+.0f")
        return (f"{100 * found['mean']:+.1f} points", *((spread,) if spread else ()), f"{found['n']} cases")

    return cell


def _paired(name: str) -> Callable[[Mapping[str, Any]], tuple[str, ...]]:
    """Repaired and harmed with the exact McNemar p."""

    def cell(row: Mapping[str, Any]) -> tuple[str, ...]:
        found = _at(row["paired"], ("tables", name))
        if found is None or not found["n"]:
            return (NOTHING,)
        p = "p < 0.001" if found["p"] < 0.001 else f"p {found['p']:.3f}"
        missing = (f"{found['not_judged']} not judged",) if found["not_judged"] else ()
        return (f"+{found['repaired']} −{found['harmed']}", f"of {found['n']}", p, *missing)

    return cell


def _cost(name: str, form: str, factor: float = 1.0) -> Callable[[Mapping[str, Any]], tuple[str, ...]]:
    def cell(row: Mapping[str, Any]) -> tuple[str, ...]:
        value = row["costs"].get(name)
        return (NOTHING,) if value is None else (form.format(value * factor),)

    return cell


def _memory(row: Mapping[str, Any]) -> tuple[str, ...]:
    whole = row["costs"].get("peak_rss_of") == "process"
    return (*_cost("peak_rss_mb", "{:.2f} GB", 1 / 1024)(row), *(("of all so far",) if whole else ()))


def _at(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        data = data.get(key) if data else None
    return data


_Columns = tuple[tuple[str, "Callable[[Mapping[str, Any]], tuple[str, ...]]"], ...]

_FIGURES: _Columns = (
    ("Cases", _cases),
    ("H-Acc", _figure("h_acc")),
    ("M-Acc, mean", _figure("m_acc", "qa")),
    ("M-Acc, any", _figure("m_acc", "any_right_accuracy")),
    ("SRR", _figure("self_refutation", "combined", "conditional")),
    ("SRR, all edits", _figure("self_refutation", "combined", "all_edits")),
    ("Rationale", _figure("rationale")),
    ("Unchanged", _figure("locality", "unchanged")),
    ("Still right", _figure("locality", "still_right")),
)
_FIGURES_NOTE = (
    "Count and 95 % interval (Wilson for shares, bootstrap over cases for means). SRR is over the edits whose hop-wise "
    "answers assert the new answer; where a method asserts little, look at their number. Locality: unchanged answers, "
    "and still right of those right before. Answers of one case hang together, so intervals of rationale and locality "
    "are too narrow."
)
_PAIRED: _Columns = (
    ("H-Acc", _difference("h_acc")),
    ("hop answers", _paired("hop_wise_answers")),
    ("M-Acc, mean", _difference("m_acc")),
    ("M-Acc, any", _paired("any_right_accuracy")),
    ("SRR", _paired("self_refutation.combined")),
    ("SRR, all edits", _paired("self_refutation.combined.all_edits")),
    ("Rationale", _paired("rationale")),
    ("Unchanged", _paired("locality_unchanged")),
    ("Right after", _paired("locality")),
)
_PAIRED_NOTE = (
    "+ repaired: bad with {reference}, good with the method; − harmed: the reverse; of so many pairs; exact "
    "McNemar p. Differences are the method's less {reference}'s, with their bootstrap 95 % interval. M-Acc, any pairs "
    "cases and SRR edits (those that assert the new answer with both); the p of hop answers, rationale and locality is "
    "over single answers, which hang together within a case, and is too small. Nothing is corrected for the number of "
    "tests."
)
_COSTS: _Columns = (
    ("Seconds per edit", _cost("seconds_per_edit", "{:.2f}")),
    ("Median", _cost("median_seconds_per_edit", "{:.2f}")),
    ("As plain tokens", _cost("cost_tokens_per_edit", "{:,.0f}")),
    ("Plain tokens/s", _cost("plain_tokens_per_second", "{:,.0f}")),
    ("Peak memory", _memory),
    ("Peak GPU memory", _cost("peak_gpu_mb", "{:.2f} GB", 1 / 1024)),
    ("Weights changed", _cost("weights_changed", "{:,.0f}")),
    ("Share", _cost("weights_changed_share", "{:.3f} %", 100.0)),
)
_COSTS_NOTE = (
    "Plain tokens: what plain batched generation would give in the seconds of one edit, at the rate measured "
    "in the same run. The mean holds what a method does once (statistics of the keys, unless cached); the median does "
    "not. Memory: the peak of the process while the method edited and was probed, the model included. "
    "Weights changed: parameters whose value differs while a case's edits are in place, mean over cases, and their "
    "share of the model's."
)
