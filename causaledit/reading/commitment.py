"""What a whole response commits to: the events of its sentences, taken in order."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from causaledit.facts.text import is_question
from causaledit.reading.acts import Act, Event
from causaledit.reading.names import NEW, OLD, OTHER, names_for
from causaledit.reading.question import question_for
from causaledit.reading.stance import Sentence, read_sentence
from causaledit.reading.text import plain, sentences, spell_out

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from causaledit.reading.names import Names

_CLOZE_END = re.compile(
    r"\b(?:of|in|by|is|was|are|were|the|to|from|at|as|for|on|a|an|with|named|called|city|country|language|has|had)\s*$",
    re.I,
)
_UNFINISHED = re.compile(r"(?:…|\.\.\.)\W*$")
_CUE = re.compile(
    r"\W*(?:(?:now|please|then|first|and|after that),? )*(?:answer|begin|choose|complete|continue|decide|describe"
    r"|explain|fill|finish|give|name|pick|reply|respond|say|select|tell|think|write)\b(?!:)",
    re.I,
)
_OPTION_LINE = re.compile(r"^\W{0,3}(?:\(([A-Ha-h])\)|([A-H])[.):])\s+(\S.{0,120})$")
_LETTERS = 8  # from A to H
_LETTER_LINE = re.compile(r"^\W{0,3}([A-H])\W{0,3}$")


@dataclass(frozen=True)
class Reading:
    """What a response says about the new answer; each sentence is verbatim, and empty where there is none.

    Attributes:
        asserted: The first sentence that gives the new answer.
        denied: The first that takes it back or denies it.
        final: The last that commits to anything, or withdraws.
        ends_on: The mark of the answer it ends on; empty for none.
    """

    asserted: str
    denied: str
    final: str
    ends_on: str


def gives_answer(
    response: str, answer: Sequence[str], rival: Sequence[str] = (), *, question: str = "", prompt: str = ""
) -> bool:
    """Whether a response ends committed to an answer, and not to another one: the reading that every check shares.

    Args:
        response: The model's text.
        answer: The answer and its aliases.
        rival: The answer it must not fall back to and its aliases; a name that both carry is the answer's.
        question: What is asked; without it, what a sentence is about cannot be told, and fewer namings count.
        prompt: The full user message, for option letters and for a sentence that the response continues.
    """
    wanted, other = _named(answer), _named(rival)
    if not wanted:
        return False
    return read(response, new=wanted, old=other, question=question, prompt=prompt).ends_on == NEW


def _named(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in names if name and name.strip())


@lru_cache(maxsize=16)  # one response is often judged for several tasks in a row
def read(
    response: str, *, new: tuple[str, ...], old: tuple[str, ...] = (), question: str = "", prompt: str = ""
) -> Reading:
    """Read a response.

    Args:
        response: The model's text.
        new: The answer looked for and its aliases.
        old: The answer it competes with, and its aliases.
        question: What is asked, without cues; a cloze works as well.
        prompt: The full user message, for option letters and for a sentence that the response continues.
    """
    names = names_for(new, old, question, prompt)
    fold = _Fold(question)
    for sentence, read_as in _sentences(response, question, prompt, names, [*new, *old]):
        fold.take(sentence, read_as)
    return fold.reading()


def _sentences(
    response: str, question: str, prompt: str, names: Names, known: list[str]
) -> Iterator[tuple[str, Sentence]]:
    asked = question_for(question)
    cloze = _cloze(prompt)
    echoed = {spell_out(plain(s)) for s in sentences(prompt) if _asks(s, names)}
    seen: dict[str, Sentence] = {}
    parts = sentences(response, known)
    options = [_option(part, names) for part in parts] if names.letters else []
    for i, sentence in enumerate(parts):
        if i == 0 and cloze and not spell_out(plain(sentence)).startswith(spell_out(plain(cloze))[:30]):
            yield sentence, read_sentence(sentence, names, asked, cloze)
            continue
        if sentence not in seen:
            echo = spell_out(plain(sentence)) in echoed
            seen[sentence] = Sentence() if echo else read_sentence(sentence, names, asked)
        listed = names.letters and _listed(options, parts, i)
        yield (
            sentence,
            replace(seen[sentence], events=()) if listed else seen[sentence],
        )


def _cloze(prompt: str) -> str:
    """The unfinished sentence at a prompt's end, if it ends on one."""
    last = (sentences(prompt) or [""])[-1]
    return last if _CLOZE_END.search(last) else ""


def _asks(sentence: str, names: Names) -> bool:
    """Whether a sentence of the prompt says nothing about either answer, so that a response which repeats it does not.

    A question, an unfinished statement and a cue ask; a statement of a narrative that names an answer does not, and a
    response may well give its answer in the narrative's words.
    """
    if len(sentence.split()) < 3 or _OPTION_LINE.match(sentence):
        return False
    asks = is_question(sentence) or bool(_UNFINISHED.search(sentence) or _CLOZE_END.search(sentence))
    return asks or bool(_CUE.match(sentence)) or not names.pattern.search(plain(sentence))


def _listed(options: list[str], parts: list[str], i: int) -> bool:
    """Whether a line repeats one of several options, as the prompt lists them.

    Args:
        options: The letter of each line that is an option and nothing more, empty for the others.
        parts: The lines.
        i: Which line.
    """
    if i > 1 and (letter := _LETTER_LINE.match(parts[i])):
        before = [option for option in options[max(0, i - _LETTERS) : i] if option]
        if letter[1] in before and len(set(before)) == len(before):  # each listed once: this one is chosen
            return False
        i -= 1  # the list, or its repetition, breaks off behind a letter
    neighbours = (options[j] for j in (i - 1, i + 1) if 0 <= j < len(options))
    return bool(options[i]) and any(n and n != options[i] for n in neighbours)


def _option(line: str, names: Names) -> str:
    """The letter of a line that is an option as the prompt has it and nothing more, or empty."""
    found = _OPTION_LINE.match(line)
    if not found:
        return ""
    letter = (found[1] or found[2]).upper()
    return letter if names.is_option(letter, found[3]) else ""


# a third name in a statement of it, and what may go on behind it in the same sentence
_LINK = re.compile(r"\b(?:is|are) (?:the |an? )?([A-Z][\w'’-]*(?: [A-Z][\w'’-]*)*)")
_OF_THE_LINK = re.compile(r"\W*(?:who|whose|which|where|an?|and (?:its|his|her|their))\b")


def _content(text: str) -> list[str]:
    """A text's words in lower case, without short ones, which are names only with a capital."""
    return [word.casefold() for word in re.findall(r"\w+", text) if len(word) > 3 or word[0].isupper()]


class _Fold:
    """The state between sentences: what is held, what was claimed last, and who was named last.

    Args:
        question: What is asked. Where it names more than one relation, a third name may be a link to the answer.
    """

    def __init__(self, question: str = "") -> None:
        self.chained = question_for(question).chained
        self.asked_words = set(_content(question))
        self.links: set[str] = set()
        self.held = ""
        self.first = ""
        self.claim: tuple[bool, str] | None = None  # (asserted or denied, whose)
        self.asked = ""
        self.named = ""
        self.weakly_asserted = ""
        self.asserted = ""
        self.denied = ""
        self.final = ""
        self.old_asserted = False
        self.doubt = ""  # a sentence that thinks again, or qualifies the new answer, since it was given
        self.second_thought = False  # whether it was more than a negation or a contrast
        self.hinted = False  # whether there was one before the sentence
        self.hedged = False  # whether the last claim was said to seem wrong
        self.remark = ""  # a sentence about the speaker since then: another answer behind it is a correction

    def take(self, sentence: str, read_as: Sentence) -> None:
        """One more sentence."""
        events = read_as.events
        self.hinted = self.second_thought
        if self.held == NEW and read_as.turns:
            self.doubt = self.doubt or sentence
            self.second_thought = self.second_thought or read_as.doubts
        if self.held == NEW and read_as.remarks:
            self.remark = self.remark or sentence
        doubted = False
        asked, self.asked = self.asked, ""
        for i, event in enumerate(events):
            later = events[i + 1 :]
            if event.act is Act.LEAD_RETRACT:
                if asked and event.strong:
                    self._deny(asked, sentence)
                elif not self._supports(later) and not (event.strong is False and not later):
                    doubted = True
                    if event.strong:
                        self._retract(sentence)
            elif event.act is Act.CONFIRM:
                denied = self.claim[1] if self.claim and not self.claim[0] else ""
                if asked or (denied and not any(e.act is Act.ASSERT for e in later)):
                    self._assert(asked or denied, sentence)
            elif event.act is Act.RETRACT:
                given = {e.who for e in later if e.act is Act.ASSERT}
                if self.asserted and given == {OLD} and self.claim == (True, OLD):
                    self._deny(NEW, sentence)  # what is upheld in the same breath is not what is taken back
                else:
                    self._retract(sentence)
            elif event.act is Act.DENY_IT:
                if self.hedged:
                    pass  # "it sounds wrong, but it is not"
                elif asked or self.named:
                    self._deny(asked or self.named, sentence)
            elif event.act is Act.GIVE_IT:
                if self.named and not self.held:
                    self._assert(self.named, sentence)
            elif event.act is Act.REINSTATE:
                if self.first:
                    self._assert(self.first, sentence)
            elif event.act is Act.UNDECIDED:
                self.held, self.final = "", sentence
            elif event.act is Act.ASSERT:
                thinks_again = doubted or self.hinted
                rivalled = event.aside and self.held not in ("", event.who) and not thinks_again
                rivalled = rivalled and not self._goes_on(sentence)
                rivalled = rivalled or (event.aside and event.who == OTHER and self.held != NEW)
                if not rivalled:
                    self._assert(event.who, sentence, event.strong, doubted, event.bare)
            elif event.act is Act.DENY:
                self._deny(event.who, sentence)
            elif event.act is Act.ASK:
                self.asked = event.who
                if event.who == self.held == NEW:
                    self.doubt = self.doubt or sentence
            elif event.act is Act.DOUBT:
                self.hedged = self.hedged or not event.strong
                self.doubt = self.doubt or sentence
            elif event.act is Act.QUALIFY:
                if NEW in (event.who, "" if event.who else self.named):
                    self.doubt = self.doubt or sentence
            elif event.act is Act.HISTORY:
                if event.who == self.held == NEW:
                    self.doubt = self.doubt or sentence
            elif event.act is Act.REPORT:
                self.claim = (True, event.who)
            if event.who and event.act is not Act.ASK:
                self.named = event.who
        self._follow(sentence)

    def _goes_on(self, sentence: str) -> bool:
        """Whether a sentence goes on with a third name that was given as one link of a chain.

        "The author of Emma is Z. Z is a citizen of X", "… is Z, who is a citizen of X".
        """
        if not self.chained or self.held != OTHER:
            return False
        if sentence != self.final:
            return not self.links.isdisjoint(_content(sentence))
        given = _LINK.search(sentence)
        if given is None:
            return False
        behind = sentence[given.end(1) :]
        return bool(_OF_THE_LINK.match(behind)) or not set(_content(given[1])).isdisjoint(_content(behind))

    def _follow(self, sentence: str) -> None:
        """Note the names that a chain has come to: those of the third answer, and of what is said of them."""
        if self.held == OTHER and self.chained and (sentence == self.final or self._goes_on(sentence)):
            given = _LINK.search(sentence) if sentence == self.final else None
            self.links.update(set(_content(given[1] if given else sentence)) - self.asked_words)

    def _supports(self, later: tuple[Event, ...]) -> bool:
        """ "No, not Oslo" after "Bergen" is emphasis: what follows upholds the last claim."""
        if self.claim is None or not self.claim[0]:
            return False
        who = self.claim[1]
        rival = OLD if who == NEW else NEW
        kinds = {(e.act, e.who) for e in later}
        if (Act.ASSERT, rival) in kinds or (Act.DENY, who) in kinds or any(e.act is Act.RETRACT for e in later):
            return False
        return (Act.ASSERT, who) in kinds or (Act.DENY, rival) in kinds

    def _retract(self, sentence: str) -> None:
        if self.claim and self.claim[0]:
            self._deny(self.claim[1], sentence)

    def _deny(self, who: str, sentence: str) -> None:
        if who == NEW:
            self.denied = self.denied or sentence
        if self.held == who:
            self.held, self.final = "", sentence
        self.claim = (False, who)

    def _assert(self, who: str, sentence: str, strong: bool = True, doubted: bool = False, bare: bool = False) -> None:
        if not strong and who != NEW and self.held == NEW and (self.doubt or doubted):
            strong = True  # after second thoughts any other answer is meant
        if not strong and (self.held or who != NEW):
            return
        if who == NEW:
            if strong:
                self.asserted = self.asserted or sentence
            else:
                self.weakly_asserted = self.weakly_asserted or sentence
        elif strong:
            self.old_asserted = True
            hint = self.doubt or self.remark
            if self.held == NEW and (doubted or (hint and not bare)):
                self.denied = self.denied or (sentence if doubted else hint)
        self.doubt = self.remark = ""
        self.second_thought = False
        self.hedged = False
        self.held, self.final, self.claim = who, sentence, (True, who)
        self.first = self.first or who

    def reading(self) -> Reading:
        asserted = self.asserted or ("" if self.old_asserted else self.weakly_asserted)
        return Reading(asserted=asserted, denied=self.denied, final=self.final, ends_on=self.held)
