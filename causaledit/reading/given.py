"""A third answer: one that is neither the new nor the old one, given behind a label or by a correction.

Only a proper name that stands alone behind "Final answer:", in a box or tag for answers, or behind "Correction:" and
the like is taken for one; a statement may be about something else.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.reading.acts import Act, Event
from causaledit.reading.names import MARKS, OTHER
from causaledit.reading.text import plain, spell_out
from causaledit.reading.tokens import tokens_of
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from causaledit.reading.names import Names
    from causaledit.reading.question import Question

_LABELLED = re.compile(
    r"\W*(?:(?:the|so|therefore|thus|hence|my|and)\b\W*){0,2}(?:(?:final|correct|right) )?answer\W{0,3}"
    r"(?::| is\b:?)\W*([^\n]{1,60})$",
    re.I,
)
_BOXED = re.compile(r"\\boxed\{(?:\\text\{)?([^{}\n]{1,60})\}")
_TAGGED = re.compile(r"\W*([^<>\n]{1,60})</answer>\s*$", re.I)
_CORRECTED = re.compile(
    r"\W*(?:(?:wait|no|oh|oops)\b\W*)?(?:actually|correction|sorry|or rather|i mean|i meant)\W+"
    r"(?:it is |it's )?([^\n]{1,60})$",
    re.I,
)
_SMALL = word_set("of the de la del and da do van von du der")
_LONGEST_NAME = 5


def other_given(sentence: str, names: Names, question: Question) -> tuple[Event, ...] | None:
    """The events of a sentence that is nothing but a third answer; None for any other sentence.

    Args:
        sentence: Verbatim.
        names: The answers' names: a sentence with either of them gives no third one.
        question: What is asked.
    """
    text = plain(sentence)
    labelled = _TAGGED.match(sentence) or _BOXED.search(text) or _LABELLED.match(text)
    found = labelled or _CORRECTED.match(text)
    if not found or not _is_a_third_name(found[1].strip(" .,;:!\"'()$"), names, question):
        return None
    if set(names.mark(text).split()) & set(MARKS):
        return None
    given = Event(Act.ASSERT, OTHER)
    return (given,) if labelled else (Event(Act.LEAD_RETRACT, strong=False), given)


def _is_a_third_name(name: str, names: Names, question: Question) -> bool:
    """Whether a text is the name of something that is neither an answer, in part or whole, nor what is asked about."""
    words = name.split()
    if not words or len(words) > _LONGEST_NAME:
        return False
    if not all(re.fullmatch(r"[A-Z][\w'.-]+", w) or w in _SMALL for w in words) or words[0] in _SMALL:
        return False
    own = {part for known in names.marks for part in known.split()}
    if any(w.casefold() in own or question.about(w.casefold()) for w in words if w not in _SMALL):
        return False
    return any(not token.kinds for token in tokens_of(spell_out(name), question))
