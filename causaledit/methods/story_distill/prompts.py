"""Every text StoryDistill shows a model. Written for this project."""

from __future__ import annotations

from typing import TYPE_CHECKING

from causaledit.methods.shared.question_texts import new_fact
from causaledit.models.chat import Messages, user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest

OPEN_TAG, CLOSE_TAG = "<answer>", "</answer>"

# ---- what the teacher reads --------------------------------------------------------------------------
_CLOSING = "This is how things stand now. It takes the place of whatever was known about {subject} before."
_ANSWERS = "{cloze} {new}. It used to be {old}, and no longer is."

# ---- what is asked of both ---------------------------------------------------------------------------
_CUES = {
    ("answer", "plain"): "{question}",
    ("answer", "tags"): "{question}\nReply with the answer alone, between {open} and {close}.",
    ("reasoning", "plain"): "{question} Reason it through, then give the answer.",
    (
        "reasoning",
        "tags",
    ): "{question}\nReason it through step by step, then give the answer between {open} and {close}.",
}


def teacher_context(request: EditRequest, *, state_answer: bool, others: Sequence[EditRequest] = ()) -> str:
    """What the teacher reads and the student does not.

    Args:
        request: The edit; its narrative is the story, and without one the bare fact stands there.
        state_answer: Close with both answers in a sentence.
        others: The batch's other edits of the same subject: what is new about it belongs together.
    """
    told = [r.narrative or new_fact(r) for r in (request, *others)]
    stated = _ANSWERS.format(cloze=request.cloze, new=request.target_new, old=request.ground_truth)
    closing = _CLOSING.format(subject=request.subject)
    return "\n\n".join((*told, f"{closing} {stated}" if state_answer else closing))


def asked(question: str, *, mode: str, answer_format: str) -> str:
    """The user's message for a question, as both teacher and student get it."""
    return _CUES[mode, answer_format].format(question=question, open=OPEN_TAG, close=CLOSE_TAG)


def teacher_messages(prompt: str, context: str) -> Messages:
    """The teacher's conversation: the story in the user's message, before the question (arXiv 2602.02028)."""
    return user(f"{context}\n\n{prompt}")


def answered(answer: str, *, answer_format: str, reasoning: str = "") -> str:
    """A written answer in the form that the question asks for."""
    last = f"{OPEN_TAG}{answer}{CLOSE_TAG}" if answer_format == "tags" else answer
    return f"{reasoning} {last}" if reasoning else last
