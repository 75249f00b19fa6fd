"""Rules for narratives. They cost nothing; `verify` asks a model about the narratives that pass them.

A narrative passes, or fails with a reason that its writer is given for the next try.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from causaledit.facts.answers import name_spans
from causaledit.facts.text import ends_sentence, is_spaceless, normalise, strip_html, word_count

if TYPE_CHECKING:
    from collections.abc import Iterable

    from causaledit.narratives.cases import ScaffoldEdit

MIN_WORDS, MAX_WORDS = 50, 260
MAX_CHARACTERS = 1000  # of a script without spaces, where a character counts as a word

_HEDGES = re.compile(
    r"\b(allegedly|reportedly|supposedly|apparently|presumably|perhaps|possibly|maybe|purportedly|rumou?r(?:s|ed)?|"
    r"hypothetical(?:ly)?|fictional|fictitious|imaginary|counterfactual|alternate (?:history|reality|universe)|"
    r"might (?:be|have|become)|may (?:well|have)|could have been|it is (?:unclear|uncertain|said|believed)|is said to|"
    r"not (?:yet )?(?:been )?confirmed|unconfirmed|if true|as an ai|in this (?:scenario|story|fiction))\b",
    re.IGNORECASE,
)
_LEFTOVERS = re.compile(
    r"\{[^{}]*\}|\[[^\[\]]*\]|<[^<>]*>|\*\*|^#+ |```|\b[QP]\d{2,}\b|\bTODO\b|\bXXX+\b|\bLorem ipsum\b|"
    r"^(?:sure|certainly|of course|here(?: is|'s)|title|headline|narrative|article)\b[^.]{0,60}:",
    re.IGNORECASE | re.MULTILINE,
)


@dataclass(frozen=True)
class Check:
    """The result of checking one narrative.

    Attributes:
        passed: Whether it may be used.
        reason: Why not; empty where it passed.
        by: `rules`, or the name of the verifier that decided.
        flags: The verifier's four judgements, where it was asked.
        fatal: Asking again would not help (the content filter refused).
    """

    passed: bool
    reason: str = ""
    by: str = "rules"
    flags: dict[str, bool] = field(default_factory=dict)
    fatal: bool = False


def rule_failures(edit: ScaffoldEdit, text: str) -> list[str]:
    """The rules that a narrative breaks, as reasons; empty where it passes.

    It must name subject, old and new answer; give the new answer last, and more often than the old one; be
    50 to 260 words (in scripts without spaces 50 to 1,000 characters) of whole sentences; not hedge; and hold nothing
    left over from a template or a chat reply.
    """
    text = strip_html(text)
    if not text.strip():  # every other rule is broken too, and says nothing more
        return ["it is empty"]
    failures = []
    words = word_count(text)
    most, unit = (MAX_CHARACTERS, "characters") if is_spaceless(text) else (MAX_WORDS, "words")
    if words < MIN_WORDS:
        failures.append(f"it has {words} {unit}, and at least {MIN_WORDS} are needed")
    if words > most:
        failures.append(f"it has {words} {unit}, and at most {most} are allowed")
    folded = normalise(text)
    subject, old, new = edit.subject.names, edit.old.names, edit.new.names
    where_old = name_spans(folded, old, (*subject, *new))
    where_new = name_spans(folded, new, (*subject, *old))
    if not name_spans(folded, subject, (*old, *new)):
        failures.append(f"it does not name the subject, {edit.subject.name!r}")
    if not where_old:
        failures.append(f"it does not name the old answer, {edit.old.name!r}")
    if not where_new:
        failures.append(f"it does not name the new answer, {edit.new.name!r}")
    if where_old and where_new:
        if len(where_new) <= len(where_old):
            counts = f"{len(where_new)} times, the old one {len(where_old)} times"
            failures.append(f"the new answer is named {counts}: the new one must be named more often")
        if where_new[-1] < where_old[-1]:
            failures.append("the old answer is named after the new one: the new answer must come last")
    return [*failures, *wording_failures(edit, text)]


def wording_failures(edit: ScaffoldEdit, text: str) -> list[str]:
    """What is wrong with a text's wording, whatever it is to say: hedges, left-overs, half a sentence at the end."""
    failures = []
    bare = _without_names(text, edit.names)
    if hedge := _HEDGES.search(bare):
        failures.append(f"it hedges ({hedge.group()!r}): the change must be stated as a fact")
    if left := _LEFTOVERS.search(bare):
        failures.append(f"{left.group()!r} is left over from a template or a chat reply")
    if not ends_sentence(text):
        failures.append("it does not end with a whole sentence")
    return failures


def _without_names(text: str, names: Iterable[str]) -> str:
    """Names are taken out: a film called "Maybe" or "[REC]" is no hedge and no placeholder."""
    text = unicodedata.normalize("NFC", text)
    for name in sorted({unicodedata.normalize("NFC", n) for n in names if n}, key=len, reverse=True):
        text = re.sub(re.escape(name), "NAME", text, flags=re.IGNORECASE)
    return text
