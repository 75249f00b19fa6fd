"""What one sentence says about the two answers, as a list of events.

A sentence is read clause by clause: who is named, and whether the naming asserts, denies, reports, asks,
guesses or remembers. What needs the sentences before it ("that is wrong") is left to `commitment`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING

from causaledit.judges.rules import contexts, cues
from causaledit.judges.rules.names import NEW, OLD, OTHER
from causaledit.judges.rules.question import FOREIGN
from causaledit.judges.rules.text import plain, spell_out

if TYPE_CHECKING:
    from causaledit.judges.rules.names import Names
    from causaledit.judges.rules.question import Question


class Kind(Enum):
    """What an event does."""

    ASSERT = auto()  # gives the answer
    DENY = auto()  # says it is not the answer
    HISTORY = auto()  # says it once was
    REPORT = auto()  # says that somebody says so, or that it was said before
    ASK = auto()  # asks whether it is
    MENTION = auto()  # names it, and says nothing of it as an answer
    RETRACT = auto()  # takes back the last claim, whatever it was
    LEAD_RETRACT = auto()  # the same by a mere "No," or "Correction:"
    DENY_IT = auto()  # "he did not write it": denies whoever was named last
    REINSTATE = auto()  # goes back to the first answer
    CONFIRM = auto()  # "Yes."
    GIVE_IT = auto()  # "so she is the president": gives whoever was named last
    UNDECIDED = auto()  # declines to choose
    DOUBT = auto()  # thinks again: "Wait.", "Let me check."
    QUALIFY = auto()  # a negation or an "only" about an answer that by itself denies nothing asked


@dataclass(frozen=True)
class Event:
    """One step of a response.

    Attributes:
        who: A mark, or empty where the event needs its context.
        strong: Whether the wording leaves no doubt that the event is about what was asked.
        bare: Whether an option is picked without a sentence ("(B)"): a choice, which corrects nothing.
    """

    kind: Kind
    who: str = ""
    strong: bool = True
    bare: bool = False


_DECIDED = {"h": Kind.HISTORY, "m": Kind.MENTION, "a": Kind.ASSERT, "d": Kind.DENY}
_ANY_MARK = re.compile(r"\b([xhmad])(new|old)[xhmad]\b")
_ITEM = rf"(?:{NEW}|{OLD}|[A-Z0-9][\w'’.-]*(?: [A-Z][\w'’.-]*){{0,3}})"
_LIST = re.compile(rf"(?:{_ITEM} ?, ){{1,}}{_ITEM} ?,? (?:and|or|as well as) {_ITEM}|(?:{_ITEM} ?, ){{3,}}{_ITEM}")
_BOTH_LISTED = re.compile(rf"(?<!not )(?<!not in )\b(?:{NEW} ?, {OLD}|{OLD} ?, {NEW}) ?, {_ITEM}(?=\W*$)")
_OPTION_LIST = re.compile(rf"(?:{NEW}|{OLD}|{OTHER})\W{{0,4}}(?:{NEW}|{OLD}|{OTHER})")
_CLAUSE = re.compile(
    r"\s*(?:[,;:()]|\.\.\.|(?<=\s)-(?=\s))\s*|\s(?=(?:but|although|though|while|whereas|however|yet|because|so that|"
    r"and|rather than|instead of|as opposed to|let alone|anything but)\s)"
)
_VERB_FIRST = re.compile(
    r"^(?:is|was|are|were|has|had|have|did|does|do|can|could|would|should|will|must|may|might|lies|stands|took)\b"
)
_CONTRAST = re.compile(r"^(?:but|however|yet|though|although|whereas|while|still|then)\b")
_CONTINUES = re.compile(rf"^\W*(?:the |a |an |in |of |by )*(?:{NEW}|{OLD})\b")
_TAG = re.compile(
    r",? (?:is|was|does|did|are|has|do|can|could|will|would) (?:it|he|she|that|they)(?: not)?\s*\?\W*$|,? right\?\W*$"
)


def events_of(sentence: str, names: Names, question: Question, cloze: str = "") -> tuple[Event, ...]:
    """Read one sentence.

    Args:
        sentence: Verbatim.
        names: The answers' names.
        question: What is asked.
        cloze: The unfinished prompt that this sentence continues.
    """
    marked = names.mark(plain(f"{cloze} {sentence}" if cloze else sentence))
    marked = _BOTH_LISTED.sub(_neutral, _LIST.sub(_neutral, marked))
    if cloze and _CONTINUES.match(names.mark(plain(sentence))):
        marked = _CONTINUES.sub(lambda m: m.group().replace("x", "a"), names.mark(plain(sentence)), count=1)
    text = spell_out(marked)
    if names.letters and len(set(_ANY_MARK.findall(text))) > 1 and _OPTION_LIST.search(text):
        return tuple(Event(Kind.MENTION, f"x{who}x") for _, who in _ANY_MARK.findall(text))
    foreign = _foreign(text)
    if foreign is not None:
        return foreign
    if text.rstrip("\"') ").endswith("?"):
        if not _TAG.search(text):
            asked = tuple(Event(Kind.ASK, f"x{who}x") for _, who in _ANY_MARK.findall(text))
            return asked or (Event(Kind.DOUBT),)
        text = _TAG.sub("", text)
    reader = _Reader(question, _proper_words(marked, question), bool(names.letters))
    reader.read(text)
    return tuple(reader.events)


def turns(sentence: str) -> bool:
    """Whether a sentence holds any word of turning round (negation, contrast, error, "I"): a hint, no denial."""
    return bool(cues.TURN.search(cues.HARMLESS_NEGATION.sub(" xx ", spell_out(plain(sentence)))))


def _neutral(match: re.Match[str]) -> str:
    """Names in an enumeration are mentioned only."""
    return match.group().replace(NEW, "mnewm").replace(OLD, "moldm")


def _replaced(match: re.Match[str], group: int, gone: str = "h") -> str:
    """The one that was is history, or denied; the one that came is the answer."""
    text = match.group()
    for number, letter in ((group, gone), (3 - group, "a")):
        start, end = match.start(number) - match.start(), match.end(number) - match.start()
        text = text[:start] + letter + text[start + 1 : end - 1] + letter + text[end:]
    return text


def _proper_words(marked: str, question: Question) -> frozenset[str]:
    """Capitalised words inside a sentence that are neither answer nor subject: names of something else."""
    words = re.findall(r"(?<=[\w,;)'\"] )(?!I\b)[A-Z][\w'-]+", marked)
    return frozenset(w.casefold() for w in words if not question.subject.fullmatch(w.casefold()))


def _clauses(text: str) -> list[str]:
    """Clauses, with a name and its verb put together again across an insertion ("X, a port, is …")."""
    joined: list[str] = []
    start = 0
    ends = [*_CLAUSE.finditer(text), None]
    for end in ends:
        part = text[start : end.start() if end else len(text)].strip(" .!\"'")
        start = end.end() if end else len(text)
        if not part:
            continue
        if end and ":" in end.group() and _bare(part) and start < len(text):
            part = _ANY_MARK.sub(r"m\2m", part)  # "Kilimanjaro: 5,895 m" is an entry in a table
        if _VERB_FIRST.match(part):
            back = next((i for i in range(len(joined) - 1, max(-1, len(joined) - 4), -1) if _bare(joined[i])), None)
            if back is not None:
                joined[back] += f" {part}"
                continue
        joined.append(part)
    return joined


def _bare(clause: str) -> bool:
    return bool(re.fullmatch(rf"(?:and |but |the )*(?:{NEW}|{OLD})", clause))


class _Reader:
    """Reads the clauses of one English sentence into `events`."""

    def __init__(self, question: Question, proper: frozenset[str], lettered: bool) -> None:
        self.question = question
        self.lettered = lettered
        self.proper = proper
        self.events: list[Event] = []

    def read(self, text: str) -> None:
        text = self._leads(text)
        text = cues.HARMLESS_NEGATION.sub(" xx ", re.sub(r"\b(may|might) not\b", r"\1", text))
        for pattern, history in contexts.REPLACED:
            text = pattern.sub(lambda m, g=history: _replaced(m, g), text)
        for pattern, gone in cues.SWAPPED:
            text = pattern.sub(lambda m, g=gone: _replaced(m, g, "d"), text)
        text = contexts.PAIR.sub(_neutral, text)
        behind = "reported" if contexts.REPORT_BEHIND.search(text) else ""
        mode = behind  # a report or a supposition reaches into the clauses that follow it
        negated_before = False
        for clause in _clauses(text):
            if _CONTRAST.match(clause):
                mode = behind
                self._add(Kind.DOUBT)
            if cues.REINSTATEMENT.search(clause):
                self._add(Kind.REINSTATE)
                clause = cues.REINSTATEMENT.sub(" ", clause)
            elif cues.RETRACTION.search(clause):
                self._add(Kind.RETRACT)
                clause = cues.RETRACTION.sub(" ", clause)
            if contexts.HYPOTHETICAL.search(clause):
                mode = "supposed"
            elif contexts.REPORT.search(clause):
                mode = "reported"
            marks = list(_ANY_MARK.finditer(clause))
            if marks:
                self._marks(clause, marks, mode)
                mode = behind if mode == "reported" else mode
            else:
                self._nameless(clause, mode, negated_before)
            negated_before = negated_before or bool(cues.NEGATED.search(clause))
            if cues.RECONSIDER.search(clause):
                self._add(Kind.DOUBT)
            if contexts.UNDECIDED.search(clause):
                self._add(Kind.UNDECIDED)

    def _add(self, kind: Kind, who: str = "", strong: bool = True) -> None:
        self.events.append(Event(kind, who, strong))

    def _leads(self, text: str) -> str:
        """Take "No, wait," and the like off the front; note what they do."""
        while match := cues.LEAD.match(text):
            if not match.group():
                break
            if match["contrast"]:
                self._add(Kind.DOUBT)
            elif match["no"]:
                self._add(Kind.LEAD_RETRACT)
            elif match["correcting"]:
                self._add(Kind.LEAD_RETRACT, strong=False)
            elif match["again"]:
                self._add(Kind.DOUBT)
            elif match["yes"]:
                self._add(Kind.CONFIRM)
            text = text[match.end() :]
        return text

    def _nameless(self, clause: str, mode: str, negated_before: bool) -> None:
        """A clause without either answer may still deny: "that is wrong", "he did not write it"."""
        bare = cues.NOT_WRONG.sub(" ", clause)
        if cues.NO_ALONE.fullmatch(clause):
            self._add(Kind.LEAD_RETRACT)
            return
        if cues.STANDALONE_NO.match(clause):
            self._add(Kind.RETRACT)
            return
        if cues.WRONG.search(bare) and not cues.WRONG_TO.search(bare):
            subject = cues.SUBJECT_OF_WRONG.match(bare)
            near = subject and cues.WRONG.search(bare[subject.end() : subject.end() + 80])
            if near or cues.STARTS_WRONG.match(bare):
                self._add(Kind.RETRACT)
                return
        if mode:
            return
        if cues.NOT_IT.search(clause) or (
            negated_before and clause.startswith("let alone") and self.question.asked.search(clause)
        ):
            self._add(Kind.DENY_IT)
            return
        match = cues.IT_NEGATED.match(clause)
        negated = cues.NEGATED.search(clause)
        if match and self._denies_relation(next((g for g in match.groups() if g), "")):
            self._add(Kind.DENY_IT)
        elif not negated and self._gives_it(clause):
            self._add(Kind.GIVE_IT)
        elif self._other_answer(clause):
            self._add(Kind.ASSERT, OTHER)
        elif match or (negated and self.question.asked.search(clause)):
            self._add(Kind.QUALIFY)

    def _denies_relation(self, rest: str) -> bool:
        """Whether "(he did) not …" goes on with what was asked: "write the book", "the capital"."""
        if cues.ELSEWHERE.search(rest):
            return False
        found = self.question.asked.search(rest)
        if not found or not cues.BEFORE_RELATION.fullmatch(rest[: found.start()]):
            return False
        tail = rest[found.end() :].strip()
        return (
            not tail
            or bool(re.match(r"(?:it|this|that|the|there|here|of|a|him)\b", tail))
            or bool(self.question.subject.match(tail))
        )

    def _gives_it(self, clause: str) -> bool:
        """ "(so) she is the president", "he wrote it"."""
        match = cues.IT_IS.match(clause)
        return bool(match and self.question.asked.match(clause, match.end()))

    def _other_answer(self, clause: str) -> bool:
        """ "the answer is Z", "the capital is Z" with a Z that is neither answer."""
        match = contexts.STATED.match(clause)
        if not match or match["first"] not in self.proper:
            return False
        if re.match(r"(?:the|my)(?: \w+){0,2} (?:answer|option|choice|letter)\b", match["head"]):
            return True
        words = match["head"].split()
        return len(words) > 1 and bool(self.question.asked.match(words[1]))

    def _marks(self, clause: str, marks: list[re.Match[str]], mode: str) -> None:
        rest = " ".join(_ANY_MARK.sub(" ", clause).split())
        for i, mark in enumerate(marks):
            who = f"x{mark[2]}x"
            if mark[1] in _DECIDED:
                kind = _DECIDED[mark[1]]
                self._add(Kind.REPORT if mode and kind is Kind.ASSERT else kind, who)
                continue
            before = clause[marks[i - 1].end() if i else 0 : mark.start()]
            after = clause[mark.end() : marks[i + 1].start() if i + 1 < len(marks) else len(clause)]
            if i + 1 < len(marks) and marks[i + 1][2] == mark[2] and self._negation_before(after):
                after = ""  # "a citizen of X is not a citizen of X": the negation is the second name's
            self.events.append(self._stance(who, before, after, rest, mode))

    def _stance(self, who: str, before: str, after: str, rest: str, mode: str) -> Event:
        if self._twice_denied(before, after) and not mode:
            return Event(Kind.ASSERT, who)
        if self._denied(before, after):
            return Event(Kind.DENY, who)
        if cues.RIGHT.match(after) and not mode:
            return Event(Kind.ASSERT, who)
        past = who == OLD and not self.question.past and contexts.PAST.search(rest) and not contexts.STILL.search(rest)
        if (contexts.HISTORY.search(rest) or past) and not contexts.PRESENT.search(rest):
            return Event(Kind.HISTORY, who)
        if mode:
            return Event(Kind.REPORT, who)
        if contexts.POSSIBLE.search(rest):
            return Event(Kind.MENTION, who)
        oblique = contexts.OBLIQUE.search(f"{before.rstrip()} ")
        if oblique and not (oblique.group().startswith(("from", "with ")) and self.question.asked.search(before)):
            return Event(Kind.MENTION, who)
        return self._assertion(who, before, after, rest)

    def _twice_denied(self, before: str, after: str) -> bool:
        """ "it is not true that X did not", "it is wrong to deny that X": both together assert."""
        fair = cues.NOT_WRONG.sub(" ", before)
        return bool(cues.WRONG_THAT.search(fair)) and bool(self._negation_after(after) or cues.DENIAL.search(fair))

    def _denied(self, before: str, after: str) -> bool:
        if cues.MISUSED.search(before) or cues.MISUSED.search(after) or cues.INSTEAD.match(before.strip()):
            return True
        if cues.REJECTED.search(before):
            return True
        fair_before, fair_after = (
            cues.NOT_WRONG.sub(" ", self.question.subject.sub(" ", part)) for part in (before, after)
        )
        wrong = cues.WRONG.search(fair_after)
        if wrong and not re.search(r"\b(?:which|who) (?:is|was|are)\b", fair_after[: wrong.start()]):
            return True
        if cues.WRONG_THAT.search(fair_before) or cues.NOTHING_TO_DO.search(after):
            return True
        return self._negation_before(before) or self._negation_after(after)

    def _negation_before(self, before: str) -> bool:
        """ "not (written by) X", with nothing between that would take the negation for itself."""
        if re.search(r"\bnone of (?:these|them|those)\b(?: \w+){0,2}\s*$", before):
            return True
        matches = list(cues.NEGATED.finditer(before))
        if not matches:
            return False
        words = before[matches[-1].end() :].replace("'s", "").split()
        if len(words) > (2 if matches[-1].group() == "no" else 7):
            return False
        return all(w.strip("\"'-") in cues.BETWEEN or self.question.concerns(w) for w in words)

    def _negation_after(self, after: str) -> bool:
        """ "X is not (the capital)": a negation behind the name that takes what was asked, or nothing else."""
        match = cues.NEGATED.search(after)
        if not match:
            return False
        head = after[: match.start()].replace("'s", "").split()
        if len(head) > 5 or not all(w in cues.AUXILIARY or w.endswith("ly") or self.question.concerns(w) for w in head):
            return False
        rest = re.sub(rf"^(?:\s*{cues.NEGATION}\b)+", "", after[match.end() :]).strip()
        if all(word in cues.AUXILIARY for word in rest.split()) or re.match(
            r"(?:at all|any ?more|ever|never|either|of course)\b", rest
        ):
            return True
        if cues.ELSEWHERE.search(rest):
            return False
        quality = cues.OTHER_QUALITY.match(rest)
        if quality and not self.question.asked.search(quality.group()):
            return False
        if cues.TRUE_WORD.match(re.sub(r"^(?:the|a|be|have|been|is|was) ", "", rest)):
            return True
        first = " ".join(rest.split()[:7])
        if self.question.asked.search(first):
            return True
        small = r"(?:(?:a|an|the|in|of|for|behind|part of|on|at|from|to|by) ){0,3}"
        return bool(re.match(small + f"(?:{self.question.subject.pattern})", first))

    def _assertion(self, who: str, before: str, after: str, rest: str) -> Event:
        if cues.ONLY.match(after):
            return Event(Kind.QUALIFY, who)
        if not contexts.FRAGMENT_WORDS.sub(" ", rest).strip(" .,!\"'-") or contexts.EXPLICIT.search(before.strip()):
            return Event(Kind.ASSERT, who, bare=self.lettered)
        asked, concerned = self.question.asked.search(rest), self.question.concerns(rest)
        if FOREIGN.search(rest) and not asked:
            return Event(Kind.MENTION, who)
        lead = contexts.JOINTS.sub("", f"{before.strip()} ").strip()
        if lead in ("", "the", "a", "an"):  # the name is the subject of its clause
            if contexts.DID_IT.match(after) or contexts.TOOK_OVER.match(after):
                return Event(Kind.ASSERT, who)
            negation = cues.NEGATED.search(after)
            if negation and not self.question.asked.search(after[: negation.start()]):
                return Event(Kind.QUALIFY, who)
            if concerned and not self._of_something_else(after):
                return Event(Kind.ASSERT, who)
            return Event(Kind.MENTION, who)
        if cues.NEGATED.search(before):
            return Event(Kind.QUALIFY, who)
        if self._of_something_else(after):
            return Event(Kind.MENTION, who)
        if concerned or contexts.PRONOUN.search(lead):
            return Event(Kind.ASSERT, who)
        return Event(Kind.ASSERT, who, strong=False)

    def _of_something_else(self, after: str) -> bool:
        """ "X wrote Brave New World": what was asked, but of another subject."""
        found = self.question.asked.search(after)
        word = re.match(r"\s*(?:the |a )?([\w'-]+)", after[found.end() :]) if found else None
        return bool(word and word[1] in self.proper) and not self.question.subject.search(after)


def _foreign(text: str) -> tuple[Event, ...] | None:
    """A sentence in another language, read with what most languages share: a negation near the name."""
    letters = [c for c in text if c.isalpha()]
    other_script = sum(not c.isascii() for c in letters) * 2 > len(letters) > 0
    without = _ANY_MARK.sub(" ", text)
    english = len(contexts.ENGLISH_WORDS.findall(without))
    foreign = len(contexts.FOREIGN_WORDS.findall(without)) > english
    if not (other_script or foreign or (contexts.FOREIGN_WRONG.search(without) and not english)):
        return None
    events: list[Event] = []
    question = text.rstrip("\"') ").endswith(("?", "？"))
    for clause in re.split(r"[,;:，、；：]|\s-\s", text):
        marks = list(_ANY_MARK.finditer(clause))
        if contexts.FOREIGN_WRONG.search(clause):
            events += [Event(Kind.DENY, f"x{m[2]}x") for m in marks] or [Event(Kind.RETRACT)]
            continue
        if not marks and contexts.FOREIGN_NO.fullmatch(clause):
            events.append(Event(Kind.LEAD_RETRACT))
        for mark in marks:
            near = clause[max(0, mark.start() - 30) : mark.start()].split()[-4:]
            behind = clause[mark.end() :].split()[:4]
            negated = contexts.FOREIGN_NEGATION.search(" ".join(near)) or contexts.FOREIGN_NEGATION.search(
                " ".join(behind)
            )
            if other_script:
                window = clause[max(0, mark.start() - 5) : mark.start()] + clause[mark.end() : mark.end() + 9]
                negated = negated or contexts.SPACELESS_NEGATION.search(window)
            kind = Kind.DENY if negated else Kind.ASK if question else Kind.ASSERT
            events.append(Event(kind, f"x{mark[2]}x"))
    return tuple(events)
