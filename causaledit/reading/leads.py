"""What a short clause without an answer hands on to the clause behind it: a label, a time, a negation.

"Previous answer: X", "Until recently, X" and "not, as often said, X" say of X what the clause in front of it means;
that clause itself takes nothing back.
"""

from __future__ import annotations

from dataclasses import dataclass

from causaledit.reading.acts import Act
from causaledit.reading.dates import is_date, tells_an_event
from causaledit.reading.lexicon import Kind
from causaledit.reading.names import OLD
from causaledit.reading.tokens import Token, has, only
from causaledit.reading.wording import word_set

_LONGEST_LABEL = 5
_LONGEST_INSERTION = 6
_ARTICLES = word_set("a an the")
# a label of something past: by itself, or in front of a word for what was said
_OF_OLD = word_set("old older was prev")
_EARLIER = word_set("old older original initial earlier former previous prior past")
_SAID = word_set("answer value entry fact choice option response information data version record")
# "before", "until" and the like, and what may follow them in a clause of time alone
_UP_TO = frozenset(("before", "until", "till", "up to", "prior", "earlier"))
_THE_TIME = word_set("that then this recently now to the a last year month week decade quite very just few days years")
_COMMON = word_set("myth myths misconception misconceptions")


@dataclass(frozen=True)
class Lead:
    """What a clause hands on.

    Attributes:
        act: What it makes of an answer that follows; none for most clauses.
        bare: Whether only of an answer by itself, as behind "Wrong:"; "Wrong: it is X" corrects what was said before.
        is_label: Whether it is a mere label, which says nothing itself.
        waits: Whether it is a negation that an insertion may part from its name.
        dates: Whether it is a date, which ends no event.
    """

    act: Act | None = None
    bare: bool = False
    is_label: bool = False
    waits: bool = False
    dates: bool = False

    def governs(self, clause: list[Token]) -> Act | None:
        """What the clause behind it says of an answer, where this settles it."""
        if self.act is None or self.waits or has(clause, Kind.NEGATION, Kind.NOW):
            return None
        name = next((i for i, t in enumerate(clause) if Kind.NAME in t), len(clause))
        told = name < len(clause) and clause[name].who != OLD and tells_an_event(clause[:name], clause[name + 1 :])
        if self.dates and told:
            return None
        alone = all(t.text in _ARTICLES or not t.text.isalnum() for t in clause[:name])
        return self.act if alone or not self.bare else None


def lead_of(clause: list[Token], *, colon: bool, before: Lead) -> Lead:
    """What a clause hands on to the next one.

    Args:
        clause: Its tokens.
        colon: Whether it ends in a colon.
        before: What the clause in front of it hands on.
    """
    words = [t for t in clause if any(c.isalnum() for c in t.text)]
    if not words or has(words, Kind.NAME):
        return Lead()
    if colon:
        return _label(words) if len(words) <= _LONGEST_LABEL else Lead()
    if before.waits:  # "and not, as commonly thought, X"
        return Lead(Act.DENY, bare=True) if len(words) <= _LONGEST_INSERTION else Lead()
    if words[-1].text in ("not", "and not"):
        return Lead(Act.DENY, waits=True)
    return Lead(Act.HISTORY, dates=is_date(words)) if is_time_past(words) else Lead()


def _label(words: list[Token]) -> Lead:
    """ "Wrong:", "Previous answer:", "Common misconception:"."""
    past = is_time_past(words)
    if past:
        return Lead(Act.HISTORY, is_label=True)
    words = [t for t in words if t.text not in _ARTICLES]
    if not words or has(words, Kind.SELF, Kind.IS, Kind.NO, Kind.AMEND, Kind.THIS):
        return Lead()
    if any(t.text in _COMMON for t in words):
        return Lead(Act.REPORT, is_label=True)
    texts = [t.text for t in words]
    old = len(words) == 1 and (texts[0] in _OF_OLD or texts[0] in _EARLIER)
    earlier = texts[0] in _EARLIER and texts[-1].split()[-1] in _SAID and len(words) <= 3
    if old or earlier or texts in (["old answer"], ["old entry"], ["previously", "known"]):
        return Lead(Act.HISTORY, bare=True, is_label=True)
    said = [t for t in words if not t.kinds & {Kind.FALSE, Kind.NEGATION} and t.text not in ("common", "popular")]
    if len(said) < len(words) and only(said, Kind.CLAIM, Kind.ANSWER, Kind.AT_TIMES, Kind.QUALITY, Kind.IDEA):
        return Lead(Act.DENY, bare=True, is_label=True)
    return Lead()


def is_time_past(words: list[Token]) -> bool:
    """ "previously", "until recently", "before that", "prior to the update": a time that is over, and nothing else."""
    words = [t for t in words if t.text not in ("and", "but", "just")]
    if not words or has(words, Kind.NEGATION, Kind.SELF, Kind.WAS, Kind.IS, Kind.ANSWER, Kind.ASKED):
        return False
    if only(words, Kind.PAST):
        return all(t.text in _TIMES for t in words)
    if words[0].text in ("in", "during") and has(words, Kind.PAST) and only(words[1:], Kind.PAST, Kind.FIRST):
        return True  # "in former times"
    if words[0].text not in _UP_TO:
        return False
    rest = words[1:]
    if rest and rest[0].text == "to":
        rest = rest[1:]
    if all(t.text in _THE_TIME or t.text.isdigit() for t in rest):
        return True
    # "before the update", but not "before answering" or "before we begin"
    return (
        rest[0].text in ("the", "this", "that")
        and len(rest) == 2
        and rest[1].text.isalpha()
        and not rest[1].text.endswith("ing")
        and not has(rest[1:], Kind.CLAIM, Kind.PERSON, Kind.STEP)
    )


_TIMES = frozenset((
    "formerly", "previously", "once", "originally", "in the past", "back then", "before", "historically",
    "at that time", "centuries ago", "years ago", "for decades", "for a long time", "for years", "at first",
    "initially",
))  # fmt: skip
