"""What a text claims about an edit's new answer and its old one: the parts of a trace, a label, a rollout.

Deterministic, and built on one reader (`reading.commitment.gives_answer`): a text is cut into clauses, and each is read
by itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions
from causaledit.facts.text import is_question, without_accents
from causaledit.reading.commitment import gives_answer, read

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest

_STOPS = r"[;:,.!?]+(?:\s+|$)|[。！？；，、]"
_CLAUSE = re.compile(
    rf"{_STOPS}|\s[-–—]\s|\b(?:and|but|while|whereas|although|though)\b",
    re.IGNORECASE,
)
# What follows the last of these is a derivation's conclusion.
_CONCLUSION = re.compile(
    r"[;.!?]+(?:\s+|$)|[。！？；]|\b(?:so|hence|thus|therefore|consequently|but|however|yet|which means)\b",
    re.IGNORECASE,
)
_PAST = re.compile(
    r"\b(?:used to|was|were|had|formerly|former|previous|previously|earlier|once|old|until|before|no longer|not|never|"
    r"instead|rather than|replac\w+|supersed\w+|succeed\w+|moved|left|leaving|lost|gave way|from|over)\b|n't\b",
    re.IGNORECASE,
)
# Words of an answer line that make no claim of their own.
_PLAIN = frozenset([
    "a", "an", "the", "it", "its", "this", "that", "he", "she", "they", "his", "her", "their", "is", "are", "was", "be",
    "been", "has", "have", "now", "new", "current", "currently", "today", "answer", "correct", "final", "of", "in",
    "at", "on", "by", "for", "to", "as", "not", "no", "longer", "never", "rather", "than", "instead", "formerly", "s",
])  # fmt: skip
_ALTERNATIVES = frozenset(("or", "and", "either", "both", "plus", "also"))


def gives_new_answer_alone(line: str, request: EditRequest) -> bool:
    """Whether an answer line says the new answer and claims nothing beside it.

    The fact's own words may stand around it, a title before it or a place behind it ("Rome, Italy"), and at most
    three more.
    """
    if not commits(line, request) or states_old_answer(line, request) or is_question(line):
        return False
    text = without_accents(line)
    for name, mark in ((request.target_new, "@"), (request.ground_truth, " "), (request.subject, " ")):
        if name:
            text = re.sub(re.escape(without_accents(name)), mark, text, flags=re.IGNORECASE)
    text = re.sub(r"(?:\b[A-Z]\w*\.?\s+){0,2}@(?:,\s*[A-Z]\w+(?:\s[A-Z]\w+)?)?", " ", text)
    own = re.findall(r"\w+", without_accents(f"{request.cloze} {request.question_form}").casefold())
    rest = [word for word in re.findall(r"\w+", text) if word.casefold() not in _PLAIN.union(own)]
    others = [word for word in rest if word[0].isupper() or word[0].isdigit()]
    return not others and not _ALTERNATIVES.intersection(rest) and len(rest) <= 3


def commits(text: str, request: EditRequest, *, old: bool = False) -> bool:
    """Whether a text commits to the new answer (or, with `old`, to the old one) rather than to the other."""
    new_names, old_names = [request.target_new], [request.ground_truth or ""]
    text = _without_own_words(text, request)
    answer, rival = (old_names, new_names) if old else (new_names, old_names)
    return gives_answer(text, answer, rival, question=request.question_form)


def states_old_answer(text: str, request: EditRequest) -> bool:
    """Whether one of the text's clauses gives the old answer as a fact of today."""
    old = [request.ground_truth or ""]
    clauses = [clause for clause in _CLAUSE.split(_without_own_words(text, request)) if mentions(clause, old)]
    return any(commits(clause, request, old=True) and not _PAST.search(clause) for clause in clauses)


def past_alone(text: str, request: EditRequest) -> bool:
    """Whether every clause that names the old answer speaks of the past or denies it."""
    old = [request.ground_truth or ""]
    clauses = [clause for clause in _CLAUSE.split(_without_own_words(text, request)) if mentions(clause, old)]
    return all(_PAST.search(clause) for clause in clauses)


def ends_on_old_answer(text: str, request: EditRequest) -> bool:
    """Whether the last that a text says about the two answers is that the old one holds or the new one does not."""
    new, old = [request.target_new], [request.ground_truth or ""]
    parts = _CONCLUSION.split(_without_own_words(text, request))
    conclusions = [part for part in parts if mentions(part, [*new, *old])]
    if not conclusions or commits(conclusions[-1], request):
        return False
    last = conclusions[-1]
    denied = read(last, new=tuple(new), old=tuple(filter(None, old)), question=request.question_form).denied
    return bool(denied) or (commits(last, request, old=True) and not _PAST.search(last))


def _without_own_words(text: str, request: EditRequest) -> str:
    """The text without the fact's own wording, where that holds one of the answers ("Cairo Tower is in …")."""
    for own in (request.question or "", request.cloze, request.subject):
        if mentions(own, [request.target_new, request.ground_truth or ""]):
            text = re.sub(re.escape(own), "it", text, flags=re.IGNORECASE)
    return text
