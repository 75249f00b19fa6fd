"""Reading structured replies of chat models: find the JSON, check its form, never guess."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from causaledit.support.json_text import read_json_text

if TYPE_CHECKING:
    from collections.abc import Mapping


def without_thinking(text: str) -> str:
    """A reply without a reasoning model's thoughts before it.

    A template may have opened them already: then the reply holds their end alone. What begins as JSON is no thought,
    whatever it quotes.
    """
    opened = re.sub(r"^\s*<think>.*?</think>\s*", "", text, flags=re.DOTALL)
    if opened != text or text.lstrip().startswith(("{", "```")):
        return opened
    return text.rpartition("</think>")[2].lstrip() if "</think>" in text else text


def parse_json(text: str) -> Any:
    """The JSON object in a reply: the whole text, a fenced block, or the outermost braces; thoughts are left out.

    Raises:
        ValueError: There is none.
    """
    text = without_thinking(text)
    fenced = re.search(r"```(?:json)?\s*(\{.*\})\s*```", text, re.DOTALL)
    start, end = text.find("{"), text.rfind("}")
    for candidate in (text.strip(), fenced.group(1) if fenced else "", text[start : end + 1] if start >= 0 else ""):
        if not candidate:
            continue
        try:
            found = read_json_text(candidate)
        except json.JSONDecodeError:
            continue
        if isinstance(found, dict):
            return found
    raise ValueError("it holds no JSON object")


_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "boolean": bool, "integer": int, "number": (int, float), "array": list, "object": dict,
    "null": type(None),
}  # fmt: skip


def check_schema(data: Any, schema: Mapping[str, Any], where: str = "the reply") -> None:
    """Check types, required keys, `enum` and array items: as much of JSON schema as our prompts use.

    Raises:
        ValueError: Says what does not fit.
    """
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    fits = [isinstance(data, _TYPES[k]) and not (k in ("integer", "number") and isinstance(data, bool)) for k in kinds]
    if kinds and not any(fits):
        raise ValueError(f"{where} is {type(data).__name__}, not {' or '.join(kinds)}")
    if "enum" in schema and data not in schema["enum"]:
        raise ValueError(f"{where} is {data!r}, not one of {', '.join(map(repr, schema['enum']))}")
    if isinstance(data, dict):
        if missing := [key for key in schema.get("required", ()) if key not in data]:
            raise ValueError(f"{where} lacks {', '.join(map(repr, missing))}")
        for key, part in schema.get("properties", {}).items():
            if key in data:
                check_schema(data[key], part, f"{key!r}")
    if isinstance(data, list) and "items" in schema:
        for item in data:
            check_schema(item, schema["items"], f"an item of {where}")
