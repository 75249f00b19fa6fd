"""What one sentence says about the two answers, as a list of events.

A sentence is read clause by clause: who is named, and whether the naming asserts, denies, reports, asks, guesses or
remembers. What needs the sentences before it ("that is wrong") is left to `commitment`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from causaledit.facts.text import is_question
from causaledit.reading.acts import Act, Event
from causaledit.reading.clauses import clauses, settle
from causaledit.reading.foreign import foreign_events
from causaledit.reading.given import other_given
from causaledit.reading.lexicon import Kind
from causaledit.reading.modes import Mode, mode_of
from causaledit.reading.nameless import denies_it, gives_it, other_answer, qualifies, states_another
from causaledit.reading.names import MARKS, NEW, OLD, OTHER
from causaledit.reading.naming import Naming, in_apposition, joins, stance_of
from causaledit.reading.retraction import affirms, cancelled, denies_person, hedges, takes_back
from causaledit.reading.text import plain, spell_out
from causaledit.reading.tokens import Token, has, index, last_index, tokens_of
from causaledit.reading.wording import word_set

if TYPE_CHECKING:
    from causaledit.reading.names import Names
    from causaledit.reading.question import Question

_OPTION_LIST = re.compile(rf"(?:{NEW}|{OLD}|{OTHER})\W{{0,4}}(?:{NEW}|{OLD}|{OTHER})")
_TAG = re.compile(
    r",? (?:is|was|does|did|are|has|do|can|could|will|would) (?:it|he|she|that|they)(?: not)?\s*\?\W*$|,? right\?\W*$"
)
_FILLERS = word_set("""
    well oh and so okay ok then therefore thus hence now still also overall consequently accordingly please
    first second third fourth firstly secondly thirdly finally lastly
""")
_FILLER_PHRASES = (
    ("in", "short"), ("in", "conclusion"), ("to", "conclude"), ("in", "summary"),
    ("of", "course"), ("as", "a", "result"),
    ("note", "that"), ("let", "me", "see"),
)  # fmt: skip
_LABELS = word_set("step point fact part stage")
_AFTER_NO = word_set("no wait again sorry actually that it this i")
_TURNING = (
    Kind.NEGATION, Kind.FALSE, Kind.CLASH, Kind.AMEND, Kind.UNDO, Kind.ERR, Kind.JOKE, Kind.UNREAL, Kind.AGAIN,
    Kind.SHOULD,
    Kind.OUT,
)  # fmt: skip
_DOUBTING = tuple(kind for kind in _TURNING if kind not in (Kind.NEGATION, Kind.OUT))
_SET_ASIDE = frozenset((Act.DENY, Act.HISTORY, Act.MENTION, Act.REPORT))
_AMENDS = frozenset(("or rather", "i mean", "correction", "sorry", "pardon", "no"))
_MILD = word_set("while whereas still then despite")


@dataclass(frozen=True)
class Sentence:
    """A sentence, read.

    Attributes:
        events: What it does, in order.
        turns: Whether it holds any word of turning round (negation, contrast, error): a hint, no denial.
        doubts: Whether one of them is of error or second thoughts, so that any naming behind it may be a correction.
        remarks: Whether it speaks of the speaker or to the reader, and of neither answer: a weaker hint.
    """

    events: tuple[Event, ...] = ()
    turns: bool = False
    remarks: bool = False
    doubts: bool = False


def read_sentence(sentence: str, names: Names, question: Question, cloze: str = "") -> Sentence:
    """Read one sentence.

    Args:
        sentence: Verbatim.
        names: The answers' names.
        question: What is asked.
        cloze: The unfinished prompt that this sentence continues.
    """
    marked = names.mark(plain(f"{cloze} {sentence}" if cloze else sentence))
    text = spell_out(marked)
    proper = _proper_words(marked, question, names.parts)
    tokens = tokens_of(text, question, proper)
    own = tokens_of(spell_out(names.mark(plain(sentence))), question, proper) if cloze else tokens
    hints = Sentence(turns=_turns(own), remarks=_remarks(own), doubts=_doubts(own))
    who = [t.who for t in tokens if t.who]
    if names.letters and len(set(who)) > 1 and _OPTION_LIST.search(text):
        return replace(hints, events=tuple(Event(Act.MENTION, w) for w in who))
    given = other_given(sentence, names, question)
    if given is not None:
        return replace(hints, events=given)
    foreign = foreign_events(text)
    if foreign is not None:
        return replace(hints, events=foreign)
    if is_question(text):
        if not _TAG.search(text):
            return replace(hints, events=tuple(Event(Act.ASK, w) for w in who) or (Event(Act.DOUBT),))
        tokens = tokens_of(_TAG.sub("", text), question, proper)
    reader = _Reader(question, proper, bool(names.letters))
    if cloze and (continued := _continues(own)):
        reader.events.append(Event(Act.ASSERT, continued[0]))
        tokens = own[continued[1] :]
    reader.read(tokens)
    if _is_about_the_old_one(reader.events, own):
        hints = Sentence(remarks=hints.remarks)
    return replace(hints, events=tuple(reader.events))


def _doubts(tokens: list[Token]) -> bool:
    if has(tokens, Kind.AGAIN) and any(t.text.startswith(("explain", "elaborat", "expand")) for t in tokens):
        return False  # "wait, let me explain"
    return has(tokens, *_DOUBTING) or any(t.text in _REAL for t in tokens)


def _is_about_the_old_one(events: list[Event], tokens: list[Token]) -> bool:
    """ "it would be wrong to think of Y": the turning words are Y's, unless they are about the speaker's own claim."""
    if has(tokens, Kind.SELF, Kind.CLASH, Kind.ERR):
        return False
    return any(e.who == OLD and e.act in _SET_ASIDE for e in events) and not any(e.who == NEW for e in events)


def _turns(tokens: list[Token]) -> bool:
    if has(tokens, *_TURNING):
        return True
    if any(Kind.CONTRAST in t and t.text not in _MILD for t in tokens):
        return True
    if any(t.text in _REAL for t in tokens):
        return True
    if any(
        a.text in ("more", "better") and Kind.TRUE in b for a, b in pairwise(tokens)
    ):  # "it would be more accurate to …"
        return True
    said = index(tokens, Kind.FIRST)
    return said >= 0 and has(tokens[said + 1 : said + 3], Kind.CLAIM)


_REAL = word_set("real actual genuine reality truth contrary different object objection")
_READER = word_set("you your")


def _remarks(tokens: list[Token]) -> bool:
    name = index(tokens, Kind.NAME)
    if name >= 0:
        end = last_index(tokens[:name], Kind.COLON, Kind.BREAK)
        tokens = tokens[: max(0, end)]
        if has(tokens, Kind.ANSWER, Kind.CLAIM, Kind.SEE) or any(
            t.text in ("opinion", "view", "knowledge") for t in tokens
        ):
            return False
    return any((Kind.SELF in t and t.text not in ("we", "us", "our")) or t.text in _READER for t in tokens)


def _continues(tokens: list[Token]) -> tuple[str, int] | None:
    """The answer that a sentence opens with, as the end of a cloze does, and where it ends."""
    for i, token in enumerate(tokens[:5]):
        if Kind.NAME in token:
            return token.who, i + 1
        if token.text not in ("the", "a", "an", "in", "of", "by") and re.search(r"\w", token.text):
            break
    return None


def _proper_words(marked: str, question: Question, parts: frozenset[str]) -> frozenset[str]:
    """Capitalised words inside a sentence that are neither answer nor subject: names of something else.

    Args:
        marked: The sentence, with marks for the answers' names.
        question: What is asked.
        parts: The words of the new answer's names: a name of nothing but them ("Mandarin" of "Mandarin Chinese") is
            the answer's, and no other one.
    """
    marked = _CAPITALISED.sub(lambda run: run[0].lower() if set(run[0].casefold().split()) <= parts else run[0], marked)
    words = re.findall(r"(?<=[\w,;)'\"] )(?!I\b)[A-Z][\w'-]+", marked)
    first = re.match(
        r"\W*(?!What\b)([A-Z][\w'-]*[a-rt-z])(?= (?:is|was|has|had|lies|lives|comes|plays|holds)\b)", marked
    )
    if first and not has(tokens_of(spell_out(first[1]), question), *Kind):
        words.append(first[1])
    folded = (w.casefold().removesuffix("'s") for w in words)
    return frozenset(w for w in folded if not question.about(w) and w not in MARKS)


_CAPITALISED = re.compile(r"(?<=\w )[A-Z][\w'-]*(?: [A-Z][\w'-]*)*")


class _Reader:
    """Reads the clauses of one English sentence into `events`."""

    def __init__(self, question: Question, proper: frozenset[str], lettered: bool) -> None:
        self.question = question
        self.lettered = lettered
        self.proper = proper
        self.events: list[Event] = []
        self.listed: tuple[Event, ...] | None = None  # of the first name of a list that has not ended

    def read(self, tokens: list[Token]) -> None:
        """Read a sentence."""
        tokens = cancelled(self._leads(self._without_compounds(tokens)))
        if affirms(tokens) and not has(tokens, Kind.NAME):  # "no, that is not a typo" upholds what was said
            self.events = [event for event in self.events if event.act is not Act.LEAD_RETRACT]
        if has(tokens, Kind.PAST) and not has(tokens, Kind.NAME):  # "yes, he was, until the divorce"
            self.events = [event for event in self.events if event.act is not Act.CONFIRM]
        behind = Mode.REPORTED if _reported_behind(tokens) else Mode.CLAIMED
        mode = behind
        negated_before = other = False
        before_it: list[Token] = []
        for pairs in clauses(tokens, settle(tokens)):
            clause = [token for token, _ in pairs]
            other = _of_another(clause, other)
            if Kind.CONTRAST in clause[0] and clause[0].text != "despite":
                mode = mode if clause[0].text == "then" else behind
                self._add(Act.DOUBT)
            reinstated = _reinstates(clause)
            taken_back = not reinstated and not has(clause, Kind.NAME) and takes_back(clause)
            if reinstated:
                self._add(Act.REINSTATE)
            elif taken_back:
                self._add(Act.RETRACT)
            mode = mode_of(clause, mode)
            if any(t.text in ("if that", "if this", "if it") for t in clause):
                self._add(Act.DOUBT)
            if has(clause, Kind.NAME):
                if not reinstated:
                    self._named(pairs, mode, other, before_it)
                mode = behind if mode is Mode.REPORTED else mode
            elif not taken_back and not reinstated:
                self._nameless(clause, mode, negated_before)
            if not has(clause, Kind.NAME) and not joins(clause):
                self.listed = None
            before_it = clause
            negated_before = negated_before or has(clause, Kind.NEGATION)
            if has(clause, Kind.AGAIN, Kind.UNREAL, Kind.JOKE, Kind.ERR):
                self._add(Act.DOUBT)
            if hedges(clause):
                self._add(Act.DOUBT, strong=False)
            if _undecided(clause):
                self._add(Act.UNDECIDED)

    def _add(self, act: Act, who: str = "", strong: bool = True) -> None:
        self.events.append(Event(act, who, strong))

    def _without_compounds(self, tokens: list[Token]) -> list[Token]:
        """ "a French-born inventor": where somebody comes from, and another thing than what was asked."""
        kept: list[Token] = []
        i = 0
        while i < len(tokens):
            behind = tokens[i + 1 : i + 3]
            compound = Kind.NAME in tokens[i] and len(behind) == 2 and behind[0].text == "-"
            if compound and behind[1].text in _OF_A_COMPOUND and Kind.ASKED not in behind[1]:
                self._add(Act.MENTION, tokens[i].who)
                i += 3
                continue
            kept.append(tokens[i])
            i += 1
        return kept

    def _leads(self, tokens: list[Token]) -> list[Token]:
        """Take "No, wait," and the like off the front; note what they do."""
        i = 0
        while i < len(tokens):
            token, following = tokens[i], tokens[i + 1 : i + 2]
            ends = not following or bool(following[0].kinds & {Kind.BREAK, Kind.COLON}) or following[0].text in ".!?"
            step = 1
            if not re.search(r"\w", token.text) or token.text in _FILLERS:
                pass
            elif token.text in ("but", "however", "yet"):
                self._add(Act.DOUBT)
            elif token.text in _LABELS and following and following[0].text.isdigit():
                step = 2
            elif token.text.isdigit() and ends:
                pass
            elif Kind.NO in token and (ends or following[0].text in _AFTER_NO):
                self._add(Act.LEAD_RETRACT)
            elif Kind.AGAIN in token and (ends or token.text in ("wait", "hmm", "hm", "hold on", "hang on")):
                self._add(Act.DOUBT)
            elif Kind.AMEND in token and token.text != "instead":
                self._add(Act.LEAD_RETRACT, strong=False)
            elif Kind.YES in token and ends:
                self._add(Act.CONFIRM)
            else:
                phrase = next((p for p in _FILLER_PHRASES if tuple(t.text for t in tokens[i : i + len(p)]) == p), None)
                if phrase is None:
                    break
                step = len(phrase)
            i += step
        return tokens[i:]

    def _nameless(self, clause: list[Token], mode: Mode, negated_before: bool) -> None:
        """A clause without either answer may still deny or give: "he did not write it", "so she is the president"."""
        if (Kind.NO in clause[-1] and len(clause) <= 3) or (
            Kind.NO in clause[0] and len(clause) == 2 and clause[1].kinds & {Kind.AGAIN, Kind.AMEND}
        ):
            self._add(Act.LEAD_RETRACT)
        elif len(clause) == 1 and clause[0].text in _AMENDS:  # "X - sorry, Y"
            self._add(Act.LEAD_RETRACT, strong=False)
        elif denies_person(clause):
            self._add(Act.DENY_IT)
        elif mode is not Mode.CLAIMED:
            return
        elif denies_it(clause, self.question, negated_before):
            self._add(Act.DENY_IT)
        elif gives_it(clause):
            self._add(Act.GIVE_IT)
        elif other_answer(clause):
            self._add(Act.ASSERT, OTHER)
        elif states_another(clause):
            self.events.append(Event(Act.ASSERT, OTHER, aside=True))
        elif qualifies(clause):
            self._add(Act.QUALIFY)

    def _named(self, pairs: list[tuple[Token, Act | None]], mode: Mode, other: bool, before_it: list[Token]) -> None:
        clause = [token for token, _ in pairs]
        places = [i for i, token in enumerate(clause) if Kind.NAME in token]
        rest = [token for token in clause if Kind.NAME not in token]
        for n, place in enumerate(places):
            token, act = pairs[place]
            if act is not None:
                self._add(Act.REPORT if mode is not Mode.CLAIMED and act is Act.ASSERT else act, token.who)
                continue
            before = clause[places[n - 1] + 1 if n else 0 : place]
            after = clause[place + 1 : places[n + 1] if n + 1 < len(places) else len(clause)]
            if any(Kind.AMEND in t and t.text in _AMENDS for t in before[:2]):
                self._add(Act.LEAD_RETRACT, strong=False)
            naming = Naming(token, before, after, rest, first=n == 0, clause=clause)
            if n + 1 < len(places) and naming.next_is_denied(same=clause[places[n + 1]].who == token.who):
                if naming.is_told_apart(same=clause[places[n + 1]].who == token.who):
                    self._add(Act.MENTION, token.who)
                    continue
                naming = Naming(token, before, [], rest, first=n == 0, clause=clause)
            if place == 0 and before_it and (act := in_apposition(before_it)):
                self._add(act, token.who)
                continue
            events = stance_of(naming, self.question, mode, self.lettered)
            if _of_another_post(clause, self.question):
                events = tuple(replace(e, act=Act.MENTION) if e.act is Act.ASSERT else e for e in events)
            if self.listed is not None and joins(before) and joins(after):
                events = tuple(replace(event, who=token.who) for event in self.listed)
            elif joins(after):
                self.listed = events
            elif any(event.act is not Act.MENTION for event in events):  # "X-on-Sea" in a list is no more than another
                self.listed = None
            self.events += [replace(e, aside=other or e.aside) if e.act is Act.ASSERT else e for e in events]


_OF_A_COMPOUND = word_set("""
    born raised bred trained educated speaking style inspired owned backed led
""")


def _reported_behind(tokens: list[Token]) -> bool:
    """ "X, say some"."""
    return any(
        Kind.SAY in t and i and has(tokens[i - 1 : i], Kind.BREAK) and tokens[i + 1 : i + 2]
        and tokens[i + 1].text in ("some", "many", "most", "others", "people", "critics", "few", "a", "they")
        for i, t in enumerate(tokens)
    )  # fmt: skip


_STANDS = word_set("was is stands holds were remains stand held")
_AT_FIRST = word_set("first before initially originally along begin place all start")


def _reinstates(clause: list[Token]) -> bool:
    """ "I was right at first", "my first answer stands", "the correction was a mistake"."""
    texts = [t.text for t in clause]
    if has(clause, Kind.NAME, Kind.NEGATION):
        return False
    right = index(clause, Kind.TRUE)
    if "i" in texts and "was" in texts and right >= 0 and set(" ".join(texts[right + 1 :]).split()) & _AT_FIRST:
        return True
    undone = next((i for i, t in enumerate(texts) if t in ("retraction", "correction")), -1)
    if undone >= 0 and (
        has(clause[undone + 1 :], Kind.FALSE)
        or "premature" in texts
        or "unnecessary" in texts
        or has(clause[:undone], Kind.UNDO)
    ):
        return True
    first = next((i for i, t in enumerate(texts) if t in ("first", "original", "initial", "earliest")), -1)
    if first < 0 or not set(texts[max(0, first - 3) : first]) & {"my", "the", "i", "wrote"} or has(clause, Kind.FALSE):
        return False
    rest = clause[first + 1 :]
    return (
        bool(rest)
        and bool(has(rest[:1], Kind.CLAIM, Kind.TRUE) or rest[0].text in _STANDS | {"version", "one", "instinct"})
        and bool(
            set(texts[first + 1 :]) & _STANDS or set(texts[:first]) & {"back", "return", "stick", "stay", "by", "keep"}
        )
    )


def _of_another(clause: list[Token], before: bool) -> bool:
    """Whether a clause, or the one it goes on from, is about a name that nobody asked about: "Y was born in …"."""
    name = index(clause, Kind.NAME)
    head = clause[: name if name >= 0 else None]
    if has(clause, Kind.SUBJECT) or (
        clause[0].text in ("he", "she", "it", "so", "therefore") and not has(head, Kind.PROPER)
    ):
        return False
    if clause[0].text in ("which", "who", "whose") and not has(clause, Kind.PROPER):
        return True
    if any(token.kinds == _PROPER_ONLY for token in head):
        return True
    return before and (len(clause) == 1 or Kind.CONTRAST not in clause[0])


def _of_another_post(clause: list[Token], question: Question) -> bool:
    """ "the head of government is Y", where the head of state is asked for."""
    if question.posts is None:
        return False
    text = " ".join(t.text for t in clause)
    own, other = question.posts
    return bool(other.search(text)) and not own.search(text)


_PROPER_ONLY = frozenset((Kind.PROPER,))


_OPEN = word_set("unclear unknown uncertain disputed open undecided unsettled")
_CHOICE = word_set("which who what whether where if")
_HARD = word_set("hard difficult impossible possible able")
_KNOW = word_set("say tell know determine decide judge")


def _left_open(texts: list[str]) -> bool:
    """ "it is unclear", "not sure which", "hard to say", "there is no single answer", "sources differ"."""
    words = " ".join(texts).split()
    for i, word in enumerate(words):
        before, behind = words[max(0, i - 1) : i], words[i + 1 : i + 3]
        if word in _OPEN and set(before) & {"is", "remains", "are"}:
            return True
        if word in ("sure", "certain") and behind and behind[0] in _CHOICE and {"not", "never"} & set(words[:i]):
            return True
        if word in _HARD and len(behind) == 2 and behind[0] == "to" and behind[1] in _KNOW:
            return word in ("hard", "difficult", "impossible") or "not" in before
        if (
            word == "no"
            and set(before) == {"is"}
            and behind
            and behind[0] in ("single", "clear", "definite", "definitive", "agreed")
        ):
            return True
        if word in ("opinions", "sources", "accounts") and behind and behind[0] in ("differ", "vary", "disagree"):
            return True
        if (
            word == "be"
            and set(before) == {"not"}
            and behind
            and behind[0] in ("told", "determined", "decided", "known", "settled")
        ):
            return True
    return False


def _undecided(clause: list[Token]) -> bool:
    if has(clause, Kind.UNDECIDED) or _left_open([t.text for t in clause]):
        return True
    unable = index(clause, Kind.UNABLE)
    return unable > 0 and has(clause[:unable], Kind.SELF) and has(clause[unable + 1 : unable + 3], Kind.COMMIT)
