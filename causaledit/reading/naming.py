"""What a clause says of one answer that it names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from causaledit.reading.acts import Act, Event
from causaledit.reading.dates import BEGINNINGS, DATES, are_over, tells_an_event
from causaledit.reading.denial import denied, denied_to_have_left, leads_up, negated_before, twice_denied
from causaledit.reading.lexicon import Kind
from causaledit.reading.modes import Mode
from causaledit.reading.nameless import POSTS
from causaledit.reading.names import NEW, OLD
from causaledit.reading.question import FOREIGN
from causaledit.reading.statement import is_topic, states
from causaledit.reading.tokens import Token, has, index, last_index, only
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from causaledit.reading.question import Question

_ARTICLES = word_set("the a an its his her all other both")
_COPULA = word_set("""
    is was are were be been became becomes become not never now a an the also actually really as so very
""") | {"one of"}
_DID_IT = word_set("did does is was has wrote made")
_RIGHT_AFTER = word_set("it who what where one")


@dataclass(frozen=True)
class Naming:
    """One answer in its clause.

    Attributes:
        token: The name.
        before: From the name before it, or the clause's start.
        after: To the next name, or the clause's end.
        rest: The clause without any name.
        first: Whether no name precedes it in the clause.
        clause: All of it.
    """

    token: Token
    before: list[Token]
    after: list[Token]
    rest: list[Token]
    first: bool
    clause: list[Token]

    def next_is_denied(self, *, same: bool) -> bool:
        """ "a citizen of X is not a citizen of X", "X, not Y": the negation is the second name's."""
        at = last_index(self.after, Kind.NEGATION)
        return negated_before(self.after) and (same or only(self.after[:at], Kind.AUX))

    def is_told_apart(self, *, same: bool) -> bool:
        """ "X is not Y": says what X is not, and not what it is."""
        at = index(self.after, Kind.NEGATION)
        return not same and at > 0 and has(self.after[:at], Kind.IS, Kind.WAS) and only(self.after[at + 1 :], Kind.FILL)


def stance_of(naming: Naming, question: Question, mode: Mode, lettered: bool) -> tuple[Event, ...]:
    """The events of one naming."""
    who, before, after, rest = naming.token.who, naming.before, naming.after, naming.rest
    claimed = mode is Mode.CLAIMED
    adjective = Kind.ADJECTIVE in naming.token
    if adjective and not _predicated(before, after) and not (question.deed and _by_its_people(before, after)):
        return (Event(Act.MENTION, who),)
    if question.language and _before_its_noun(after, question):  # "a French citizen", "a French film"
        return (Event(Act.MENTION, who),)
    if twice_denied(before, after, question) and claimed:
        return (Event(Act.ASSERT, who),)
    if denied_to_have_left(before):
        return (Event(Act.ASSERT, who), Event(Act.QUALIFY, OLD if who == NEW else NEW))
    if denied(before, after, question):
        if len(after) > 1 and after[0].text in ("in", "of") and Kind.PROPER in after[1]:
            return (Event(Act.MENTION, who),)  # "not the X in Y": another one of the name
        return (Event(Act.DENY, who),)
    if _right(after) and claimed and not has(after, Kind.PAST):
        return (Event(Act.ASSERT, who),)
    if not claimed and has(rest, Kind.SELF):
        return (Event(Act.REPORT, who),)
    if claimed and _did_it(after) and only(before, Kind.LINK):  # "Jazz was."
        return (Event(Act.ASSERT, who),)
    was = who == OLD and not question.past and has(rest, Kind.WAS) and not has(rest, Kind.IS)
    was = was and not (len(before) > 1 and before[-1].text == "by" and Kind.ASKED in before[-2])  # "was launched by X"
    left = last_index(before, Kind.LEAVE)
    if left >= 0 and leads_up(before[left + 1 :]):
        return (Event(Act.HISTORY, who),)
    if _by_another(after):
        return (Event(Act.MENTION, who),)
    if any(t.text.startswith(("not confuse", "not mix", "not to be confused")) for t in rest):
        return (Event(Act.MENTION, who),)
    if _former(naming):
        return (Event(Act.ASSERT, who, strong=False),)
    if who == OLD and old_one(before):
        return (Event(Act.HISTORY, who),)
    past = are_over(rest)
    if past and claimed and tells_an_event(before, after):
        dated = not are_over(rest, but=DATES)
        if dated and who == OLD:  # an edit's story may well date the event that it does away with
            return (Event(Act.ASSERT, who, strong=False),)
        if not dated and who != OLD and not are_over(rest, but=DATES | BEGINNINGS):
            return (Event(Act.ASSERT, who, strong=False),)
        past = not dated
    concedes = naming.clause[0].text in ("while", "although", "though", "even though")
    if concedes and not question.past and has(after[:1], Kind.WAS):
        return (Event(Act.HISTORY, who),)
    if (past or was) and not has(rest, Kind.NOW):
        return (Event(Act.HISTORY, who),)
    if not claimed:
        return (Event(Act.REPORT, who),)
    guessed = any(Kind.MAYBE in t and not (adjective and t.text == "one of") for t in rest)  # "one of the X players"
    if guessed or _possible(rest):
        return (Event(Act.MENTION, who),)
    if _in_passing(before, question):
        return (Event(Act.MENTION, who),)
    event = _assertion(naming, question, lettered)
    if event.act is Act.ASSERT and not _picks(naming) and not states(before, after, naming.clause):
        event = replace(event, aside=True)
    return (event,)


def _before_its_noun(after: list[Token], question: Question) -> bool:
    """ "the French army", "a French-Canadian novel": a nation's adjective, which is spelled as its language is.

    Where the language of something written is asked for, "a French novel" tells it.
    """
    joined = len(after) > 1 and after[0].text == "-"
    word = next(iter(after[joined:]), None)
    if word is None or not word.text[:1].isalpha():
        return False
    if Kind.CITIZEN in word:
        return True
    if question.writing and word.text in _WRITINGS:
        return False
    if word.kinds - _KINDS_OF_NOUNS:
        return word.text in _NOUNS_THAT_FILL
    return word.text not in _BEHIND_A_LANGUAGE and not word.text.endswith("ly")


def _possible(rest: list[Token]) -> bool:
    """ "may (well) be", "could have been", "can be argued"."""
    texts = [t.text for t in rest]
    for i, text in enumerate(texts):
        near = texts[i + 1 : i + 4]
        if text in ("may", "might", "could") and {"be", "have"} & set(near):
            return True
        if (
            text == "can"
            and "be" in near
            and {"argued", "defended", "given", "named", "made"} & set(texts[i + 2 : i + 5])
        ):
            return True
        if text in ("options", "choices", "candidates") and {"are", "include"} & set(near[:1]):
            return True
    return False


def _former(naming: Naming) -> bool:
    """ "he is a former basketball player", "a retired boxer": what has passed is his playing, not his sport."""
    before, after = naming.before, naming.after
    described = before[_described_from(before) :]
    has_been = any(t.text in ("former", "retired") for t in (*before[-1:], *described)) and has(before, Kind.IS)
    does_it = Kind.ADJECTIVE in naming.token and (not after or bool(after[0].kinds) or not after[0].text.isalpha())
    return has_been and (has(after[:1], Kind.ASKED) or does_it)


def in_apposition(before: list[Token]) -> Act | None:
    """What a clause that opens with a name owes to the clause before it: "the old capital, X", "in Y, X"."""
    if has(before, Kind.NAME):
        return None
    if old_one(before) and before[-1].kinds & {Kind.ASKED}:
        return Act.HISTORY
    if any(t.text in _CHANGES for t in before) and _earlier_claim(before):  # "this replaces the earlier answer, X"
        return Act.HISTORY
    other = [t for t in before[1:] if t.text not in ("city", "country")]
    if 1 < len(before) < 4 and Kind.QUALITY in before[0] and not has(other, *_OF_AN_ANSWER):  # "Largest city: X"
        return Act.MENTION
    if Kind.PROPER in before[-1] and FOREIGN.search(" ".join(t.text for t in before)) and not has(before, Kind.ASKED):
        return Act.MENTION
    return None


_CHANGES = word_set("replaces replaced supersedes superseded differs different updates changes overrides")


def _earlier_claim(tokens: list[Token]) -> bool:
    """ "… the earlier answer", at a clause's end."""
    earlier = ("old", "former", "previous", "earlier", "original", "prior")
    return Kind.CLAIM in tokens[-1] and any(t.text.split()[0] in earlier for t in tokens[-2:])


_OF_AN_ANSWER = (
    Kind.ASKED, Kind.SUBJECT, Kind.ANSWER, Kind.CLAIM, Kind.IS, Kind.AMEND, Kind.AGAIN, Kind.SELF, Kind.STEP,
)  # fmt: skip


def old_one(tokens: list[Token]) -> bool:
    """ "the old capital", "the former chief executive"."""
    return any(
        t.text in ("old", "former", "previous", "earlier", "original") and Kind.ASKED in following
        for t, following in pairwise(tokens)
    )


def _predicated(before: list[Token], after: list[Token]) -> bool:
    """Whether an adjective gives the answer: "a Polish citizen", "is (a) Polish (dish)", "Polish nationality"."""
    if has(after[:3], Kind.CITIZEN) or has(before[-3:], Kind.CITIZEN):
        return True
    if not before:
        return not after
    i = _described_from(before)
    while i and (
        before[i - 1].text in _COPULA
        or before[i - 1].text.endswith("ly")
        or before[i - 1].kinds & {Kind.NEGATION, Kind.AUX}
    ):
        i -= 1
    return any(t.text in ("is", "was", "are", "were", "became", "be", "not", "neither", "i") for t in before[i:])


def _described_from(before: list[Token]) -> int:
    """Where the words begin that only describe what is named: "(is a) legendary American (boxer)"."""
    i = len(before)
    while i and len(before) - i < _DESCRIBES and _describes(before[i - 1]):
        i -= 1
    articled = i and before[i - 1].text in ("a", "an", "the", "one of")
    return i if articled else len(before)


_DESCRIBES = 4


def _describes(token: Token) -> bool:
    """A word that may stand between an article and a noun, of which the lexicon knows nothing else."""
    return token.text.replace("-", "").isalpha() and token.kinds <= _OF_A_DESCRIPTION


_OF_A_DESCRIPTION = frozenset((Kind.PROPER, Kind.QUALITY, Kind.FIRST, Kind.PAST, Kind.ASKED))


def _by_another(after: list[Token]) -> bool:
    """'the novel "Emma by X" by Y': it is ascribed to somebody else in the end."""
    words = [t for t in after if t.text.isalnum()]
    return len(words) > 1 and words[0].text == "by" and Kind.PROPER in words[1]


def _by_its_people(before: list[Token], after: list[Token]) -> bool:
    """ "(was developed) by X engineers", "by the X company …": what people of a country do, it does."""
    i = _described_from(before)
    while i and before[i - 1].text in ("a", "an", "the"):
        i -= 1
    done = i > 1 and before[i - 1].text == "by" and Kind.ASKED in before[i - 2]
    return done and bool(after) and after[0].text.isalpha() and not after[0].text.startswith(_AWAY_FROM_IT)


_AWAY_FROM_IT = ("immigrant", "emigrant", "emigre", "exile", "expat", "refugee", "settler", "descend", "born", "and")


def _right(after: list[Token]) -> bool:
    """ "X is right", "X is the answer", "X it is", "X stands"."""
    i = 0
    while i < len(after) and (
        after[i].text
        in ("is", "was", "are", "has been", "must", "be", "would", "indeed", "the", "a", "my", "has", "been")
        or after[i].text.endswith("ly")
    ):
        i += 1
    if i >= len(after):
        return False
    token, copula = after[i], i > 0
    if token.text in ("it", "this", "that") and not copula:
        return i + 1 < len(after) and after[i + 1].text == "is"
    if token.text in ("stands", "holds", "remains") and not copula:
        return i + 1 == len(after) or has(after[i + 1 :], Kind.ASKED, Kind.TRUE, Kind.ANSWER)
    if not copula:
        return token.text in ("right", "correct") and len(after) == 1
    if token.text in ("right", "correct", "best", "final", "true", "only", "the answer", "the right", "the correct"):
        following = after[i + 1 : i + 2]
        return token.text in ("right", "correct", "true", "the answer", "the right", "the correct") or has(
            following, Kind.ANSWER, Kind.CLAIM
        )
    if token.text in _RIGHT_AFTER:  # "X is the one who wrote it", and not "the one who built the cloud"
        rest = [t for t in after[i + 1 :] if t.text not in ("that", "who", "which")]
        concerned = has(rest[:4], Kind.ASKED, Kind.SUBJECT, Kind.TRUE, Kind.SELF)
        return not rest or concerned or only(rest, Kind.FILL, Kind.AUX)
    return Kind.ANSWER in token


def joins(tokens: list[Token]) -> bool:
    """Whether tokens only join names to a list, "for Y, X and Z", which is said of all of them alike."""
    return all(
        t.text in ("and", "or", *_ARTICLES) or t.kinds & {Kind.PROPER, Kind.BREAK} or not any(map(str.isalnum, t.text))
        for t in tokens
    )


def _in_passing(before: list[Token], question: Question) -> bool:
    """ "near X", "a friend of X"."""
    i = len(before)
    while i and before[i - 1].text in _ARTICLES:
        i -= 1
    if not i:
        return False
    beside = before[i - 1]
    if beside.text == "as" and any(t.text == "as" for t in before[: i - 1]):  # "as large as X"
        return True
    if beside.text in ("from", "with") and (
        only(before[: i - 1], Kind.LINK)
        or has(before[:i], Kind.ASKED)
        or (
            i > 1
            and (
                before[i - 2].text in ("is", "was", "are", "be", "been", "he", "she")
                or before[i - 2].text in ("come", "comes", "came", "hail", "hails", "originally", "originates")
            )
        )
    ):
        return False
    if Kind.BESIDE in beside or any(t.text == "without" for t in before):
        return True
    return (
        i > 1
        and Kind.BESIDE in before[i - 2]
        and beside.text not in ("is", "was")
        and len(beside.text.split()) == 1
        and beside.text in ("of", "to")
    )


def _assertion(naming: Naming, question: Question, lettered: bool) -> Event:
    who, before, after, rest = naming.token.who, naming.before, naming.after, naming.rest
    if _limited(after):
        return Event(Act.QUALIFY, who)
    possessed = len(after) > 1 and after[0].text == "'s" and not has(before[-2:], Kind.IS, Kind.WAS)
    if possessed and not after[1].kinds & _BEHIND_S:  # "X's status"
        return Event(Act.MENTION, who)
    if any(t.text == "there" and f.text in ("is", "are") for t, f in pairwise(before)):
        return Event(Act.ASSERT, who, aside=True)
    if _picks(naming):
        return Event(Act.ASSERT, who, bare=lettered)
    asked = has((*before, *after), Kind.ASKED) or any(t.text in POSTS for t in rest)
    if any(t.text.startswith(("speak", "spoke", "use")) for t in rest) and any(t.text in _FEW for t in rest):
        return Event(Act.MENTION, who)
    concerned = asked or has(rest, Kind.SUBJECT) or Kind.ADJECTIVE in naming.token
    if not asked and Kind.ADJECTIVE not in naming.token and FOREIGN.search(" ".join(t.text for t in rest)):
        return Event(Act.MENTION, who)
    lead = list(before)
    while lead and (Kind.LINK in lead[0] or lead[0].text in ("the", "a", "an")) and lead[0].text not in ("that is",):
        lead = lead[1:]
    if not lead:  # the name is the subject of its clause
        if _did_it(after) or has(after, Kind.TAKE_OVER) or _took_over(after):
            return Event(Act.ASSERT, who)
        negation = index(after, Kind.NEGATION)
        if negation >= 0 and not has(after[:negation], Kind.ASKED):
            return Event(Act.QUALIFY, who)
        if has(after, Kind.PARTIAL) or has(after[:1], Kind.WOULD):
            return Event(Act.MENTION, who)
        lies = after[:1] and after[0].text.startswith(("lie", "border", "stretch", "sits", "stand"))
        if lies and not has(rest, Kind.SUBJECT):  # "X lies across the sea": where X is, not what lies in it
            return Event(Act.MENTION, who)
        if (
            has(after[:1], Kind.IS, Kind.WAS)
            and after[1:2]
            and after[1].text in ("at", "on", "with")
            and not has(rest, Kind.SUBJECT)
        ):
            return Event(Act.ASSERT, who, aside=True)
        if _described(after):
            return Event(Act.MENTION, who)
        if concerned and _with_an_object(after):
            return Event(Act.ASSERT, who, aside=True)
        if concerned and not _of_something_else(after, far=not has(rest, Kind.SUBJECT)):
            return Event(Act.ASSERT, who)
        return Event(Act.MENTION, who)
    if has(before, Kind.NEGATION):
        return Event(Act.QUALIFY, who)
    if _of_something_else(after, far=not has(rest, Kind.SUBJECT)):
        return Event(Act.MENTION, who)
    if not asked and _loosely(lead):
        return Event(Act.ASSERT, who, aside=True)
    if concerned or has(lead, Kind.SELF, Kind.THIS, Kind.ANSWER) or _of_a_pronoun(lead):
        return Event(Act.ASSERT, who)
    return Event(Act.ASSERT, who, strong=False)


def _picks(naming: Naming) -> bool:
    """ "X.", "so it is X", "the final answer is X": nothing but the answer."""
    words = [t for t in naming.rest if any(c.isalnum() for c in t.text)]
    said_no = has(naming.after, Kind.NO)  # "X said no"
    alone = only(words, Kind.FILL, Kind.HARMLESS, Kind.NO) and not said_no and not is_topic(naming.before)
    return alone or _explicit(naming.before)


def _loosely(lead: list[Token]) -> bool:
    """ "he corresponded with people at X", "his grave is in X", "there is a X": by its words, about something else."""
    if any(t.text in _POSSESSIVES and not f.kinds & _OF_THE_QUESTION for t, f in pairwise(lead)):
        return True
    if has(lead, Kind.ANSWER, Kind.SELF, Kind.THIS, Kind.SUBJECT):
        return False
    person = next((i for i, t in enumerate(lead) if t.text in ("he", "she", "they")), len(lead))
    return any(not t.kinds and t.text.isalpha() for t in lead[person + 1 :])


_BEHIND_S = frozenset(
    (Kind.ASKED, Kind.SUBJECT, Kind.LINK, Kind.NOW, Kind.NEGATION, Kind.CONTRAST, Kind.TRUE, Kind.FILL)
)
_OF_THE_QUESTION = frozenset((Kind.ASKED, Kind.IS, Kind.WAS, Kind.CLAIM, Kind.SUBJECT, Kind.ANSWER))
_FEW = word_set("few many some several others also")
_PRONOUNS = word_set("here called known what who most people they you everyone we")
_POSSESSIVES = word_set("his her their its")


def _of_a_pronoun(lead: list[Token]) -> bool:
    """ "here X", "his is X"; but "her books sell in X" is said of the books."""
    for token, following in zip(lead, [*lead[1:], None], strict=True):
        if token.text in _PRONOUNS or (Kind.PERSON in token and token.text not in _POSSESSIVES):
            return True
        if token.text in _POSSESSIVES and (
            following is None or following.kinds & {Kind.ASKED, Kind.IS, Kind.WAS, Kind.CLAIM}
        ):
            return True
    return False


def _limited(after: list[Token]) -> bool:
    """ "X is only …"."""
    at = index(after, Kind.ONLY)
    if at < 0:
        return False
    return only(after[:at], Kind.AUX, Kind.IS, Kind.WAS) or at == len(after) - 1


def _explicit(before: list[Token]) -> bool:
    """ "the final answer is X"."""
    at = last_index(before, Kind.ANSWER)
    if at < 0 or has(before[at:], Kind.NEGATION):
        return False
    return before[-1].text in ("is", "be", "remains", "now") or at == len(before) - 1


def _did_it(after: list[Token]) -> bool:
    texts = [t.text for t in after]
    return bool(texts) and texts[0] in _DID_IT and texts[1:] in ([], ["it"], ["so"], ["that"], ["the", "one"])


def _described(after: list[Token]) -> bool:
    """ "X is an industrial city": says what X is, and gives it as no answer."""
    if has(after, Kind.SUBJECT) or not has(after[:1], Kind.IS, Kind.WAS) or after[1:2] == []:
        return False
    asked = [t.text for t in after if Kind.ASKED in t]
    return after[1].text in ("a", "an", "one") and bool(asked) and set(asked) <= _SORTS


def _with_an_object(after: list[Token]) -> bool:
    """ "X develops games": what was asked, but with an object of its own."""
    if has(after, Kind.SUBJECT) or not after or Kind.ASKED not in after[0] or after[0].kinds & {Kind.IS, Kind.WAS}:
        return False
    return len(after) > 1 and not after[1].kinds and after[1].text.isalpha()


_KINDS_OF_NOUNS = {Kind.PROPER, Kind.PEOPLE, Kind.PARTIAL, Kind.SOURCE, Kind.CLAIM, Kind.IDEA, Kind.STEP}
_WRITINGS = word_set(
    "poem poems poetry novel novels prose verse text texts literature play book books writing original"
)
# what the lexicon has as a filling, and is a noun behind an adjective
_NOUNS_THAT_FILL = word_set("city country name letter record work works credit sign evidence way chance option play")
# what may stand behind the name of a language: words for a language, verbs, and what goes on
_BEHIND_A_LANGUAGE = word_set("""
    language languages tongue tongues dialect dialects script alphabet vernacular grammar continues continued keeps
    kept serves serve served serving remains remain remained enjoys enjoyed holds held predominates predominated
    dominates dominated prevails prevailed gained functions functioned functioning acts acted stands stood ranks
    ranked replaced evolved developed originated belongs belonged counts counted exists existed survives survived
    may might shall too alone daily everyday well fluent together alongside along among amongst throughout besides
    like that which who whose when where while whereas although though because since until unless if so or plus via
    per
""")
_SORTS = word_set("city country continent language sport town region")


def _took_over(after: list[Token]) -> bool:
    """ "X took office", "X has taken its place", "X replaced him"."""
    texts = [t.text for t in after[:6]]
    for i, text in enumerate(texts):
        behind = texts[i + 1 : i + 4]
        if text in ("took", "takes", "taken") and set(behind) & _OFFICES:
            return True
        if text in ("replaced", "replaces", "succeeded", "succeeds", "followed") and set(behind[:1]) & _WHOM:
            return True
    return False


_OFFICES = word_set("over office oath throne chair place role seat job post helm")
_WHOM = word_set("it him her them")


def _of_something_else(after: list[Token], far: bool) -> bool:
    """ "X wrote Brave New World", "X is the head of Microsoft": what was asked, but of another subject."""
    at = last_index(after, Kind.ASKED)
    if at < 0 or has(after, Kind.SUBJECT):
        return False
    rest = after[at + 1 :]
    while far and rest and rest[0].text in ("the", "a", "of", "in", "for", "at", "to"):
        rest = rest[1:]
    return bool(rest) and Kind.PROPER in rest[0]
