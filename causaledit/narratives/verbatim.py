"""Items of a JSON file read and written back with every other byte as it was."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


_DECODER = json.JSONDecoder()


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def json_items(text: str) -> Iterator[tuple[Any, str]]:
    """The items of a JSON list, each as value and as the very text it stands in.

    Raises:
        ValueError: The text is not a JSON list.
    """
    for value, start, end in _list_spans(text, _skip(text, 0)):
        yield value, text[start:end]


def _list_spans(text: str, at: int) -> Iterator[tuple[Any, int, int]]:
    if text[at : at + 1] != "[":
        raise ValueError("it does not open with '['")
    at = _skip(text, at + 1)
    while text[at] != "]":
        value, end = _DECODER.raw_decode(text, at)
        yield value, at, end
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)


def _member_start(text: str, key: str) -> int:
    """Where the value of a top-level member of a JSON object begins."""
    at = _skip(text, 1)
    while text[at] != "}":
        name, end = _DECODER.raw_decode(text, at)
        at = _skip(text, _skip(text, end) + 1)
        if name == key:
            return at
        _, end = _DECODER.raw_decode(text, at)
        at = _skip(text, end)
        if text[at] == ",":
            at = _skip(text, at + 1)
    raise KeyError(key)


def with_fields(raw: str, additions: Sequence[Mapping[str, Any]]) -> str:
    """Add members to the edits of a case, in its own text: every other byte stays as it was.

    Args:
        raw: The text of one case.
        additions: Per edit, what to add; a key the edit already has is left alone.
    """
    spans = list(_list_spans(raw, _member_start(raw, "requested_rewrite")))
    if len(spans) != len(additions):
        raise ValueError(f"{len(additions)} additions for {len(spans)} edits")
    for (value, start, end), fields in reversed(list(zip(spans, additions, strict=True))):
        inside = raw[start + 1 : _skip(raw, start + 1)]  # the file's own indentation
        new = {k: v for k, v in fields.items() if k not in value}
        close = end - 1
        while raw[close - 1] in " \t\r\n":
            close -= 1
        indent = len(inside) - len(inside.rstrip(" \t")) if "\n" in inside else None
        text = "".join(f",{inside or ' '}{json.dumps(k)}: {_dump(v, indent)}" for k, v in new.items())
        raw = raw[:close] + text + raw[close:]
    return raw


def _dump(value: Any, indent: int | None) -> str:
    if indent is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    return json.dumps(value, ensure_ascii=False, indent=1).replace("\n", "\n" + " " * indent)
