"""Whether a clause is a statement of what was asked, or only names an answer on its way.

A response that keeps its answer goes on to name the other one: what lies there, who else lives there, what people
used to think. Only a clause that says of the asked subject what was asked, and hardly anything else, replaces an
answer that stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.reading.lexicon import Kind
from causaledit.reading.tokens import Token, has, index, last_index
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from collections.abc import Iterable

_SUBORDINATE = word_set("because when where whose if who which as since until for")
_OPENING = frozenset((Kind.LINK, Kind.CONTRAST, Kind.AMEND, Kind.AGAIN, Kind.SEE, Kind.NO, Kind.YES))
_ABOUT = frozenset((Kind.ASKED, Kind.SUBJECT))
# "of" and the like behind a word of the relation: whose it is
_OF = word_set("of for in at to on by")
_OF_NOBODY_ELSE = frozenset((Kind.SUBJECT, Kind.PERSON, Kind.NOW, Kind.ASKED))
_REACH = 4


def states(before: list[Token], after: list[Token], clause: list[Token]) -> bool:
    """Whether a clause that asserts an answer states what was asked, of whom it was asked, and little else.

    Args:
        before: The tokens in front of the name, from the name before it or the clause's start.
        after: The tokens behind it.
        clause: All of it.
    """
    if clause[0].text in _SUBORDINATE and not has(clause, Kind.SUBJECT):
        return False
    if has(before, Kind.UNDO):  # "let me correct that to X"
        return True
    lead = _without_opening(before)
    if not lead:
        return _names_then_relation(after)
    return _relation_then_name(lead, after)


def _without_opening(before: list[Token]) -> list[Token]:
    """Without what only leads up to a statement: "so", "I think that", "everybody knows that"."""
    that = last_index(before, Kind.SEE)
    lead = before[that + 1 :] if that >= 0 and not has(before[:that], *_ABOUT) else list(before)
    knows = next((i for i, t in enumerate(lead) if t.text == "that" and i), -1)
    if knows > 0 and not has(lead[:knows], *_ABOUT):
        lead = lead[knows + 1 :]
    while lead and (lead[0].kinds & _OPENING or lead[0].text in ("the", "a", "an")) and not lead[0].kinds & _ABOUT:
        lead = lead[1:]
    return lead


def _names_then_relation(after: list[Token]) -> bool:
    """ "X is the capital", "X wrote it": the relation follows at once, and is nobody else's."""
    if not any(_word(t) for t in after):
        return True
    asked = index(after, *_ABOUT)
    if asked < 0 or asked > _REACH or _foreign(after[:asked]) > 1:
        return False
    end = last_index(after, Kind.ASKED)
    if has(after, Kind.SUBJECT) or end < 0:
        return True
    rest = after[end + 1 :]
    if rest and rest[0].text in _OF:
        owner = next((t for t in rest[1:] if t.text not in ("the", "a", "an", "most", "all")), None)
        return owner is not None and bool(owner.kinds & _OF_NOBODY_ELSE)
    return not any(Kind.PROPER in t for t in rest) and _foreign(rest[:1]) == 0


def _relation_then_name(lead: list[Token], after: list[Token]) -> bool:
    """ "its government sits in X", "it is X": words of the relation outnumber those of anything else."""
    if is_topic(lead):
        return False
    if after and _noun(after[0]) and not has(after[:3], *_ABOUT):  # "a tennis fan"
        return False
    if after[:1] and after[0].text == "as" and has(after[1:4], Kind.ASKED):  # "all give X as his birthplace"
        return True
    foreign = _foreign(lead)
    if Kind.ASKED in lead[0] and lead[-1].kinds & {Kind.IS, Kind.WAS} and foreign == 1:  # "the president of … is X"
        return True
    return foreign == 0 or foreign < sum(bool(t.kinds & _ABOUT) for t in lead)


def is_topic(before: list[Token]) -> bool:
    """ "as for X": only says what comes next."""
    texts = [t.text for t in before if t.text not in ("the", "a", "an")]
    return texts[-2:] in (["as", "for"], ["what", "about"]) or texts[-1:] in (["concerning"], ["regarding"])


def _foreign(tokens: Iterable[Token]) -> int:
    """How many words are about something else."""
    return sum(_noun(t) or _beside(t) for t in tokens)


def _beside(token: Token) -> bool:
    return Kind.BESIDE in token and not token.kinds & _ABOUT and token.text not in ("from", "with")


def _noun(token: Token) -> bool:
    """A word that the lexicon does not know: a name, a thing or a deed of something else."""
    if token.kinds & _ABOUT or not _word(token) or token.text.endswith("ly") or token.text.isdigit():
        return False
    return not token.kinds or token.kinds == {Kind.PROPER}


def _word(token: Token) -> bool:
    return any(c.isalnum() for c in token.text)
