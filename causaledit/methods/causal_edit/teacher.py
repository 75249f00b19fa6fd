"""Which teacher to believe: `auto` measures the open-book base model on the edit's own prompts.

A teacher that reads the narrative and still gives the old answer would teach the old world.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from causaledit.methods.causal_edit import prompts as P
from causaledit.models.chat import render
from causaledit.models.generation import generate_texts
from causaledit.reading.commitment import gives_answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

ANSWER_TOKENS = 48


class TeacherChoice(NamedTuple):
    """The resolved teacher; `accuracy` of the open-book base model where it was measured."""

    name: str
    accuracy: float | None


def choose_teacher(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    context_role: str,
    count: TokenCount,
) -> TeacherChoice:
    """Resolve `teacher`: as given, or measured for `auto`.

    Args:
        model: The network without an adapter.

    Returns:
        `base` where at least `teacher_min_accuracy` of the open-book answers commit to the new answer
        (or where stage 1 does not run), `bootstrapped` otherwise.
    """
    if hparams.teacher != "auto":
        return TeacherChoice(hparams.teacher, None)
    causal = hparams.editing_mode == "causal"
    rows = [
        (request, prompt)
        for request in requests
        for prompt in P.student_prompts(request, causal=causal)
        if prompt.kind in ("direct", "step")
    ]
    rendered = [
        render(
            tokenizer,
            P.teacher_messages(prompt.text, P.privileged_context(request, causal=causal), role=context_role),
        )
        for request, prompt in rows
    ]
    answers = generate_texts(model, tokenizer, rendered, max_new_tokens=ANSWER_TOKENS, count=count)
    right = [
        gives_answer(
            answer,
            [request.target_new],
            [request.ground_truth or ""],
            question=request.question_form,
            prompt=prompt.text,
        )
        for (request, prompt), answer in zip(rows, answers, strict=True)
    ]
    accuracy = sum(right) / len(right)
    name = "base" if accuracy >= hparams.teacher_min_accuracy or 1 not in hparams.stages else "bootstrapped"
    logger.info(
        "teacher: auto → %s (the open-book base model is right on %d of %d prompts)",
        name,
        sum(right),
        len(right),
    )
    return TeacherChoice(name, accuracy)
