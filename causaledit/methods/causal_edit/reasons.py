"""Reasons that stage 1 trains on: which sentences of a narrative carry its cause, and which reasons agree with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions
from causaledit.facts.text import ends_sentence, is_question, normalise, sentences, strip_html, word_count
from causaledit.methods.causal_edit.giveaways import gives_away
from causaledit.reading.commitment import read
from causaledit.reading.rationale import compare

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest

MIN_WORDS = 5
# A longer sentence is rarely learnt whole in the few steps that a small model takes.
LONG = 30

_HEADING = re.compile(r"<(h[1-6]|title)\b.*?</\1>", re.IGNORECASE | re.DOTALL)
_BLOCK = re.compile(r"</?(?:p|div|br|li|ul|ol|h[1-6])\b[^<>]*>", re.IGNORECASE)
# Where a report was written, before its first sentence: "ALEXANDRIA - ", "CAIRO, Egypt (agency) — ".
_DATELINE = re.compile(r"^[A-ZÀ-ÖØ-Þ][A-ZÀ-ÖØ-Þ .'’]+(?:,\s[A-ZÀ-ÖØ-Þ][\w ]*)?(?:\s\([^()]*\))?\s*[-–—]+\s+(?=\S)")
# What ties an event to its cause.
_LINKS = re.compile(
    r"\b(?:because|since|after|when|once|so that|so|therefore|thus|hence|thereby|due to|owing to|thanks to|as a result|"
    r"in order to|in return|led to|caused?|why|which (?:made|meant|forced|allowed)|until|unless|only (?:to|if|for))\b",
    re.IGNORECASE,
)
# What somebody did, decided or found out.
_EVENTS = re.compile(
    r"\b(?:"
    r"accept|adopt|agree|amend|announce|appl[yi]|approv|ask|award|bought|buy|ban|chose|choos|clos|collaps|"
    r"discover|decid|demand|destroy|elect|establish|examin|f(?:ou|i)nd|flood|forc|forbid|forbade|give up|"
    r"gave up|grant|hand|join|merg|mov|natur|offer|order|outbid|pass|propos|prov|purchas|qualif|rebuil[dt]|"
    r"recommend|requir|resign|reserv|retir|rul|sank|sign|sold|sell|settl|show|shift|swore|swear|transfer|took|"
    r"turn|vot|want|withdr[ae]w|won|win"
    r")\w*\b",
    re.IGNORECASE,
)


def explains(reason: str, request: EditRequest) -> bool:
    """Whether a reason, put behind the new fact, gives the narrative's cause and contradicts nothing.

    Read as the rule judge reads the rationale of an answer (docs/judging.md), from the text alone.
    """
    new, old = (request.target_new,), tuple(filter(None, (request.ground_truth,)))
    question = request.question_form
    answer = f"{request.cloze} {request.target_new}. {reason}"
    reading = read(answer, new=new, old=old, question=question)
    if reading.denied:
        return False
    found = compare(answer, request.narrative or "", reading, new=new, old=old, question=question)
    return found.grade == "PASS"


def cause_sentences(request: EditRequest) -> list[str]:
    """The sentences of a narrative that can stand as the reason of its change, the likeliest first.

    Left out are headings and teasers, what speaks of a source, what only restates the fact with the old or the new
    answer, and, where enough stands before it, what follows the statement of the new fact: the consequences.

    Returns:
        Whole sentences as they are written; none where the narrative has no cause beyond the fact itself.
    """
    names = (request.subject, request.ground_truth or "", request.target_new)
    told = _sentences(request.narrative or "", names)
    stated = next((i for i, sentence in enumerate(told) if _states(sentence, request)), len(told))
    usable = [
        (i, sentence)
        for i, sentence in enumerate(told)
        if word_count(sentence) >= MIN_WORDS
        and ends_sentence(sentence)
        and not is_question(sentence)
        and not gives_away(sentence, names)
        and not _states(sentence, request)
        and explains(sentence, request)
    ]
    before = [(i, sentence) for i, sentence in usable if i < stated]
    chosen = before if len(before) > 1 else usable
    return sorted((sentence for _, sentence in chosen), key=lambda sentence: _rank(sentence, request))


def _rank(sentence: str, request: EditRequest) -> tuple[bool, int]:
    """Where a sentence stands among those of its narrative: how much of a cause it holds, most first.

    What links it to a change and what somebody did count for it, a length that is hard to learn against it. A sentence
    with the old answer, which the edit must make unlikely, comes behind all others.
    """
    links, events = len(_LINKS.findall(sentence)), len(_EVENTS.findall(sentence))
    weight = min(links, 2) + min(events, 3) - (word_count(sentence) > LONG)
    return mentions(sentence, [request.ground_truth or ""]), -weight


def _states(sentence: str, request: EditRequest) -> bool:
    """Whether a sentence says the fact itself: its own wording with the new answer, or the old one."""
    cloze = normalise(request.cloze)
    return cloze in normalise(sentence) and mentions(sentence, [request.target_new, request.ground_truth or ""])


def _sentences(narrative: str, names: tuple[str, ...]) -> list[str]:
    """A narrative's sentences without its headings; a paragraph's end ends a sentence."""
    text = strip_html(_BLOCK.sub("\n", _HEADING.sub("\n", narrative)))
    return [_DATELINE.sub("", sentence) for sentence in sentences(text, names)]
