"""The tables of a comparison as texts, for the terminal and for Markdown. Plain data in, cells out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from causaledit.judges.recall import recall_note
from causaledit.metrics.ability import compared_rows
from causaledit.metrics.wording import NOTHING, not_judged, p_value, srr_notes, worded_difference, worded_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    _Row = Mapping[str, Any]
    _Cell = Callable[[_Row], tuple[str, ...]]
    _Columns = tuple[tuple[str, _Cell], ...]


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
    others = {name: row for name, row in methods.items() if name != reference}
    made = [_table("Metrics", _METRICS, methods, _metrics_note(methods))]
    paired, paired_note = _PAIRED, _PAIRED_NOTE
    if names := _portability_names(methods):
        columns = (("Cases", _cases), *((name, _portability(key)) for key, name in names.items()))
        portability = _table("Portability", columns, methods, _PORTABILITY_NOTE)
        of_pairs = tuple((name, _paired(key)) for key, name in names.items())
        alone = data["arguments"].get("protocol") == "portability"  # nothing else was asked
        made = [portability] if alone else [*made, portability]
        paired, paired_note = (of_pairs, _PORTABILITY_PAIRED_NOTE) if alone else ((*_PAIRED, *of_pairs), _PAIRED_NOTE)
    if any(row["paired"] for row in others.values()):
        title = f"Against {reference}, on the cases that both have"
        made.append(_table(title, paired, others, paired_note.format(reference=reference)))
    if any(_at(row["metrics"], ("retention",)) for row in methods.values()):
        made.append(_along_the_sequence(methods))
    if measured := [(name, row["ability"]) for name, row in methods.items() if row.get("ability")]:
        found = compared_rows(measured)
        rows = tuple(((name,), *(cell.parts for cell in cells)) for name, cells in found.rows)
        made.append(Table("Ability", ("Model", *found.columns), rows, _ABILITY_NOTE))
    return [*made, _table("Costs", _COSTS, methods, _COSTS_NOTE)]


def _along_the_sequence(methods: Mapping[str, Any]) -> Table:
    """One row per method and checkpoint."""
    columns = ("Method", "Edits made", "This step's held", "Earlier ones held", "Unchanged", "Still right", "Failed")
    paths = (("current",), ("earlier",), ("locality", "unchanged"), ("locality", "still_right"))
    rows = []
    for name, row in methods.items():
        for found in _at(row["metrics"], ("retention", "checkpoints")) or ():
            cells = [_rate(*path)({"metrics": found}) for path in paths]
            rows.append(((name,), (str(found["edits"]),), *cells, (str(found["failed"]),)))
    return Table("Along the sequence", columns, tuple(rows), _SEQUENCE_NOTE)


def model_line(data: Mapping[str, Any]) -> str:
    """Which model the tables are about, and whose the methods are."""
    model = data.get("model") or {}
    if model:
        what = f"Model {model['name']}, {model['dtype']}, revision {model['revision'][:12]}"
    elif all(row["status"] == "finished" for row in data["methods"].values()):
        what = "Model not loaded: all runs were there"
    else:
        what = "Model not loaded yet"
    theirs = [name for name, row in data["methods"].items() if row.get("method_of") == "easyedit"]
    hosted = f"; methods of EasyEdit: {', '.join(theirs)}" if theirs else ""
    return f"{what}{hosted}."


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
        model_line(data),
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


def _portability_names(methods: Mapping[str, Any]) -> dict[str, str]:
    """Key and name of each score of the portability protocol that some method has."""
    found: dict[str, str] = {}
    for row in methods.values():
        found |= {key: score["name"] for key, score in ((row["metrics"] or {}).get("portability") or {}).items()}
    return found


def _portability(key: str) -> _Cell:
    """A score by the judge, with the paper's match beside it."""

    def cell(row: _Row) -> tuple[str, ...]:
        found = _at(row["metrics"], ("portability", key))
        if found is None:
            return (NOTHING,)
        return (*worded_rate(found["judged"]).parts, f"paper's match {worded_rate(found['paper_match']).value}")

    return cell


# ---- cells -----------------------------------------------------------------------------------------


def _cases(row: _Row) -> tuple[str, ...]:
    parts = [f"{row['finished_cases']} of {row['cases']}"]
    if row["failed_cases"]:
        parts.append(f"{len(row['failed_cases'])} failed")
    if row["status"] != "finished":
        parts.append(row["status"])
    if row.get("in_turn"):
        parts.append("edits in turn")
    return tuple(parts)


def _rate(*path: str) -> _Cell:
    """A rate or mean with its count, its interval and what was not judged."""
    return lambda row: worded_rate(_at(row["metrics"], path)).parts


def _srr(row: _Row) -> tuple[str, ...]:
    """The combined self-refutation rate with the length of its answers; the table's note has the judge's recall."""
    found = _at(row["metrics"], ("self_refutation", "combined"))
    return (NOTHING,) if found is None else worded_rate(found["conditional"], srr_notes(found)).parts


def _metrics_note(methods: Mapping[str, Any]) -> str:
    """How to read the metrics of these methods, and how well their judge finds self-refutations."""
    judges = dict.fromkeys(row["metrics"]["judge"] for row in methods.values() if row["metrics"])
    recalls = [f"The {note}." for judge in judges if (note := recall_note(judge))]
    in_turn = [_IN_TURN_NOTE] if any(row.get("in_turn") for row in methods.values()) else []
    return " ".join([*in_turn, _METRICS_NOTE, *recalls])


def _difference(name: str) -> _Cell:
    """A mean difference of per-case scores, in points."""
    return lambda row: worded_difference(_at(row["paired"], ("differences", name))).parts


def _paired(name: str) -> _Cell:
    """Repaired and harmed with the exact McNemar p."""

    def cell(row: _Row) -> tuple[str, ...]:
        found = _at(row["paired"], ("tables", name))
        if found is None or not found["n"]:
            return (NOTHING,)
        parts = [f"+{found['repaired']} −{found['harmed']}", f"of {found['n']}", f"p {p_value(found['p'])}"]
        if found["not_judged"]:
            parts.append(not_judged(found["not_judged"]))
        return tuple(parts)

    return cell


def _cost(name: str, form: str, factor: float = 1.0) -> _Cell:
    def cell(row: _Row) -> tuple[str, ...]:
        value = row["costs"].get(name)
        return (NOTHING,) if value is None else (form.format(value * factor),)

    return cell


def _memory(row: _Row) -> tuple[str, ...]:
    cell = _cost("peak_rss_mb", "{:.2f} GB", 1 / 1024)(row)
    return (*cell, "of all so far") if row["costs"].get("peak_rss_of") == "process" else cell


def _at(data: Any, path: Sequence[str]) -> Any:
    for key in path:
        data = data.get(key) if data else None
    return data


_METRICS: _Columns = (
    ("Cases", _cases),
    ("H-Acc", _rate("h_acc")),
    ("M-Acc, mean", _rate("m_acc", "qa")),
    ("M-Acc, any", _rate("m_acc", "any_right_accuracy")),
    ("SRR", _srr),
    ("SRR, all edits", _rate("self_refutation", "combined", "all_edits")),
    ("Rationale", _rate("rationale")),
    ("Unchanged", _rate("locality", "unchanged")),
    ("Still right", _rate("locality", "still_right")),
)
_IN_TURN_NOTE = "Edits in turn: the method makes one edit at a time, so those of a case were made one after another."
_METRICS_NOTE = (
    "Count and 95 % interval (Wilson for shares, bootstrap over cases for means). SRR is over the edits whose hop-wise "
    "answers assert the new answer; where a method asserts little, look at their number, and where answers "
    "are short there is little to refute. Locality: unchanged answers, "
    "and still right of those right before. Answers of one case are not independent, so intervals of rationale and "
    "locality are too narrow."
)
_PORTABILITY_NOTE = (
    "By the judge, with count and Wilson 95 % interval; below, the same answers by the paper's match (arXiv "
    "2602.02028): one of right answer and tagged answer stands in the other, and without tags an answer is wrong. "
    "Answers of one case are not independent, so the intervals are too narrow."
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
    "+ repaired: bad with {reference}, good with the method; − harmed: the reverse; the number of pairs; exact "
    "McNemar p. Differences are the method's minus {reference}'s, with their bootstrap 95 % interval. M-Acc, any pairs "
    "cases and SRR edits (those that assert the new answer with both); the p of hop answers, rationale and locality is "
    "over single answers, which are not independent within a case, and is too small. Nothing is corrected for the "
    "number of tests."
)
_PORTABILITY_PAIRED_NOTE = (
    "By the judge. + repaired: wrong with {reference}, right with the method; − harmed: the reverse; the number of "
    "pairs; exact McNemar p over single answers, which are not independent within a case, so that it is too small. "
    "Nothing is corrected for the number of tests."
)
_SEQUENCE_NOTE = (
    "Edits are kept, and all of them are asked again at each checkpoint. Held: most of an edit's hop-wise answers are "
    "right; failed edits are in no rate. Locality is against the unedited model. The tables above are about the last "
    "checkpoint."
)
_ABILITY_NOTE = (
    "Items right, with the paired difference from the unedited model and the exact McNemar p over items. KL per token: "
    "mean KL(before ‖ after) of the next-token distributions on the bundled text, in nats."
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
