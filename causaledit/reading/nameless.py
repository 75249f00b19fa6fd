"""What a clause without either answer does to whoever was named before it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.reading.denial import of_several
from causaledit.reading.lexicon import Kind
from causaledit.reading.retraction import without_opening
from causaledit.reading.statement import states
from causaledit.reading.tokens import Token, has, index, last_index, only
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from causaledit.reading.question import Question

POSTS = word_set("post position role office title job status honour honor credit distinction name")
_BEFORE_RELATION = word_set("""
    the a an its his her ever even really actually in be been being part of it hold held have had host house
    serve served as called named considered regarded become for to
""")
_BACK = word_set("it this that the there here of a him in at them")
_NOBODY = frozenset(("no", "nothing", "nobody", "none", "no one", "zero", "none of", "not one"))
_NOT_IT = word_set("there him her them that it")


def denies_it(clause: list[Token], question: Question, negated_before: bool) -> bool:
    """ "he did not write it", "it was never the capital", "which rules her out", "not him"."""
    body = without_opening(clause)
    if any(
        Kind.OUT in t and t.kinds & {Kind.UNDO} and (len(t.text.split()) > 2 or has(body, Kind.PERSON)) for t in body
    ):
        return not has(body, Kind.NEGATION)
    if negated_before and clause[0].text == "let alone" and has(clause, Kind.ASKED):
        return True
    at = index(body, Kind.NEGATION)
    if at < 0:
        return False
    tail = body[at + 1 :]
    not_it = body[at].text == "not" and bool(tail) and tail[0].text in _NOT_IT and not has(body[:at], Kind.SELF)
    if not_it and (len(tail) == 1 or tail[1].text in ("city", "country", "man", "woman", "person", "one")):
        return True
    head = body[:at]
    speaks_of = (
        (not head and body[at].text not in _NOBODY)
        or has(head, Kind.PERSON, Kind.THIS)
        or only(head, Kind.AUX)
        or body[at].text in ("nor", "never")
    )
    if has(head, Kind.SELF) or not speaks_of or len(head) > 5:
        return False
    if of_several(body, at):
        return False
    return _denies_relation(tail, question)


def _denies_relation(tail: list[Token], question: Question) -> bool:
    """Whether "(he did) not …" goes on with what was asked: "write the book", "the capital", "held that post"."""
    if has(tail, Kind.ELSE):
        return False
    found = next((i for i, t in enumerate(tail) if Kind.ASKED in t or t.text in POSTS), -1)
    if found < 0 or not all(t.text in _BEFORE_RELATION or t.text in _BACK or Kind.AUX in t for t in tail[:found]):
        return False
    rest = [t for t in tail[found + 1 :] if Kind.ASKED not in t]
    return not rest or rest[0].text in _BACK or Kind.SUBJECT in rest[0] or has(rest[:1], Kind.FILL, Kind.CONTRAST)


def gives_it(clause: list[Token]) -> bool:
    """ "(so) she is the president", "he wrote it"."""
    if has(clause, Kind.NEGATION):
        return False
    i = 0
    while i < len(clause) and clause[i].text in ("and", "so", "but", "thus", "hence"):
        i += 1
    if i >= len(clause) or clause[i].text not in ("he", "she", "it", "that"):
        return False
    rest = clause[i + 1 :]
    if rest and rest[0].text == "is":
        j = 1
        while j < len(rest) and rest[j].text in ("now", "therefore", "thus", "also", "today", "the", "a", "an"):
            j += 1
        # "he is the founder of Rolex" is said of something else
        return j < len(rest) and Kind.ASKED in rest[j] and (has(rest, Kind.SUBJECT) or not has(rest, Kind.PROPER))
    return clause[i].text in ("he", "she") and len(rest) == 2 and Kind.ASKED in rest[0] and rest[1].text == "it"


def other_answer(clause: list[Token]) -> bool:
    """ "the answer is Z", "the capital is Z" with a Z that is neither answer."""
    body = [t for t in clause if t.text not in ("so", "therefore", "thus", "hence", "and", "now")]
    verb = next((i for i, t in enumerate(body) if t.text in ("is", "are")), -1)
    if verb == 1 and Kind.ANSWER in body[0]:
        return _names_another(body[2:])
    if verb < 2 or has(body, Kind.NEGATION) or body[0].text not in ("the", "its", "his", "her", "my"):
        return False
    if not _names_another(body[verb + 1 :]):
        return False
    head = body[1:verb]
    if has(head[:3], Kind.ANSWER):
        return True
    if _is_anothers(head):
        return False
    return Kind.ASKED in head[0] or (len(head) > 1 and not head[0].kinds & {Kind.PROPER} and Kind.ASKED in head[1])


def _is_anothers(head: list[Token]) -> bool:
    """Whether "the … is Z" says of something else what was asked: "the capital of France", "the second largest city".

    Args:
        head: What stands between the article and the verb.
    """
    if any(t.text in _OTHERS or Kind.PAST in t for t in head):
        return True
    owner = head[last_index(head, Kind.ASKED) + 1 :]
    if has(owner, Kind.SUBJECT, Kind.PERSON, Kind.THIS) or any(t.text in _THE_SUBJECT for t in owner):
        return False
    return any(Kind.PROPER in t or (not t.kinds and t.text not in _SMALL) for t in owner)


# what makes another thing of what was asked, or of its subject: "the second city", "the capital of the next country"
_OTHERS = word_set("""
    second third fourth fifth next other another previous former first old smallest neighbour neighbouring neighboring
    parent rival sister
""")
_SMALL = word_set("of in for at on to by the a an its his her their current located based now")
# "the capital of the country" is the subject's
_THE_SUBJECT = word_set("country nation state city town company firm club team book novel film person man woman place")


def states_another(clause: list[Token]) -> bool:
    """ "she is a citizen of Z": a statement of what was asked that gives a name which is neither answer.

    A country beside its city is such a name as well, so this replaces an answer only after second thoughts.
    """
    end = len([t for t in clause if t.text not in (".", "!")])
    start = end
    while start and Kind.PROPER in clause[start - 1]:
        start -= 1
    before = clause[:start]
    if not 0 < end - start <= 4 or not has(before, Kind.ASKED) or has(before, *_NO_STATEMENT):
        return False
    of_whom = has(before, Kind.SUBJECT) or before[0].text in ("he", "she", "it")
    return of_whom and states(before, [], clause[:end])


_NO_STATEMENT = (Kind.NEGATION, Kind.PAST, Kind.WAS, Kind.MAYBE, Kind.AT_TIMES, Kind.IF)


def _names_another(tail: list[Token]) -> bool:
    words = [t for t in tail if t.text not in ("in", "by", "now", "the")]
    return bool(words) and Kind.PROPER in words[0] and len(words) <= 4


def qualifies(clause: list[Token]) -> bool:
    """A negation that comes near what was asked."""
    at = index(clause, Kind.NEGATION)
    if at < 0:
        return False
    return has(clause, Kind.ASKED) or bool(re.match(r"(?:he|she|it|they|this|that|there|is|was)$", clause[0].text))
