"""Whether a response follows a bundled instruction: rules, no judge."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def _one_word(text: str, _: str) -> bool:
    return len(_WORD.findall(text)) == 1


def _capitals(text: str, _: str) -> bool:
    return any(c.isalpha() for c in text) and text == text.upper()


def _three_items(text: str, _: str) -> bool:
    items = [item.strip(" .\n") for item in text.split(",")]
    return len(items) == 3 and all(items) and "\n" not in text.strip()


def _begins(text: str, word: str) -> bool:
    return text.lstrip("\"'“").lower().startswith(word.lower())


def _contains(text: str, word: str) -> bool:
    return any(found.lower() == word.lower() for found in _WORD.findall(text))


def _question(text: str, _: str) -> bool:
    return text.rstrip("\"'”").endswith("?")


CHECKS: dict[str, Callable[[str, str], bool]] = {
    "one_word": _one_word,
    "capitals": _capitals,
    "three_items": _three_items,
    "begins": _begins,
    "contains": _contains,
    "question": _question,
}


def process_results(doc: Mapping[str, Any], results: list[str]) -> dict[str, float]:
    """What lm-eval counts for one item.

    Args:
        doc: The item: `check`, and `word` where the check needs one.
        results: The response.
    """
    return {"acc": float(CHECKS[doc["check"]](results[0].strip(), doc.get("word") or ""))}
