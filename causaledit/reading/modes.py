"""In which mode a clause speaks: as the response's own claim, as what others say, or as a supposition."""

from __future__ import annotations

import re
from enum import Enum

from causaledit.reading.lexicon import Kind
from causaledit.reading.tokens import Token, has, index, only
from causaledit.reading.wording import word_set


class Mode(Enum):
    """How a clause is meant; a report or a supposition reaches into the clauses that follow it."""

    CLAIMED = ""
    REPORTED = "reported"
    SUPPOSED = "supposed"


_BE = word_set("is are was were been be gets get")
_SAYS_SO = word_set("call state says say names gives lists shows calls")
_IDEA_VERBS = word_set("that is of was says goes")
_GIVEN = word_set("""
    given named cited listed mentioned confused credited called quoted reported associated linked described
""")
_UNSURE_OF = word_set("""
    confirm verify support accept agree endorse vouch repeat claim pretend say assume believe
""")
_SELF_SAID = word_set("""
    read heard seen saw thought assumed said wrote claimed stated guessed supposed answered think believe
""")
_DO_NOT = ("not be misled", "not be fooled", "not confuse", "not mix")
_PUBLIC = word_set("question prompt premise old older outdated popular legend you your some few others")


def mode_of(clause: list[Token], before: Mode) -> Mode:
    """The mode a clause opens, or the one it stands in.

    Args:
        clause: Its tokens.
        before: The mode of what precedes it.
    """
    if supposes(clause):
        return Mode.SUPPOSED
    if reports(clause):
        return Mode.REPORTED
    if before is Mode.REPORTED and clause[0].text in ("and", "so") and has(clause, Kind.NOW):
        return Mode.CLAIMED
    return before


# an "if" that supposes nothing: it only makes what follows less sure; "not mistaken" is by then "no right"
_COURTESY = re.compile(
    r"(?:(?:and|but|so|well|now) )?if (?:i (?:recall|remember)\b|i am (?:not (?:mistaken|wrong)|no right)"
    r"|i am (?:right|correct)$|memory serves|you ask me|i (?:had|have) to (?:guess|choose|pick|answer|say|decide)"
    r"|i must (?:guess|choose)|asked\b)"
)


def supposes(clause: list[Token]) -> bool:
    """ "if …", "suppose …", "were X the capital": at a clause's start, or an "if" with its subject anywhere."""
    if not has(clause, Kind.NAME) and _COURTESY.match(" ".join(t.text for t in clause)):
        return False
    start = 0
    while start < len(clause) and clause[start].text in ("even", "and", "but", "or", "only", "as", "so", "then", ":"):
        start += 1
    if has(clause, Kind.UNREAL) and clause[0].text == "in":
        return True
    texts = {t.text for t in clause}
    if clause[0].text == "in" and texts & _TOLD and texts & {"you", "your"}:  # "in the story you gave me"
        return True
    if clause[0].text in _SET_IN and not has(clause, Kind.NEGATION):
        opening = {t.text.split()[0] for t in clause[:5]}
        if opening & _PREMISE or (opening & _FICTION and has(clause, Kind.WOULD)):  # "under that premise"
            return True
    if start < len(clause) and Kind.IF in clause[start]:
        return True
    return any(Kind.IF in t and t.text.split()[0] == "if" for t in clause)


def reports(clause: list[Token]) -> bool:
    """Whether others, or the response itself before, are said to say so."""
    if any(t.text.startswith(_DO_NOT) for t in clause):
        return True
    if not has(clause, Kind.NAME) and _sets_aside(clause):
        return False
    return any(_reports_from(clause, i) for i in range(len(clause)))


def _sets_aside(clause: list[Token]) -> bool:
    """ "contrary to what many think", "although some say otherwise": what others say, and what follows is not."""
    first, others = clause[0].text, {t.text for t in clause}
    return first in _AGAINST or (first in _CONCEDING and not others.isdisjoint(_OTHERWISE))


_AGAINST = frozenset(("contrary to", "unlike", "despite", "in spite of", "in contrast to", "regardless", "whatever"))
_CONCEDING = frozenset(("although", "though", "even though", "while"))
_OTHERWISE = word_set("otherwise differently")


def _reports_from(clause: list[Token], i: int) -> bool:
    if clause[i].kinds.isdisjoint(_TRIGGERS) and clause[i].text not in _TRIGGER_WORDS:
        return False
    token, rest = clause[i], clause[i + 1 :]
    following = [t.text for t in rest]
    nxt = following[0] if following else ""
    if Kind.ASIDE in token:
        return True
    superlative = token.text == "most" and i and clause[i - 1].text in ("the", "his", "her", "its", "their")
    if Kind.PEOPLE in token and token.text not in ("he", "she", "they") and not superlative:
        said = _said_at(rest[:7])
        if said >= 0 and not has(rest[:said], Kind.NAME) and not has(clause[max(0, i - 1) : i], Kind.BESIDE):
            return True
    told = nxt == "of" and i > 1 and clause[i - 1].text in ("a", "the") and clause[i - 2].text in _BE
    if Kind.IDEA in token and nxt in _IDEA_VERBS and not told:  # "Hamlet by X is the story of a prince"
        return True
    if token.text in _BE:
        j = 1 if nxt.endswith("ly") or nxt in ("often", "sometimes", "also", "long", "still") else 0
        if j < len(rest) and Kind.SAID in rest[j] and following[j + 1 : j + 3] not in (["to", "be"], ["to", "have"]):
            return True
        if rest and Kind.AT_TIMES in rest[0] and len(rest) > 1 and following[1] in _GIVEN:
            return Kind.ASKED not in rest[1]  # "which sport is he associated with?", "he is often associated with X"
    if Kind.SOURCE in token:
        near = rest[: max(0, index(rest, Kind.NAME)) or 5]
        return any(set(t.text.split()) & _PUBLIC or t.text.startswith(("rumo", "legend")) for t in near)
    if token.text == "my" and rest and Kind.FIRST in rest[0]:  # "my first thought was X"
        return len(rest) > 1 and following[1] in ("thought", "guess", "instinct", "assumption", "impulse", "idea")
    if token.text == "i":
        return _self_said(rest)
    if token.text in ("that", "which", "who"):
        return (following[1] if nxt == "still" and len(rest) > 1 else nxt) in _SAYS_SO
    if Kind.URGED in token and has(clause, Kind.NAME) and not has(clause[max(0, i - 1) : i], Kind.THIS):
        return nxt in ("to", "as") or (
            len(rest) > 1 and nxt in ("me", "him", "her", "us", "them") and following[1] in ("to", "as")
        )
    if Kind.UNABLE in token or (Kind.NEGATION in token and i and clause[i - 1].text in ("would", "will", "do")):
        return nxt in _UNSURE_OF and has(clause[:i], Kind.SELF)
    if token.text in ("given", "named", "cited") and nxt in ("in", "by", "as"):
        return len(rest) > 1 and following[1] in ("some", "few", "many", "several", "old", "older")
    return False


def _said_at(rest: list[Token]) -> int:
    """Where somebody says something, or -1: not in "the athlete associated with X", whose verb is another.

    Nor where just that is asked: "Which sport is he associated with?", "Many associate him with X".
    """
    for i, token in enumerate(rest):
        behind = rest[i + 1].text if i + 1 < len(rest) else ""
        participle = token.text in ("associated", "connected", "linked") and behind in ("with", "to")
        asked = token.text.startswith("associat") and Kind.ASKED in token
        if token.kinds & {Kind.SAY, Kind.ERR} and not participle and not asked:
            return i
    return -1


_SET_IN = word_set("in under given on by")
_PREMISE = word_set("premise hypothesis hypothetical supposition assumption")
_FICTION = word_set("fiction fictional imaginary imagined")
_TOLD = word_set("story scenario text passage article prompt question novel world narrative example")
_TRIGGERS = frozenset((Kind.ASIDE, Kind.PEOPLE, Kind.IDEA, Kind.SOURCE, Kind.URGED, Kind.UNABLE, Kind.NEGATION))
_TRIGGER_WORDS = _BE | {"i", "my", "that", "which", "who", "given", "named", "cited"}


def _self_said(rest: list[Token]) -> bool:
    """ "(I) first thought that": what is reported is no claim of now."""
    before = rest[:4]
    said = next((j for j, t in enumerate(before) if t.text in _SELF_SAID or t.text == "told"), -1)
    if said < 0:
        return False
    if before[said].text in ("think", "believe"):  # "I used to think"
        return said > 0 and Kind.PAST in before[said - 1]
    if before[said].text == "told" and not (said and before[said - 1].text == "was"):
        return False
    return only(before[:said], Kind.PAST, Kind.AUX, Kind.FIRST, Kind.WAS, Kind.NOW, Kind.WOULD) or all(
        t.text in ("had", "have", "first", "initially", "once", "just", "too", "also", "previously")
        for t in before[:said]
    )
