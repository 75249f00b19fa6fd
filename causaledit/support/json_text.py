"""JSON that others wrote, read into texts that can be written again."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def read_json_text(text: str) -> Any:
    """As `json.loads`, but halves of surrogate pairs are replaced, and whatever cannot be read is no JSON.

    JSON can hold such halves (a text that was cut within an emoji), UTF-8 and so every file and tokeniser cannot.

    Raises:
        json.JSONDecodeError: It is no JSON, is nested too deeply, or holds a number of thousands of digits.
    """
    try:
        data = json.loads(text)
        return well_formed(data) if _SURROGATE.search(text) else data
    except json.JSONDecodeError:
        raise
    except RecursionError:  # a model that repeats an opening bracket
        raise json.JSONDecodeError("Nested too deeply", text, 0) from None
    except ValueError:  # the interpreter's limit on the digits of a number
        raise json.JSONDecodeError("A number has too many digits", text, 0) from None


def well_formed(value: Any) -> Any:
    """A value that was read from JSON, without halves of surrogate pairs."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [well_formed(v) for v in value]
    return {well_formed(k): well_formed(v) for k, v in value.items()} if isinstance(value, dict) else value
