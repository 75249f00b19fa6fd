"""JSON that others wrote, read into texts that can be written again."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def read_json_text(text: str) -> Any:
    """As `json.loads`, but halves of surrogate pairs are replaced.

    JSON can hold them (a text that was cut within an emoji), UTF-8 and so every file and tokeniser cannot.

    Raises:
        json.JSONDecodeError: It is no JSON.
    """
    data = json.loads(text)
    return well_formed(data) if _SURROGATE.search(text) else data


def well_formed(value: Any) -> Any:
    """A value that was read from JSON, without halves of surrogate pairs."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [well_formed(v) for v in value]
    return {well_formed(k): well_formed(v) for k, v in value.items()} if isinstance(value, dict) else value
