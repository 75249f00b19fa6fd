"""A sentence as a list of typed tokens: the form in which every rule reads it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from causaledit.reading.lexicon import LEXICON, Kind
from causaledit.reading.names import ADJECTIVES, MARKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from causaledit.reading.question import Question

_WORD = re.compile(r"'s(?!\w)|\.\.\.|[^\W_]+(?:['’-][^\W_]+)*(?:'(?=\s))?|[^\w\s]")
_PREFIX = 3


@dataclass(frozen=True, slots=True)
class Token:
    """One word, or one wording that is read as a whole.

    Attributes:
        text: As spelled out.
        kinds: What it does.
        who: The mark of the answer it names, or empty.
    """

    text: str
    kinds: frozenset[Kind]
    who: str = ""

    def __contains__(self, kind: Kind) -> bool:
        return kind in self.kinds


class _Lexicon:
    """The wordings of `LEXICON`, found by their first word or, for open endings, by its first letters."""

    def __init__(self) -> None:
        self.closed: dict[str, list[tuple[list[str], Kind]]] = {}
        self.open: dict[str, list[tuple[list[str], Kind]]] = {}
        self.of = lru_cache(maxsize=16_384)(self._of)  # texts repeat their words
        for kind, block in LEXICON.items():
            for wording in re.split(r"\n|\|", block):
                if words := wording.split():
                    first = words[0]
                    table, key = (self.open, first[:_PREFIX]) if first.endswith("*") else (self.closed, first)
                    table.setdefault(key, []).append((words, kind))

    def longest(self, words: Sequence[str], start: int) -> tuple[int, frozenset[Kind]]:
        """How many words the longest wording at a place takes, and its kinds."""
        single, longer = self.of(words[start])
        length, kinds = 1, single
        for wording, kind in longer:
            n = len(wording)
            if n < length or start + n > len(words):
                continue
            if all(_fits(w, words[start + i]) for i, w in enumerate(wording)):
                kinds = kinds | {kind} if n == length else frozenset((kind,))
                length = n
        return length, kinds

    def _of(self, word: str) -> tuple[frozenset[Kind], tuple[tuple[list[str], Kind], ...]]:
        """The kinds of a word by itself, and the longer wordings that open with it."""
        fitting = [
            (wording, kind)
            for wording, kind in (*self.closed.get(word, ()), *self.open.get(word[:_PREFIX], ()))
            if _fits(wording[0], word)
        ]
        single = frozenset(kind for wording, kind in fitting if len(wording) == 1)
        return single, tuple(pair for pair in fitting if len(pair[0]) > 1)


def _fits(wording: str, word: str) -> bool:
    return word.startswith(wording[:-1]) if wording.endswith("*") else word == wording


@cache
def _lexicon() -> _Lexicon:
    return _Lexicon()


def tokens_of(text: str, question: Question, proper: frozenset[str] = frozenset()) -> list[Token]:
    """Cut a sentence into tokens.

    Args:
        text: Spelled out, with the answers' names as marks.
        question: Whose words are typed as asked about.
        proper: Folded words that are names of something else.
    """
    words = _WORD.findall(text)
    found: list[Token] = []
    lexicon = _lexicon()
    titles = _titles_of(question)
    i = 0
    while i < len(words):
        word = words[i]
        if word in MARKS:
            found.append(Token(word, _ADJECTIVE if word in ADJECTIVES else _NAME, MARKS[word]))
            i += 1
            continue
        if title := next((t for t in titles if words[i : i + len(t)] == t), None):
            found.append(Token(" ".join(title), _SUBJECT))
            i += len(title)
            continue
        length, kinds = lexicon.longest(words, i)
        wording = " ".join(words[i : i + length])
        concerns = _concerns(wording, question)
        named = _PROPER if word in proper else _NONE
        if length == 1 and (named or Kind.SUBJECT in concerns):
            kinds -= _NOT_OF_A_NAME  # "Pulp Fiction" is no fiction
        found.append(Token(wording, kinds | concerns | named))
        i += length
    return found


_NAME, _ADJECTIVE = frozenset((Kind.NAME,)), frozenset((Kind.NAME, Kind.ADJECTIVE))
_NOT_OF_A_NAME = frozenset(
    (Kind.FALSE, Kind.CLASH, Kind.TRUE, Kind.UNDO, Kind.ERR, Kind.BESIDE, Kind.PAST, Kind.EVIDENCE)
)
_PROPER, _NONE = frozenset((Kind.PROPER,)), frozenset[Kind]()


@lru_cache(maxsize=1024)
def _titles_of(question: Question) -> list[list[str]]:
    """The words of each title of the question that would say something if they were not a title, longest first."""
    titles = [_WORD.findall(title) for title in question.titles]
    speaking = (
        words
        for words in titles
        if any(not _lexicon().longest(words, i)[1].isdisjoint(_SPEAKING) for i in range(len(words)))
    )
    return sorted(speaking, key=len, reverse=True)


_SUBJECT = frozenset((Kind.SUBJECT,))
_SPEAKING = frozenset((
    Kind.NEGATION, Kind.NO, Kind.IF, Kind.WOULD, Kind.MAYBE, Kind.SELF, Kind.AGAIN, Kind.CONTRAST, Kind.UNDO,
    Kind.AMEND, Kind.PEOPLE, Kind.SAY, Kind.FALSE, Kind.LEAVE,
))  # fmt: skip


@lru_cache(maxsize=8192)
def _concerns(wording: str, question: Question) -> frozenset[Kind]:
    kinds = set()
    if question.asked.search(wording):
        kinds.add(Kind.ASKED)
    if question.subject.search(wording):
        kinds.add(Kind.SUBJECT)
    return frozenset(kinds)


def has(tokens: Iterable[Token], *kinds: Kind) -> bool:
    """Whether any token is of one of the kinds."""
    return any(not token.kinds.isdisjoint(kinds) for token in tokens)


def index(tokens: Sequence[Token], *kinds: Kind, start: int = 0) -> int:
    """The place of the first token of one of the kinds, or -1."""
    return next((i for i in range(start, len(tokens)) if not tokens[i].kinds.isdisjoint(kinds)), -1)


def last_index(tokens: Sequence[Token], *kinds: Kind) -> int:
    """The place of the last token of one of the kinds, or -1."""
    return next((i for i in reversed(range(len(tokens))) if not tokens[i].kinds.isdisjoint(kinds)), -1)


def only(tokens: Iterable[Token], *kinds: Kind) -> bool:
    """Whether every token is of one of the kinds."""
    return all(not token.kinds.isdisjoint(kinds) for token in tokens)
