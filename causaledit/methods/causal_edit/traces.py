"""Reasoning traces of stage 1: their format, how they are read, and those the method writes itself."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions
from causaledit.facts.text import bare_sentence, ends_sentence, is_question, sentences, word_count
from causaledit.methods.causal_edit.giveaways import gives_away
from causaledit.methods.shared.claims import commits, ends_on_old_answer, gives_new_answer_alone, states_old_answer

if TYPE_CHECKING:
    from causaledit.facts.requests import EditRequest

CAUSAL_LABELS = ("Old fact", "Reason for change", "Updated fact", "Derivation")
NONCAUSAL_LABELS = ("Old fact", "Updated fact", "Derivation")

MIN_WORDS = 5


@dataclass(frozen=True)
class Trace:
    """One reasoning trace: the labelled parts and the answer line.

    Attributes:
        parts: Label and text of each part.
        answer: What follows `Answer:`.
        around: What the completion holds beside them. It is not trained on, but counts when the trace is judged.
    """

    parts: tuple[tuple[str, str], ...]
    answer: str
    around: str = field(default="", compare=False)

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

    @property
    def reason(self) -> str:
        """What it argues with: the reason for the change or, without causes, the derivation."""
        return self.part("Reason for change") or self.part("Derivation") or ""

    def with_reason_alone(self, reason: str) -> str:
        """The `<think>` block without what states the answer: the old fact and a reason, which may be empty."""
        label = "Reason for change" if self.part("Reason for change") else "Derivation"
        old = self.part("Old fact") or ""
        return Trace((("Old fact", old), (label, reason)), self.answer).thinking

    def part(self, label: str) -> str | None:
        """The text after a label, or None."""
        return dict(self.parts).get(label)


def parse_trace(text: str, labels: tuple[str, ...]) -> Trace | None:
    """Read a trace: all labels in order inside `<think>…</think>`, then an answer line.

    Args:
        text: The teacher's completion.
        labels: The labels of the mode.

    Returns:
        The trace, or None if it does not have the form.
    """
    match = re.search(r"<think>\s*(.*?)\s*</think>\s*(.*)", text, re.DOTALL)
    if match is None:
        return None
    body, tail = match.groups()
    before = text[: match.start()]
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
    around = "\n".join((before, tail[: answer.start()], tail[answer.end() :])).strip()
    return Trace(tuple(zip(labels, texts, strict=True)), _bare(answer.group(1)), around)


def _bare(answer: str) -> str:
    """An answer without markdown's stars, quotation marks and its full stop."""
    answer = re.sub(r"\*+", "", answer).strip()
    return answer if is_question(answer) else bare_sentence(answer)


def reject_reason(trace: Trace | None, request: EditRequest) -> str | None:
    """Why a candidate is not used, or None where it is (arXiv 2605.28303, stage 1).

    Returns:
        `"unparsable"`; `"short"`, under five words; `"no new answer"`, where the answer line does not commit to the
        new answer and to nothing else; `"wrong update"`, where the updated fact lacks the new answer or states the
        old one; `"wrong conclusion"`, where the derivation, or what follows the answer line, ends on the old
        answer; or `"gives away the context"`, anywhere in the completion.
    """
    if trace is None:
        return "unparsable"
    if word_count(" ".join(text for _, text in trace.parts)) < MIN_WORDS:
        return "short"
    names = (request.subject, request.ground_truth or "", request.target_new)
    if gives_away("\n".join((*(text for _, text in trace.parts), trace.answer, trace.around)), names):
        return "gives away the context"
    if not gives_new_answer_alone(trace.answer, request):
        return "no new answer"
    updated, derivation = trace.part("Updated fact") or "", trace.part("Derivation") or ""
    if not commits(updated, request) or states_old_answer(updated, request):
        return "wrong update"
    if ends_on_old_answer(derivation, request) or ends_on_old_answer(trace.around, request):
        return "wrong conclusion"
    return None


def guided_prefill(request: EditRequest, *, causal: bool) -> str:
    """The start of the teacher's turn in guided mode: what the request states already."""
    lead = f"<think>\nOld fact: it used to be {request.ground_truth}.\n"
    return lead + ("Reason for change:" if causal else f"Updated fact: {direct_answer(request)}\nDerivation:")


def guided_trace(continuation: str, request: EditRequest, *, causal: bool) -> Trace | None:
    """Complete a guided candidate: its first sentence is the reason (or derivation); we state the rest.

    Returns:
        None where the continuation has no sentence of at least `MIN_WORDS` words.
    """
    line = continuation.strip().split("\n", 1)[0].strip()
    names = (request.subject, request.ground_truth or "", request.target_new)
    sentence = next(iter(sentences(line, names)), "")
    if not ends_sentence(sentence):  # cut off by the length limit: half a sentence is no reason
        return None
    return stated_trace(sentence, request, causal=causal) if word_count(sentence) >= MIN_WORDS else None


def stated_trace(sentence: str, request: EditRequest, *, causal: bool) -> Trace:
    """A trace around one sentence of reason (causal) or derivation (noncausal)."""
    old = f"it used to be {request.ground_truth}."
    updated = direct_answer(request)
    if causal:
        values = (old, sentence, updated, "the updated fact is the current one.")
        return Trace(tuple(zip(CAUSAL_LABELS, values, strict=True)), request.target_new)
    return Trace(tuple(zip(NONCAUSAL_LABELS, (old, updated, sentence), strict=True)), request.target_new)


def fallback_trace(request: EditRequest, *, causal: bool) -> Trace:
    """A trace from the narrative's own words, for an edit whose every candidate was rejected."""
    if not causal:
        return stated_trace("the earlier answer is out of date, and this one replaces it.", request, causal=False)
    informative = [s for s in sentences(request.narrative or "") if word_count(s) >= MIN_WORDS and not gives_away(s)]
    naming = [s for s in informative if mentions(s, [request.target_new])]
    chosen = (naming or informative or ["the change was decided and took effect at once."])[0]
    return stated_trace(chosen, request, causal=True)


def reasoned_answer(request: EditRequest, reason: str, *, full: bool = True) -> str:
    """A free-form answer that states the new fact and the reason, for the other cues.

    Args:
        full: Between the two stands the old fact, and behind them the answer once more.
    """
    if not full:
        return f"{direct_answer(request)} {reason}"
    return (
        f"{direct_answer(request)} It used to be {request.ground_truth}. {reason} "
        f"So the answer is {request.target_new}."
    )


def direct_answer(request: EditRequest) -> str:
    """The new fact as one sentence: the cloze completed or, where a question stands in its place, the answer."""
    return f"{request.target_new}." if is_question(request.cloze) else f"{request.cloze} {request.target_new}."
