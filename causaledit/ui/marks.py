"""Where the evidence of verdicts stands in a response."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

LONGEST_LOOSE = 2000  # characters: a longer quotation is looked for letter by letter only

MEANINGS = {
    "assertion": "asserts the new answer",
    "negation": "denies the new answer",
    "final": "what the response ends on",
    "answer": "decides right or wrong",
    "rationale": "decides the rationale",
}


class Piece(NamedTuple):
    """A stretch of a text, with the kinds of evidence that it is part of."""

    text: str
    kinds: tuple[str, ...]


def pieces(text: str, verdicts: Iterable[Mapping[str, Any]]) -> list[Piece]:
    """Cut a response where evidence begins and ends; the pieces together are the text.

    Args:
        text: The response.
        verdicts: As `judges.base.verdict_to_dict`, each with its `task`.
    """
    quotes = [quote for verdict in verdicts for quote in _quotes(verdict)]
    spans = [(kind, place) for kind, quote in quotes if (place := locate(text, quote))]
    edges = sorted({0, len(text), *(edge for _, place in spans for edge in place)})
    return [
        Piece(text[start:end], tuple(dict.fromkeys(kind for kind, (a, b) in spans if a <= start and end <= b)))
        for start, end in itertools.pairwise(edges)
    ]


def _quotes(verdict: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if verdict["task"] == "refutation":
        for kind in ("assertion", "negation", "final"):
            yield kind, verdict.get(f"{kind}_evidence") or ""
    else:
        yield verdict["task"], verdict.get("evidence") or ""


def locate(text: str, quote: str) -> tuple[int, int] | None:
    """Where a quotation stands in a text; a judge's may differ in spacing and case. None where it does not."""
    wanted = quote.strip()
    if not wanted:
        return None
    if (start := text.find(wanted)) >= 0:
        return start, start + len(wanted)
    if len(wanted) > LONGEST_LOOSE:
        return None
    found = re.search(r"\s+".join(re.escape(word) for word in wanted.split()), text, re.IGNORECASE)
    return found and found.span()
