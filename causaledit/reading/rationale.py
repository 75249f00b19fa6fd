"""Whether an explanation gives the narrative's cause: a comparison of the words that carry it.

What carries a cause is what is left of a text without the words of the question, both answers, function words
and the vocabulary that any change has in common ("now", "changed", "official"). Names and numbers weigh double.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

from causaledit.facts.text import normalise, strip_html
from causaledit.reading.names import NEW, OLD, OTHER, names_for
from causaledit.reading.text import plain, sentences
from causaledit.reading.wording import word_set, wordings, words

if TYPE_CHECKING:
    from causaledit.reading.commitment import Reading

# An explanation shorter than this is none; a share above AGREES agrees, one up to DIFFERS gives another cause.
FEWEST_WORDS = 4
ENOUGH_TO_DIFFER = 5
AGREES, ENOUGH_TO_AGREE = 0.3, 3
DIFFERS = 0.1

_CAUSE = words(r"""
    because | since | due to | owing to | thanks to | after | when | as a result | led to | caused? | therefore
    so that | in order to
    why | reason\w* | following | decided | decision | voted | forced | which is why | consequen\w+ | made it
    had to | so
""")
_COMMON = word_set("""
    a about after again all already also although always am an and another answer any are as at away back be became
    because become been before being best better between both but by call called came can cause caused change
    changed changes city come consequence correct could country current currently day decided decision did do does
    done due each earlier easily else end even ever every explain explanation fact few final finally first follow
    following for former formerly from gave get give given go goes gone got had happen happened has have having he
    hence her here hers him his how however i if in indeed instead into is it its itself just keep kept know known
    last later lead led less let like list listed long longer made make makes many may me mean means might more most
    move moved much must my name named never new no nobody not nothing now of off office official officially often
    old on once one only onto option or other our out over own part people perhaps place possible present previous
    previously put question rather reason record recorded records replace replaced result right said same say says
    see seem seems set several she should since so some something soon step still such take taken tell than that the
    their them then there therefore these they thing think this those though through thus time to today together
    told too took true turn turned two under until up update updated upon us use used very want was way we well went
    were what when where whether which while who whole whom whose why will with within without would year years yes
    yet you your
""")
_WORD = re.compile(r"[^\W_][\w'-]*")
_SUFFIX = re.compile(
    wordings("""
    i[sz]ations? | ations? | i[sz]ing | i[sz]ed | i[sz]es | i[sz]e | ments? | ings? | ers? | ions? | ies | ied
    ally | ly | als?
    ed | es | s | y | e
    """)
    + "$"
)


@dataclass(frozen=True)
class Comparison:
    """How an explanation stands to a narrative.

    Attributes:
        grade: PASS, FAIL or UNSURE.
        evidence: The sentence of the response that shows it best, verbatim.
        reason: In words.
    """

    grade: Literal["PASS", "FAIL", "UNSURE"]
    evidence: str
    reason: str


def compare(
    response: str,
    narrative: str,
    reading: Reading,
    *,
    new: tuple[str, ...],
    old: tuple[str, ...] = (),
    question: str = "",
) -> Comparison:
    """Compare an explanation with the narrative's cause.

    Args:
        response: The model's text.
        narrative: Tells the cause; HTML tags are left out.
        reading: What the response commits to.
        new: The new answer and its aliases.
        old: The old one and its aliases.
        question: What is asked.
    """

    def weights(text: str) -> dict[str, int]:
        return _content(text, question, new, old)

    if reading.asserted and reading.denied and reading.ends_on != NEW:
        return Comparison("FAIL", reading.denied, "the response refutes the new answer")
    if reading.ends_on in (OLD, OTHER):
        return Comparison("FAIL", reading.final, "the response explains another answer")
    cause = weights(strip_html(narrative))
    if not cause:
        return Comparison("UNSURE", "", "the narrative holds no cause beyond the fact itself")
    explained = [(s, weights(s)) for s in sentences(response, new[:1])]
    words = {stem: weight for _, found in explained for stem, weight in found.items()}
    if len(words) < FEWEST_WORDS:
        return Comparison("UNSURE", "", "the response gives no explanation")
    shared = {stem: weight for stem, weight in words.items() if stem in cause}
    share = sum(shared.values()) / sum(words.values())
    figures = f"{len(shared)} of {len(words)} content words are the narrative's"
    if share >= AGREES and len(shared) >= ENOUGH_TO_AGREE:
        best = max(explained, key=lambda pair: sum(w for stem, w in pair[1].items() if stem in cause))
        return Comparison("PASS", best[0], figures)
    given = [pair for pair in explained if len(pair[1]) > 1 and _CAUSE.search(normalise(pair[0]))]
    if share <= DIFFERS and len(words) >= ENOUGH_TO_DIFFER and given:
        return Comparison("FAIL", max(given, key=lambda pair: len(pair[1]))[0], f"another cause: {figures}")
    return Comparison("UNSURE", "", f"thin evidence: {figures}")


@lru_cache(maxsize=4096)
def _content(text: str, question: str, new: tuple[str, ...], old: tuple[str, ...]) -> dict[str, int]:
    """The stems that carry a cause, with their weights: 2 for names and numbers, 1 for other words."""
    marked = names_for(new, old, question, "").mark(plain(text))
    asked = {_stem(w) for w in _WORD.findall(normalise(question))}
    asked |= {_stem(w) for name in (*new, *old) for w in _WORD.findall(normalise(name))}
    found: dict[str, int] = {}
    for match in _WORD.finditer(marked):
        word = match.group()
        folded = normalise(word).removesuffix("'s")
        if folded in _COMMON or folded in (NEW, OLD, OTHER) or (len(folded) < 3 and not folded.isdigit()):
            continue
        stem = _stem(folded)
        if stem in asked:
            continue
        named = word[0].isdigit() or (word[0].isupper() and not _opens(marked, match.start()))
        found[stem] = max(found.get(stem, 0), 2 if named else 1)
    return found


def _opens(text: str, start: int) -> bool:
    """Whether a word opens its sentence, so that its capital says nothing."""
    head = text[:start].rstrip(" \"'(*-")
    return not head or head[-1] in ".!?:;\n>"


def _stem(word: str) -> str:
    """A crude stem: "relocated" and "relocation" meet."""
    if len(word) <= 4:
        return word
    shorter = _SUFFIX.sub("", word)
    return shorter[:7] if len(shorter) >= 3 else word
