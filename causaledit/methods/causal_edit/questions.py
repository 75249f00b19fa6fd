"""Stage 2's further prompts: questions that need the new fact and something beside it (arXiv 2602.02028)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from causaledit.facts.answers import mentions
from causaledit.facts.text import capitalised
from causaledit.methods.causal_edit import prompts as P
from causaledit.methods.causal_edit.bootstrap import WantedAnswer
from causaledit.methods.causal_edit.traces import direct_answer
from causaledit.methods.shared.questions import QuestionPool, QuestionReport, same_subject
from causaledit.methods.shared.window import check_length
from causaledit.models.chat import render
from causaledit.models.generation import generate_texts

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.shared.questions import Question
    from causaledit.support.costs import TokenCount
    from causaledit.support.progress import ProgressSink

KIND = "question"


def asks_questions(hparams: CausalEditHyperParams) -> bool:
    """Whether stage 2 asks questions that need the new fact."""
    return hparams.multi_hop_questions > 0 and 2 in hparams.stages


def check_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
) -> None:
    """Refuse questions that cannot be had, or that do not fit beside the narrative.

    Raises:
        RequestError: `question_file` cannot be read or has no entry for an edit, or a question is too long.
    """
    if not asks_questions(hparams):
        return
    pool, causal = QuestionPool(hparams, edits), hparams.editing_mode == "causal"
    for number, edit in enumerate(edits):
        questions, _ = pool.of(edit, warn=False)  # the model may still write some
        told = dataclasses.replace(edit, ground_truth=edit.ground_truth or "…", narrative=edit.narrative or "")
        context = P.privileged_context(told, causal=causal)
        longest = max((question.text for question in questions), key=len, default="")
        prompt = render(tokenizer, P.teacher_messages(longest, context, role="user"))
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) + hparams.distill_max_new_tokens
        check_length(model, tokens, f"The narrative of {edit.subject!r} with a question and its answer")
        pool.check_writing(model, tokenizer, edit, context, same_subject(edits, number))


def needing_questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: CausalEditHyperParams,
    *,
    context_role: str,
    progress: ProgressSink,
    count: TokenCount,
) -> tuple[list[list[WantedAnswer]], list[QuestionReport]]:
    """Each edit's questions, with what the edited model should say to them.

    That is the answer that is given with a question, where one is; else what the unedited model answers open-book.
    With `distill_prompts: all` nobody asks for it, and it is left empty.

    Args:
        model: The unedited network.

    Returns:
        Both per edit: the questions, and how many there are and what was dropped. Empty without questions.
    """
    if not asks_questions(hparams):
        return [[] for _ in requests], []
    pool, causal = QuestionPool(hparams, requests), hparams.editing_mode == "causal"
    found: list[list[WantedAnswer]] = []
    reports: list[QuestionReport] = []
    progress.start("stage 2: questions", len(requests))
    for number, request in enumerate(requests):
        before = count.generated
        context = P.privileged_context(request, causal=causal)
        written: list[str] = []
        dropped: Counter[str] | None = None
        if hparams.writes_questions:
            others = same_subject(requests, number)
            written, dropped = pool.write(model, tokenizer, request, context, others, count=count)
        questions, report = pool.of(request, written, dropped)
        answers = [""] * len(questions)
        if hparams.distill_prompts == "leads":
            told = [P.teacher_messages(question.text, context, role=context_role) for question in questions]
            answers = generate_texts(
                model, tokenizer, [render(tokenizer, messages) for messages in told],
                max_new_tokens=hparams.distill_max_new_tokens, count=count,
            )  # fmt: skip
        pairs = zip(questions, answers, strict=True)
        wanted = [WantedAnswer(q.text, KIND, _wanted(q, answer.strip(), request)) for q, answer in pairs]
        if hparams.distill_prompts == "leads" and (mute := sum(not answer.completion for answer in wanted)):
            report.multi_hop -= mute
            report.rejected["no open-book answer"] = mute
            wanted = [answer for answer in wanted if answer.completion]
        found.append(wanted)
        reports.append(report)
        progress.advance(tokens=count.generated - before)
    progress.finish()
    return found, reports


def _wanted(question: Question, answer: str, request: EditRequest) -> str:
    """The open-book answer, unless the right one is known and it has another."""
    if question.answer is None or mentions(answer, [question.answer]):
        return answer
    if question.told or question.answer == request.target_new:
        return question.told or direct_answer(request)
    return f"{capitalised(question.answer)}."
