"""Whether a clause denies an answer that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.reading.lexicon import Kind
from causaledit.reading.tokens import Token, has, index, last_index, only
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from causaledit.reading.question import Question


_WHO = word_set("which who")


def twice_denied(before: list[Token], after: list[Token], question: Question) -> bool:
    """ "it is not true that X did not", "it is wrong to deny that X": both together assert."""
    if before and before[-1].text == "without" and has(before, Kind.NEGATION):  # "you can not make it without X"
        return True
    return _wrong_that(before) and (negated_after(after, question) or has(before, Kind.DENIAL))


def _wrong_that(before: list[Token]) -> bool:
    """ "it is wrong to name X", "it is not true that X": falsehood that ends on the name behind it."""
    at = last_index(before, Kind.FALSE)
    if at < 0:
        for i, token in enumerate(before):
            if Kind.TRUE in token and has(before[max(0, i - 3) : i], Kind.NEGATION):
                at = i
        if at < 0:
            return False
    return all(t.kinds & _AFTER_WRONG or t.text.endswith("ing") for t in before[at + 1 :])


_AFTER_WRONG = frozenset((Kind.FILL, Kind.DENIAL, Kind.SAY, Kind.ASKED, Kind.SUBJECT, Kind.SEE, Kind.AUX, Kind.CLAIM))


def denied_to_have_left(before: list[Token]) -> bool:
    """ "no evidence that it ever left X": X stays."""
    at = index(before, Kind.NEGATION)
    left = index(before, Kind.LEAVE, start=at + 1) if at >= 0 else -1
    return (
        left >= 0 and leads_up(before[left + 1 :]) and has(before, Kind.EVIDENCE, Kind.PERSON, Kind.SUBJECT, Kind.THIS)
    )


def leads_up(between: list[Token]) -> bool:
    """Whether what was left is the name behind these tokens, and not what follows "to"."""
    return only(between, Kind.FILL, Kind.BESIDE) and not any(t.text in ("to", "into", "in", "for") for t in between)


def denied(before: list[Token], after: list[Token], question: Question) -> bool:
    if has(before, Kind.MISUSED) or has(after, Kind.MISUSED):
        return True
    if _rejected(before) or _out_of(before) or any(t.text == "i doubt" for t in before):
        return True
    false = index(after, Kind.FALSE, Kind.OUT, Kind.CLASH)
    if false >= 0 and not _in_relative(after[:false]) and not has(after[max(0, false - 3) : false], Kind.NEGATION):
        return True
    return _wrong_that(before) or negated_before(before) or negated_after(after, question)


def _in_relative(tokens: list[Token]) -> bool:
    return any(t.text in _WHO for t in tokens)


def _rejected(before: list[Token]) -> bool:
    """ "forget X", "rule out X"."""
    at = last_index(before, Kind.UNDO)
    if at < 0 or has(before[:at], Kind.NEGATION) or before[at].text == "make that":
        return False
    return all(
        t.text in ("the", "my", "that", "out", "about", "name", "answer", "option", "word", "linking") or Kind.SAY in t
        for t in before[at + 1 :]
    )


def _out_of(before: list[Token]) -> bool:
    """ "has nothing to do with X", "no ties to X"."""
    at = last_index(before, Kind.OUT)
    return (
        at >= 0
        and before[at].text.startswith(("no", "rule"))
        and only(before[at + 1 :], Kind.FILL, Kind.BESIDE, Kind.THIS)
    )


def negated_before(before: list[Token]) -> bool:
    """ "not (written by) X", with nothing between that would take the negation for itself."""
    at = last_index(before, Kind.NEGATION)
    if at < 0:
        return False
    between = before[at + 1 :]
    if before[at].text == "nothing" and between and not has(between, Kind.EVIDENCE, Kind.ASKED):
        return False
    found = has(between, Kind.EVIDENCE) or (
        has(before[:at], Kind.PERSON) and any(t.text == "there" for t in before[:at])
    )
    if found or (has(before[:at], Kind.SELF) and has(between, Kind.VOUCH)):
        return len(between) <= 12 and not has(between, Kind.QUALITY, Kind.ELSE, Kind.BESIDE)
    if before[at].text == "no" and has(between[:2], Kind.ASKED):  # "no marriage between her and X"
        return only(between, Kind.FILL, Kind.ASKED, Kind.SUBJECT, Kind.BESIDE, Kind.PERSON)
    if len(between) > (2 if before[at].text == "no" else 7):
        return False
    return only(between, Kind.FILL, Kind.ASKED, Kind.SUBJECT, Kind.CITIZEN, Kind.EVIDENCE)


def of_several(tokens: list[Token], at: int) -> bool:
    """ "it is not a single language": a negation at a place that denies no answer, only that it is one thing."""
    alone = tokens[at].text in _NOT_ONE_ALONE and has(tokens[max(0, at - 1) : at], Kind.IS)
    return alone and has(tokens[at + 1 : at + 2], Kind.ASKED)


def negated_after(after: list[Token], question: Question | None) -> bool:
    """ "X is not (the capital)": a negation behind the name that takes what was asked, or nothing else."""
    at = index(after, Kind.NEGATION)
    if at < 0 or of_several(after, at):
        return False
    head = after[:at]
    if len(head) > 6 or not all(t.kinds & _AFTER_NAME or t.text.endswith("ly") for t in head):
        return False
    rest = after[at + 1 :]
    while rest and Kind.NEGATION in rest[0]:
        rest = rest[1:]
    if only(rest, Kind.AUX) or (rest and rest[0].text in ("at", "any more", "ever", "either", "of course", "anymore")):
        return True
    if has(rest, Kind.ELSE):
        return False
    lead = 0
    while lead < len(rest) and rest[lead].text in (
        "a",
        "an",
        "the",
        "be",
        "have",
        "been",
        "is",
        "was",
        "its",
        "his",
        "her",
        "so",
        "very",
        "such",
    ):
        lead += 1
    if lead < len(rest) and Kind.QUALITY in rest[lead] and Kind.ASKED not in rest[lead]:
        return False
    if lead < len(rest) and (Kind.TRUE in rest[lead] or rest[lead].text in _TRUE_WORDS):
        return True
    if question is not None and has(rest[:7], Kind.ASKED):
        return True
    return any(Kind.SUBJECT in t for t in rest[:4]) and only(rest[: index(rest, Kind.SUBJECT)], Kind.FILL)


_NOT_ONE_ALONE = frozenset(("not a single", "not one"))
_AFTER_NAME = frozenset((Kind.AUX, Kind.ASKED, Kind.SUBJECT))


_TRUE_WORDS = word_set("it that this him her there one answer who what where")
