"""What a file looks like that is no JSON list of entries: a table, JSON lines, a list inside an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from causaledit.mquake.forms import form_of
from causaledit.support.json_text import read_json_text
from causaledit.support.paths import expanded

if TYPE_CHECKING:
    from pathlib import Path

_READ = 1 << 20
_AS_LIST = "write its entries as one JSON list"


def looks_like(path: str | Path) -> str:
    """A sentence, with a space before it, about a file that is no JSON; empty where it resembles nothing known."""
    try:
        with expanded(path).open("rb") as stream:
            head = stream.read(_READ)
    except OSError:
        return ""
    if head[:4] == b"PAR1":
        return f" It looks like Parquet: {_AS_LIST} (`datasets.load_dataset(…).to_json(FILE, lines=False)`)."
    lines = [line for line in head.decode("utf-8-sig", errors="replace").split("\n") if line.strip()]
    first = [_entry(line) for line in lines[:2]]
    if first and all(entry is not None for entry in first):
        return f" It looks like JSON lines{_of_form(first)}: {_AS_LIST}."
    if len(lines) > 1 and not lines[0].lstrip().startswith(("[", "{", "<")):
        for name, mark in (("tab-separated values", "\t"), ("CSV", ",")):
            if mark in lines[0] and mark in lines[1]:
                return f" It looks like {name}: {_AS_LIST}."
    return ""


def looks_inside(data: Any) -> str:
    """As `looks_like`, about JSON that is an object."""
    if not isinstance(data, Mapping):
        return ""
    for key, value in data.items():
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return f" Its {key!r} looks like a list of entries{_of_form(value)}: give that list alone."
    values = list(data.values())
    if values and all(isinstance(value, Mapping) for value in values):
        return f" It looks like entries by their ids{_of_form(values)}: {_AS_LIST}."
    return f" It looks like one entry{_of_form([data])}: put it into a list." if _of_form([data]) else ""


def _entry(line: str) -> Mapping[str, Any] | None:
    try:
        found = read_json_text(line)
    except ValueError:
        return None
    return found if isinstance(found, Mapping) else None


def _of_form(entries: Any) -> str:
    form = form_of(entries)
    return f" of the form {form.name}" if form is not None else ""
