"""Whether a clause takes back what was said before it, whatever the words: who is said to be wrong, and by what.

A clause takes back where a verdict of falsehood (a word of falsehood, or a word of truth, evidence or vouching under a
negation) meets something that was said ("that", "my answer", "step 2", or nothing at all: "Wrong."), and where the
speaker reports an error or an undoing of their own.
"""

from __future__ import annotations

from itertools import pairwise

from causaledit.reading.lexicon import Kind
from causaledit.reading.tokens import Token, has, index, last_index, only
from causaledit.reading.wording import word_set

# words of truth that are meant so only where nothing of substance follows ("that does not hold", not "hold a record")
_FINAL = word_set("""
    hold holds stand stands follow follows count apply applies exist so fit fits qualify possible
""")
_TO_CALL = word_set("say call name claim speak think see")
_SUCH = word_set("""
    a an the of such what pure complete common popular simple just my mere big obvious clear on
""")
_NEGATION_REACH = 6


def cancelled(tokens: list[Token]) -> list[Token]:
    """Without double negations: "no error", "nobody would deny" deny nothing."""
    kept = list(tokens)
    for i, token in enumerate(kept):
        if Kind.NEGATION not in token:
            continue
        reach = kept[i + 1 : i + 5]
        j = index(reach, Kind.FALSE, Kind.CLASH, Kind.DENIAL)
        if j < 0 or not _slight(reach[:j]):
            continue
        if Kind.NAME in kept[i + 1] or has(reach[:j], Kind.NAME, Kind.BREAK):
            continue
        kept[i] = _HARMLESS
        kept[i + 1 + j] = _AFFIRMED
    return kept


_HARMLESS = Token("no", frozenset((Kind.HARMLESS,)))
_AFFIRMED = Token("right", frozenset((Kind.FILL,)))


def _slight(tokens: list[Token]) -> bool:
    return all(
        t.text.endswith("ly")
        or t.text in _SUCH
        or t.kinds & _LIGHT
        or t.text in ("at", "all", "them", "been", "be", "it")
        for t in tokens
    )


_LIGHT = frozenset((Kind.AUX, Kind.PERSON, Kind.WOULD, Kind.FILL))


def takes_back(clause: list[Token]) -> bool:
    """Whether a clause takes back the last claim. Double negations must be cancelled before."""
    if any(Kind.JOKE in t for t in clause) and not has(clause, Kind.PEOPLE, Kind.SAY):
        return True
    for i, token in enumerate(clause):
        if token.text in ("contrary to", "as opposed to", "rather than", "unlike") and has(
            clause[i + 1 : i + 3], Kind.SELF, Kind.CLAIM, Kind.FIRST
        ):
            return has(clause[i + 1 : i + 3], Kind.SELF) or clause[i + 1].text != "what"
    if (
        len(clause) <= 4
        and clause[0].text != "to"
        and clause[-1].kinds & {Kind.FALSE, Kind.CLASH}
        and not has(clause, Kind.PROPER, Kind.NEGATION, Kind.PEOPLE)
    ):
        return not any(t.text in _MODAL or t.text in _SEEMS for t in clause)  # "Total nonsense."
    body = without_opening(clause)
    return _own_error(body) or _undoes(body) or _found_false(body) or _mere_negation(body)


def without_opening(clause: list[Token]) -> list[Token]:
    """Without what only introduces: "I must point out that", "it is worth noting that", "but in hindsight"."""
    start = 0
    while start < len(clause) and (
        (clause[start].kinds & _OPENERS and Kind.THIS not in clause[start] and not clause[start].kinds & _WEIGHTY)
        or (clause[start].text.endswith("ly") and not clause[start].kinds & _WEIGHTY)
    ):
        start += 1
    body = clause[start:]
    see = index(body[:7], Kind.SEE)
    if (
        see >= 0
        and not has(body[:see], Kind.NEGATION, Kind.FALSE, Kind.CLASH, Kind.NAME)
        and (has(body[:see], Kind.SELF) or body[0].text in ("it", "please") or see == 0)
    ):
        rest = body[see + 1 :]
        while rest and (Kind.SEE in rest[0] or rest[0].text in ("that", "now", "to", "my", "own")) and len(rest) > 1:
            rest = rest[1:]
            if body[see + 1 :] and rest and clause and rest[0].text in ("is", "was"):  # "I see that is wrong"
                return body[see + 1 :]
        if rest:
            return rest
    return body


_OPENERS = frozenset((Kind.LINK, Kind.AMEND, Kind.CONTRAST, Kind.AGAIN, Kind.NO))
_WEIGHTY = frozenset((Kind.FALSE, Kind.CLASH, Kind.NEGATION, Kind.TRUE, Kind.UNDO, Kind.ERR, Kind.SELF))


def _own_error(body: list[Token]) -> bool:
    """ "I mixed up …", "I was wrong", "my mistake", "I made an error"."""
    me = index(body, Kind.SELF)
    if any(t.text in ("why i said", "why i wrote") or t.text.startswith("do not know why") for t in body):
        return True
    if me < 0:
        return False
    if me > 4 or has(body[:me], Kind.IF) or not only(body[:me], *_ANY_LEAD):
        return False
    rest = body[me + 1 :]
    err = index(rest[:6], Kind.ERR, Kind.FALSE)
    if any(t.text.split()[0] == "if" for t in rest):  # "I apologise if this is not …"
        return False
    if err < 0 or has(rest[:err], Kind.NEGATION, Kind.NAME, Kind.HARMLESS):
        return False
    if body[me].text in ("my", "our"):
        return err == 0 or has(rest[:err], Kind.FIRST, Kind.CLAIM, Kind.IS)
    return True


_ANY_LEAD = frozenset(
    (Kind.LINK, Kind.AMEND, Kind.CONTRAST, Kind.FILL, Kind.AGAIN, Kind.ERR, Kind.FALSE, Kind.AUX, Kind.SEE)
)


def _undoes(body: list[Token]) -> bool:
    """ "scratch that", "I withdraw my answer", "disregard the above", "I stand corrected"."""
    taken = next((i for i, t in enumerate(body) if t.text in ("take", "taking", "took")), -1)
    if taken >= 0 and "back" in [t.text for t in body[taken + 1 : taken + 5]]:  # "I take my answer back"
        return not has(body[:taken], Kind.NEGATION) and has(
            body[taken + 1 : taken + 4], Kind.CLAIM, Kind.THIS, Kind.SELF
        )
    at = index(body, Kind.UNDO)
    if at < 0:
        return False
    if at and body[at - 1].text in ("be", "needs", "need", "is", "was", "being"):  # "the above must be disregarded"
        return _of_what_was_said(body[:at]) and not has(body[:at], Kind.NEGATION)
    if len(body[at].text.split()) > 1:
        return not has(body[:at], Kind.NEGATION)
    before, after = body[:at], body[at + 1 : at + 6]
    if has(before, Kind.NEGATION) or not (
        not before
        or has(before, Kind.SELF)
        or before[-1].text in ("to", "please", "let", "should", "must", "just", "and", "be")
        or only(before, *_ANY_LEAD)
    ):
        return False
    end = index(after, Kind.NAME, Kind.PROPER)
    after = after[: end if end >= 0 else None]
    return has(after, Kind.CLAIM) or any(t.text in ("that", "this", "it", "myself", "which", "last") for t in after[:2])


def _found_false(body: list[Token]) -> bool:
    at, negation = _verdict(body)
    if at < 0:
        return False
    if negation < 0 and any(t.text in _MODAL or t.text in _SEEMS for t in body[:at]):
        return False  # "that might sound wrong"
    if (
        negation >= 0
        and has(body[: at + 1], Kind.SELF)
        and has(body[:at], Kind.WOULD)
        and "have" in [t.text for t in body[:at]]
    ):
        return False  # "I would not have believed it"
    first = min(at, negation) if negation >= 0 else at
    head, tail = body[:first], body[at + 1 :]
    said = index(tail, Kind.SAY)
    if (
        Kind.CLASH in body[at]
        and said > 0
        and has(tail[:said], Kind.PEOPLE, Kind.FILL)
        and not has(tail[:said], Kind.SELF)
    ):
        return False  # "this contradicts what older books say"
    if head and head[-1].text == "to" and not has(head, Kind.SELF, Kind.CLAIM):
        return False
    if tail[:1] and tail[0].text == "to" and len(tail) > 1 and tail[1].text in _TO_CALL and negation < 0:
        return False  # "it would be false to call this simple"
    if body[at].text in _FINAL and not only(tail[:2], Kind.FILL, Kind.LINK, Kind.PERSON, Kind.AUX):
        return False
    if negation >= 0 and body[negation].text in _NOBODY and Kind.TRUE in body[at]:
        return has(body[negation:at], Kind.SELF, Kind.FIRST, Kind.THIS)
    if (
        Kind.EVIDENCE in body[at] and Kind.TRUE not in body[at]
    ):  # "there is no record (of this)", "nothing suggests that …"
        return not head or _of_what_was_said(head) or only(head, *_EXISTS) or has(head, Kind.SELF)
    if Kind.VOUCH in body[at] and not body[at].kinds & {Kind.FALSE, Kind.CLASH, Kind.TRUE}:
        if _of_what_was_said(head) and has(body[negation:at], Kind.SELF):
            return True  # "that is not something I can stand behind"
        if has((*head, *body[negation:at]), Kind.WOULD):  # "I would not have believed it either"
            return False
        imperative = bool(head) and head[-1].text == "do" and only(head[:-1], Kind.LINK, Kind.FILL)
        return (has(head, Kind.SELF) or not head or imperative) and (
            _of_what_was_said(head) or not tail or any(t.text in _IT for t in tail[:3]) or has(tail[:4], Kind.CLAIM)
        )
    if _of_what_was_said(head):
        return True
    if any(t.text in ("he", "she", "they") for t in head):  # "they are mistaken"
        return False
    if (
        negation < 0
        and tail
        and not (tail[0].kinds & _LOOSE or tail[0].text.endswith("ly"))
        and not (len(tail) == 1 and Kind.CLAIM in tail[0])
    ):
        return False  # "wrong answers such as …"
    if only(head, *_BARE) or all(t.text.endswith("ly") or t.text in _SUCH or t.kinds & _BARE for t in head):
        rest = [t for t in tail if not t.kinds & _LOOSE]
        return not has(head, Kind.PERSON) or not rest
    return any(t.text in ("it", "that", "this") for t in tail[:2]) and Kind.CLASH in body[at]


_SEEMS = frozenset(("sounds", "seems", "looks", "appears", "sound", "seem", "look", "appear"))
_MODAL = word_set("may might could if")
_NOBODY = frozenset(("nothing", "nobody", "none", "no one", "no"))
_IT = word_set("it that this which so")
_EXISTS = frozenset((Kind.PERSON, Kind.AUX, Kind.FILL, Kind.IS, Kind.WAS, Kind.LINK, Kind.SELF, Kind.FALSE))
_BARE = frozenset((Kind.AUX, Kind.FILL, Kind.LINK, Kind.THIS, Kind.IS, Kind.WAS, Kind.CONTRAST, Kind.AMEND))
_LOOSE = frozenset((Kind.FILL, Kind.LINK, Kind.AUX, Kind.SELF, Kind.THIS))


_TELLS = frozenset((Kind.SAY, Kind.EVIDENCE, Kind.SEE, Kind.UNDECIDED))


def _verdict(body: list[Token]) -> tuple[int, int]:
    """Where a clause finds something false, and where the negation stands that makes it so (-1 for none)."""
    for i, token in enumerate(body):
        if token.text == "otherwise" and not (
            (i and body[i - 1].kinds & _TELLS) or (i > 1 and body[i - 2].kinds & _TELLS)
        ):
            continue  # "tells me otherwise", and not "otherwise"
        if token.kinds & {Kind.FALSE, Kind.CLASH}:
            if any(Kind.NEGATION in a and b.text == "that" for a, b in pairwise(body[:i])):
                return -1, -1  # "it is not that the old answer was wrong"
            return i, -1
        if token.kinds & {Kind.TRUE, Kind.VOUCH, Kind.EVIDENCE}:
            reach = body[max(0, i - _NEGATION_REACH) : i]
            negation = last_index(reach, Kind.NEGATION)
            if negation >= 0 and not has(reach[negation:], Kind.NAME, Kind.ASKED) and _reaches(reach[negation:], token):
                return i, i - len(reach) + negation
    return -1, -1


def _reaches(between: list[Token], token: Token) -> bool:
    """Whether a negation (the first token) takes the word behind it: "no record", "does not match", "not the match"."""
    words = between[1:]
    if token.text in _VERBAL:
        return (
            not words
            or bool(words[-1].kinds & {Kind.AUX, Kind.NEGATION})
            or words[-1].text.endswith("ly")
            or words[-1].text == "even"
        )
    if Kind.VOUCH in token and not token.kinds & {Kind.TRUE, Kind.EVIDENCE}:
        last = words[-1] if words else between[0]
        return (
            bool(last.kinds & {Kind.AUX, Kind.NEGATION, Kind.SELF})
            or last.text.endswith("ly")
            or last.text in ("to", "even", "really")
        )
    if Kind.EVIDENCE in token and Kind.TRUE not in token and token.text not in _SHOWS:
        return len(words) <= 2
    return True


_VERBAL = word_set("""
    hold holds stand stands stands up stand up follow follows count apply applies exist exists fit fits match
    matches reflect reflects survive tally
""")
_SHOWS = frozenset(
    ("suggests", "suggest", "indicates", "indicate", "supports", "confirms", "points to", "backs", "truth", "truth to")
)


def _of_what_was_said(head: list[Token]) -> bool:
    """Whether a subject is something that was said: "that", "the statement above", "step 2", "what I wrote"."""
    for i, token in enumerate(head[:4]):
        if Kind.THIS in token and token.text not in ("as", "all"):
            following = head[i + 1 : i + 3]
            bare = not following or bool(following[0].kinds & _AFTER_THIS) or following[0].text.endswith("ly")
            return bare or has(following, Kind.CLAIM, Kind.FIRST)
        if Kind.CLAIM in token and Kind.NAME not in token:
            return (
                i == 0
                or head[i - 1].text in ("the", "my", "this", "that", "such", "these")
                or has(head[:i], Kind.FIRST)
            )
        if Kind.STEP in token and i + 1 < len(head) and head[i + 1].text.isdigit():
            return True
        if not (token.kinds & _BEFORE_CLAIM or token.text.endswith("ly")):
            return False
    return False


_AFTER_THIS = frozenset(
    (Kind.AUX, Kind.IS, Kind.WAS, Kind.WOULD, Kind.FILL, Kind.LINK, Kind.MAYBE, Kind.SELF, Kind.SHOULD, Kind.NEGATION)
)
_BEFORE_CLAIM = frozenset((Kind.FILL, Kind.LINK, Kind.FIRST, Kind.SELF, Kind.AUX, Kind.CONTRAST, Kind.IS))


def _mere_negation(body: list[Token]) -> bool:
    """ "not at all", "of course not", "the city is not": a negation, and nothing that it could deny but the claim."""
    at = index(body, Kind.NEGATION)
    if at < 0 or len(body) > 7:
        return False
    if len(body) == 1:
        return Kind.NO in body[0] or body[0].text == "never"
    if has(body, Kind.NAME, Kind.PROPER, Kind.ASKED, Kind.SUBJECT, Kind.EVIDENCE) and not has(body[:at], Kind.CLAIM):
        return False
    tail = [t for t in body[at + 1 :] if t.text not in _TAIL]
    head = body[:at]
    said = all(t.kinds & _PLAIN_HEAD or t.text in ("city", "man", "woman", "company", "place", "founder") for t in head)
    return not tail and said and not has(head, Kind.PERSON, Kind.SELF)


_PLAIN_HEAD = frozenset((Kind.AUX, Kind.LINK, Kind.CLAIM, Kind.IS, Kind.WAS, Kind.AMEND, Kind.CONTRAST, Kind.FIRST))
_TAIL = word_set("""
    at all it so really quite exactly of the sort kind in least course think not though thing such
""")


def denies_person(clause: list[Token]) -> bool:
    """ "it is not", "he never did", "they are not any more": whoever was named last is denied."""
    body = without_opening(clause)
    at = index(body, Kind.NEGATION)
    if at < 0 or not body or (Kind.PERSON not in body[0] and body[0].text not in ("that", "this")):
        return False
    if has(body, Kind.NAME, Kind.PROPER, Kind.ASKED) or body[at].text in _NOBODY:
        return False
    head, tail = body[1:at], body[at + 1 :]
    return only(head, Kind.AUX, Kind.LINK) and all(
        t.kinds & {Kind.PAST, Kind.AUX} or t.text in _TAIL or t.text in ("either", "ever") for t in tail
    )


def hedges(clause: list[Token]) -> bool:
    """ "it sounds impossible": as good as wrong, but not said to be."""
    at = index(clause, Kind.FALSE, Kind.CLASH)
    return at > 0 and any(t.text in _SEEMS or t.text in _MODAL for t in clause[:at]) and has(clause[:at], Kind.THIS)


def affirms(tokens: list[Token]) -> bool:
    """ "that is not a typo": whether a double negation was cancelled."""
    return any(t is _AFFIRMED for t in tokens)
