"""When words of the past make an answer history, and when they only say when, or for how long.

"Cairo was the capital in that era" is over. "Emma was written by X in the Regency era" is not: what was written,
founded or born once stays so. And what "has been the capital for decades" still is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.reading.lexicon import Kind
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.reading.tokens import Token

# what ends no event
DATES = frozenset((
    "era", "times", "before", "years ago", "centuries ago", "at that time", "early years", "in his youth",
    "in her youth", "as a child",
))  # fmt: skip
# what leaves open whether something else came after it
BEGINNINGS = frozenset(("originally", "initially", "historically", "in the past"))
_SPANS = frozenset(("for decades", "for a long time", "for years"))
# what happens once and is not undone; making and producing go on, and end
_EVENTS = word_set("""
    authored began born built co-founded coined composed conceived created designed developed devised died directed
    discovered drew drawn established filmed formed founded invented isolated launched originated painted penned
    published recorded sculpted started written wrote
""")
_TO_THE_NAME = word_set("by in at of the a an country city town nation state present-day")
_BEFORE_THE_VERB = word_set("also first himself herself itself themselves and his her team")
_SUBORDINATE = word_set("before after until till when since while")


def are_over(rest: Sequence[Token], *, but: frozenset[str] = frozenset()) -> bool:
    """Whether words of a clause, without its names, put what it says into the past.

    Args:
        rest: The words.
        but: Those that do not, such as `DATES` where an event is told.
    """
    return any(_is_past(t) for t in rest if t.text not in but and not (t.text in _SPANS and _lasts(rest)))


def is_date(words: Sequence[Token]) -> bool:
    """ "Years ago", "at that time", "historically": what ends no event, and nothing else."""
    return bool(words) and all(t.text in DATES | BEGINNINGS for t in words)


def tells_an_event(before: Sequence[Token], after: Sequence[Token]) -> bool:
    """Whether an answer is what an event is told of: "written by X", "born in X", "X founded it".

    Args:
        before: What stands in front of the answer, in its clause.
        after: What stands behind it.
    """
    texts = [t.text for t in before]
    if "to" in texts and {"have", "has"} & set(texts):  # "is believed to have been written by X"
        return False
    verb = next((t for t in reversed(before) if t.text not in _TO_THE_NAME), None)
    if verb is not None and verb.text in _EVENTS and verb is not before[-1]:
        return True
    told = next((t for t in after if t.text not in _BEFORE_THE_VERB), None)
    return told is not None and told.text in _EVENTS and not any(t.text in _SUBORDINATE for t in before[-1:])


def _is_past(token: Token) -> bool:
    return Kind.PAST in token and Kind.ASKED not in token


def _lasts(rest: Sequence[Token]) -> bool:
    """Present perfect: "has been", "have followed"."""
    texts = [t.text for t in rest]
    return bool({"has", "have"} & set(texts)) and "had" not in texts
