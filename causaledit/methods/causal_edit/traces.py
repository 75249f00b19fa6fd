"""Reasoning traces of stage 1: their format, how they are read, and what is rejected."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest

MIN_WORDS = 5
CAUSAL_LABELS = ("Old fact", "Reason for change", "Updated fact", "Derivation")
NONCAUSAL_LABELS = ("Old fact", "Updated fact", "Derivation")

# Wording that gives away the hidden context, and hedges. Read after the edit's own names are taken out,
# so that a subject called "The Article" does not condemn every trace about it.
_GIVEAWAY = re.compile(
    r"\b(articles?|sources?|documents?|passages?|reports?|texts?|context|search(es|ed|ing)?|users?|cheat ?sheets?|"
    r"according to|as (stated|mentioned|described)|the (statement|sentence|paragraph|question|prompt|story)|"
    r"(original|previous|provided|given) (answer|information|text)|"
    r"perhaps|possibly|probably|maybe|might|may be|it seems|seems to|appears to|not sure|i think|allegedly|unclear|"
    r"as an ai|language model)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Trace:
    """One reasoning trace: the labelled parts and the answer line."""

    parts: tuple[tuple[str, str], ...]
    answer: str

    @property
    def thinking(self) -> str:
        """The `<think>` block."""
        body = "\n".join(f"{label}: {text}" for label, text in self.parts)
        return f"<think>\n{body}\n</think>\n"

    @property
    def answer_line(self) -> str:
        """The closing line."""
        return f"Answer: {self.answer}"

    @property
    def text(self) -> str:
        """The whole completion that stage 1 trains on."""
        return self.thinking + self.answer_line

    def part(self, label: str) -> str | None:
        """The text behind a label, or None."""
        return dict(self.parts).get(label)


def parse_trace(text: str, labels: tuple[str, ...]) -> Trace | None:
    """Read a trace: all labels in order inside `<think>…</think>`, then an answer line.

    Args:
        text: The teacher's completion.
        labels: The labels of the mode.

    Returns:
        The trace, or None where the form is not kept.
    """
    match = re.search(r"<think>\s*(.*?)\s*</think>\s*(.*)", text, re.DOTALL)
    if match is None:
        return None
    body, tail = match.groups()
    # a bullet or number belongs to a label only at the start of a line: "in 2020." ends the part before it
    bullet = r"(?:[-*]\s+|\d+[.)]\s*)?"
    parts_ = (rf"\**{re.escape(label)}\**\s*:\**\s*(.+?)" for label in labels)
    pattern = bullet + (r"(?:\s*\n\s*" + bullet + r"|\s+)").join(parts_) + r"\s*$"
    parts = re.match(pattern, body, re.DOTALL | re.IGNORECASE)
    answer = re.search(r"answer\s*:\**\s*(.+)", tail, re.IGNORECASE)
    if parts is None or answer is None:
        return None
    texts = [" ".join(part.split()) for part in parts.groups()]
    if not all(texts):
        return None
    return Trace(tuple(zip(labels, texts, strict=True)), answer.group(1).strip().rstrip(".").strip())


def reject_reason(trace: Trace | None, request: EditRequest) -> str | None:
    """Why a candidate is not used, or None where it is.

    Returns:
        `"unparsable"`, `"short"`, `"no new answer"` or `"gives away the context"`.
    """
    if trace is None:
        return "unparsable"
    body = " ".join(text for _, text in trace.parts)
    if len(body.split()) < MIN_WORDS:
        return "short"
    if not mentions(trace.answer, [request.target_new]):
        return "no new answer"
    for name in (request.subject, request.ground_truth or "", request.target_new):
        if name:
            body = re.sub(re.escape(name), " ", body, flags=re.IGNORECASE)
    return "gives away the context" if _GIVEAWAY.search(body) else None


def guided_prefill(request: EditRequest, *, causal: bool) -> str:
    """The start of the teacher's turn in guided mode: what the request states already."""
    lead = f"<think>\nOld fact: it used to be {request.ground_truth}.\n"
    return lead + (
        "Reason for change:" if causal else f"Updated fact: {request.cloze} {request.target_new}.\nDerivation:"
    )


def guided_trace(continuation: str, request: EditRequest, *, causal: bool) -> Trace | None:
    """Complete a guided candidate: its first sentence is the reason (or derivation), the rest is stated.

    Returns:
        None where the continuation has no sentence of at least `MIN_WORDS` words.
    """
    line = continuation.strip().split("\n", 1)[0].strip()
    end = re.search(r"(?<!\b[A-Z])[.!?](?=\s|$)", line)
    if end is None:  # cut off by the length limit: half a sentence is no reason
        return None
    sentence = line[: end.end()]
    if len(sentence.split()) < MIN_WORDS:
        return None
    return stated_trace(sentence, request, causal=causal)


def stated_trace(sentence: str, request: EditRequest, *, causal: bool) -> Trace:
    """A trace around one sentence of reason (causal) or derivation (noncausal)."""
    old = f"it used to be {request.ground_truth}."
    updated = f"{request.cloze} {request.target_new}."
    if causal:
        values = (old, sentence, updated, "the updated fact is the current one.")
        return Trace(tuple(zip(CAUSAL_LABELS, values, strict=True)), request.target_new)
    return Trace(tuple(zip(NONCAUSAL_LABELS, (old, updated, sentence), strict=True)), request.target_new)


def fallback_trace(request: EditRequest, *, causal: bool) -> Trace:
    """A trace from the narrative's own words, for an edit whose every candidate was rejected."""
    if not causal:
        return stated_trace("the earlier answer is out of date, and this one replaces it.", request, causal=False)
    sentences = re.split(r"(?<=[.!?])\s+", request.narrative or "")
    informative = [s for s in sentences if len(s.split()) >= MIN_WORDS and not _GIVEAWAY.search(s)]
    naming = [s for s in informative if mentions(s, [request.target_new])]
    chosen = (naming or informative or ["the change was decided and took effect at once."])[0]
    return stated_trace(chosen, request, causal=True)


def reasoned_answer(request: EditRequest, reason: str) -> str:
    """A free-form answer that states the new fact, the old one and the reason, for the other cues."""
    return (
        f"{request.cloze} {request.target_new}. It used to be {request.ground_truth}. {reason} "
        f"So the answer is {request.target_new}."
    )


def direct_answer(request: EditRequest) -> str:
    """The new fact as one sentence."""
    return f"{request.cloze} {request.target_new}."
