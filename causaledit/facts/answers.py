"""Whether a response commits to an answer: a pure comparison of texts.

A deterministic reading for training-time checks and for the efficacy benchmark. It knows aliases, and
that naming an answer is not the same as giving it: "not Rome but Paris" does not give Rome.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A sentence with one of these may name the old answer without giving it.
_SUPERSEDED = re.compile(
    r"\b(no longer|not|never|former|formerly|previous|previously|earlier|old|was|were|had been|used to|until|before|"
    r"ended|instead of|rather than|replaced|changed|switched|moved|from|out of date|outdated|once|originally|"
    r"in the past)\b|n['’]t\b",
    re.IGNORECASE,
)
_FINAL_LINE = re.compile(r"^\W*(?:final )?answer\W*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)


def normalise(text: str) -> str:
    """Case, accents and spaces folded, so that "Côte d'Ivoire" matches "cote d'ivoire"."""
    return " ".join(without_accents(text.casefold()).split())


def without_accents(text: str) -> str:
    """Accents and compatibility forms folded, case kept."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def _pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    cleaned = sorted({normalise(n) for n in names if n and n.strip()}, key=len, reverse=True)
    if not cleaned:
        return None
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(n) for n in cleaned) + r")(?!\w)")


def mentions(text: str, names: Iterable[str]) -> bool:
    """Whether one of the names stands in the text as a whole word or phrase."""
    pattern = _pattern(names)
    return bool(pattern and pattern.search(normalise(text)))


def alias_match(response: str, names: Iterable[str]) -> bool:
    """Whether a response names an answer, by any alias: the published tool's quick hit, not a verdict.

    Names match as whole words whatever their case. Codes of up to three letters ("IT", "US", "no") would match
    common words that way: they match as they are written, and only where that has a capital.
    """
    names = [name for name in names if name and name.strip()]
    codes = [name.strip() for name in names if len(name.strip()) <= 3 and name.strip().isascii()]
    if mentions(response, [name for name in names if name.strip() not in codes]):
        return True
    return any(
        re.search(rf"(?<!\w){re.escape(code)}(?!\w)", response)
        for code in codes
        if code.lower() != code or code.isdigit()
    )


def _sentences(text: str, names: Iterable[str]) -> list[str]:
    # a full stop inside a name ("St. Louis") ends no sentence
    for name in (n for n in names if n and "." in n):
        text = re.sub(re.escape(name), lambda m: re.sub(r"\.\s", ".\x00", m.group()), text, flags=re.IGNORECASE)
    parts = re.split(r"(?<=[.!?])\s+|\n+", text)
    return [normalise(p.replace("\x00", " ")) for p in parts if p.strip()]


def commits_to(response: str, answer: Sequence[str], rival: Sequence[str] = ()) -> bool:
    """Whether a response commits to an answer rather than to its rival.

    The rules, in order: a closing `Answer: …` line decides alone; the answer must be named outside a
    direct negation ("not X"); after its last such mention no sentence may give the rival, and none may
    negate the answer. A sentence that marks the rival as superseded ("it used to be …") gives nothing.

    Args:
        response: The model's text.
        answer: The answer and its aliases.
        rival: The answer it must not fall back to (the old one) and its aliases. A rival name that
            contains an answer's name, or the reverse, is told apart by the longer match.
    """
    wanted = _pattern(answer)
    if wanted is None:
        return False
    other = _pattern(set(rival) - set(answer))
    if lines := _FINAL_LINE.findall(response):
        last = normalise(lines[-1])
        return _gives(last, wanted, other)
    given = False
    for sentence in _sentences(response, [*answer, *rival]):
        names_rival = bool(other and other.search(_without_longer(sentence, wanted, other)))
        names_answer = bool(wanted.search(_without_longer(sentence, other, wanted) if other else sentence))
        if names_answer:
            given = _gives(sentence, wanted, other)
        elif names_rival and not _SUPERSEDED.search(sentence):
            given = False
    return given


def _gives(sentence: str, wanted: re.Pattern[str], other: re.Pattern[str] | None) -> bool:
    """Whether one sentence gives the answer: named, not denied, and not as history beside the rival."""
    if other:
        sentence = _without_longer(sentence, other, wanted)
        if other.search(_without_longer(sentence, wanted, other)) and _history(wanted).search(sentence):
            return False
    return bool(wanted.search(sentence)) and not _negated(sentence, wanted)


def _history(name: re.Pattern[str]) -> re.Pattern[str]:
    """ "formerly X", "from X to", "replaced X", "X used to be": X is what it was before."""
    before = r"\b(?:formerly|previously|once|replaced|replaces)\s+(?:the\s+)?" + name.pattern
    before += r"|\bfrom\s+(?:the\s+)?" + name.pattern + r"\s+to\b"
    after = name.pattern + r"\s+(?:used to be|was (?:once|formerly|previously|replaced)|(?:has|had) been)\b"
    return re.compile(f"{before}|{after}")


def _negated(sentence: str, wanted: re.Pattern[str]) -> bool:
    """ "not X", "no longer in X", "isn't the X": a negation right before the answer, and X not given after it."""
    negation = re.compile(
        r"(?:\bnot|\bno longer|\bnever|n['’]t|\brather than|\binstead of)\s+(?:(?!but\b)\w+\s+){0,3}?" + wanted.pattern
    )
    hits = list(negation.finditer(sentence))
    if not hits:
        return False
    rest = sentence[hits[-1].end() :]
    plain = wanted.search(sentence)
    return not wanted.search(rest) and (plain is None or plain.start() >= hits[0].start())


def _without_longer(sentence: str, longer: re.Pattern[str], shorter: re.Pattern[str]) -> str:
    """Blank out matches of `longer` that contain a match of `shorter` ("South Korea" holds "Korea")."""
    return longer.sub(
        lambda m: " " if shorter.search(m.group()) and not shorter.fullmatch(m.group()) else m.group(),
        sentence,
    )
