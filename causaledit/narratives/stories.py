"""Background stories, as StoryDistill reads them (arXiv 2602.02028): how they are asked for, and their rules.

A story is a short news report, dated in the near future, that does not name the old answer. Where the new answer is a
person, a biography follows: the person may be invented, the places and institutions of a life are real (FictBio).
"""

from __future__ import annotations

import datetime
import re
from typing import TYPE_CHECKING

from causaledit.facts.answers import name_spans
from causaledit.facts.text import is_spaceless, normalise, strip_html, word_count
from causaledit.narratives.check import MAX_CHARACTERS, MAX_WORDS, wording_failures
from causaledit.narratives.generate import SYSTEM, with_last_try

if TYPE_CHECKING:
    from causaledit.models.chat import Messages
    from causaledit.narratives.cases import ScaffoldEdit
    from causaledit.narratives.generate import Draft

MIN_WORDS = 40
YEARS_AHEAD = 2

_STORY = (
    "Write a short news report.\n\nSubject: {subject}\nFact: {cloze} {new}.\n{facts}{related}\n"
    "The report must\n"
    "- open with the name of a publication and a date in the year {year}, followed by a dash;\n"
    "- say in three or four sentences how it came about that the fact now holds: who decided what, and why;\n"
    "- use the names {subject} and {new} exactly as they are written here;\n"
    "- not name {old}, and not say who or what was there before.\n{biography}"
    "Tell it as a fact: no hedging, no hint that it is invented. Invent no crime, illness or disgrace of a real "
    "person. Write plain text without a headline, and nothing else."
)
_BIOGRAPHY = (
    "After it write a biography of {new} in two or three sentences: where {new} was born, where {new} studied, and for "
    "whom {new} worked before. Towns, universities and employers are real and fit together.\n"
)
_PERSON = re.compile(r"^(?:who|which person|which politician|by whom)\b", re.IGNORECASE)

# for `ExtrasWriter`: what StoryDistill is trained on beside the fact's own question
ASK_QUESTIONS = (
    "A fact has changed. {cloze} {new}.\n{facts}\nWrite {n} different questions with their answers. Each needs this "
    "fact and knowledge of the world besides: it starts from {subject} and goes one or two steps beyond {new}, to "
    "something that you are certain of. Each names {subject}, has exactly one short answer, asks one thing alone, and "
    "uses neither the words {new} nor its own answer. Reply with a JSON object "
    '{"items": [{"question": "...", "answer": "..."}, ...]}.'
)


def names_a_person(edit: ScaffoldEdit) -> bool:
    """Whether the fact's question asks for a person."""
    return bool(_PERSON.match((edit.question or "").strip()))


def story_messages(draft: Draft, facts: str = "") -> Messages:
    """The prompt for a story; after a failed try, with that text and what was wrong with it."""
    edit = draft.edit
    names = {"subject": edit.subject.name, "new": edit.new.name, "old": edit.old.name, "cloze": edit.cloze}
    values = {
        **names,
        "facts": f"Background (true, use some of it):\n{facts}\n" if facts else "",
        "related": "".join(f"Also true from now on, and not to be contradicted: {f}.\n" for f in edit.related),
        "year": str(datetime.datetime.now(datetime.UTC).year + YEARS_AHEAD),
        "biography": _BIOGRAPHY.replace("{new}", edit.new.name) if names_a_person(edit) else "",
    }
    content = re.sub(r"\{(\w+)\}", lambda m: values[m.group(1)], _STORY)
    return with_last_try([{"role": "system", "content": SYSTEM}, {"role": "user", "content": content}], draft)


def story_failures(edit: ScaffoldEdit, text: str) -> list[str]:
    """The rules that a story breaks, as reasons; empty where it passes.

    It must name subject and new answer, and not the old one; be 40 to 260 words (in scripts without spaces up to 1,000
    characters) of whole sentences; begin with a dated source; not hedge; and hold nothing left over from a template or
    a chat reply.
    """
    text = strip_html(text)
    if not text.strip():  # every other rule is broken too, and says nothing more
        return ["the story is empty"]
    failures = []
    words = word_count(text)
    most, unit = (MAX_CHARACTERS, "characters") if is_spaceless(text) else (MAX_WORDS, "words")
    if not MIN_WORDS <= words <= most:
        failures.append(f"it has {words} {unit}, and {MIN_WORDS} to {most} are wanted")
    folded = normalise(text)
    subject, old, new = edit.subject.names, edit.old.names, edit.new.names
    if not name_spans(folded, subject, (*old, *new)):
        failures.append(f"it does not name the subject, {edit.subject.name!r}")
    if not name_spans(folded, new, (*subject, *old)):
        failures.append(f"it does not name the new answer, {edit.new.name!r}")
    if name_spans(folded, old, (*subject, *new)):
        failures.append(f"it names the old answer, {edit.old.name!r}: a story does not say what was there before")
    if not re.search(r"\b20\d\d\b", text[:120]):
        failures.append("it does not open with a publication and a date")
    return [*failures, *wording_failures(edit, text)]
