"""StoryDistill as a host calls it: request → story → questions → teacher's answers → distillation → merged model."""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise
from causaledit.methods.call import host_call
from causaledit.methods.method import MethodReport
from causaledit.methods.shared.compositions import compose
from causaledit.methods.shared.contrast import begin_in_contrast
from causaledit.methods.shared.delivery import deliver
from causaledit.methods.shared.neighbours import neighbour_questions, never_held
from causaledit.methods.shared.preservation import build_preservation, preserved_questions
from causaledit.methods.shared.questions import QuestionPool, QuestionReport, same_subject
from causaledit.methods.shared.rehearsal import TrainedRow, remember, rows_of_pairs
from causaledit.methods.shared.supervised import completion_rows
from causaledit.methods.story_distill import METHOD
from causaledit.methods.story_distill import prompts as P
from causaledit.methods.story_distill.checks import check_before_compute
from causaledit.methods.story_distill.distil import run_distillation
from causaledit.methods.story_distill.targets import (
    Row,
    Target,
    TargetReport,
    asked,
    cached_gigabytes,
    rows_of,
    sampled_targets,
    teacher_logits,
    written_targets,
)
from causaledit.models.adapters import add_adapter
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import greedy_answers
from causaledit.narratives.resolve import resolve_edits

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.call import Call
    from causaledit.methods.shared.compositions import Composition
    from causaledit.methods.shared.questions import Question
    from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
    from causaledit.models.edited import Edited

logger = logging.getLogger(__name__)


@dataclass
class StoryReport(MethodReport):
    """The report of every method, with the edits' old answers and stories filled in.

    Attributes:
        narrative_source: Per edit: request, file, model, template or none.
        questions: Per edit, how many questions there are and what was dropped.
        targets: Per edit, how many answers are learnt, what was dropped, and how often the teacher was right.
        targets_cached: Whether the teacher's distributions were computed once, before training.
        story_share: Share of visits in which the student read the story.
    """

    narrative_source: list[str] = field(default_factory=list)
    questions: list[QuestionReport] = field(default_factory=list)
    targets: list[TargetReport] = field(default_factory=list)
    targets_cached: bool = False
    story_share: float | None = None

    def card(self, hparams: Any, metrics: list[dict[str, Any]]) -> dict[str, Any]:
        """The card of every method, plus stories, questions and targets."""
        return {
            **super().card(hparams, metrics),
            "narrative_source": self.narrative_source,
            "questions": [vars(item) for item in self.questions],
            "targets": [vars(item) for item in self.targets],
            "targets_cached": self.targets_cached,
            "story_share": self.story_share,
        }


def edit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: list[EditRequest],
    hparams: StoryDistillHyperParams,
    call: Call,
) -> Edited:
    """Distil a model that has read each edit's story into an adapter, which is then merged (arXiv 2602.02028)."""
    tokenizer = prepare_tokenizer(tokenizer, hparams.chat_template_kwargs, model=model)
    check_before_compute(model, tokenizer, edits, hparams, merged=hparams.merge_adapter or call.sequence is not None)
    report, tally = call.report, call.report.tally
    with tally.timed("narrative"):
        resolved = resolve_edits(
            model,
            tokenizer,
            edits,
            causal=hparams.context == "story",
            narrative_file=hparams.narrative_file,
            max_new_tokens=hparams.narrative_max_new_tokens,
            count=tally.tokens,
        )
    requests = [item.request for item in resolved]
    report.requests, report.narrative_source = requests, [item.narrative_source for item in resolved]
    contexts = [
        P.teacher_context(request, state_answer=hparams.state_answer, others=same_subject(requests, i))
        for i, request in enumerate(requests)
    ]
    with tally.timed("preserve"):
        preservation = build_preservation(
            model, tokenizer, requests, hparams,
            count=tally.tokens, sequence=call.sequence, first_layer=hparams.first_layer,
        )  # fmt: skip
    with tally.timed("questions"):
        questions = _questions(model, tokenizer, requests, contexts, hparams, call)
    with tally.timed("targets"):
        targets = _targets(model, tokenizer, requests, contexts, questions, hparams, call)
        rows = rows_of(tokenizer, targets, contexts, hparams.max_sequence_tokens)
        neighbours = _conservative_rows(model, tokenizer, requests, hparams, call)
        rows += neighbours.values()
        size = cached_gigabytes(model, rows)
        report.targets_cached = hparams.cache_targets and size <= hparams.cache_limit_gb and hparams.kl_weight > 0
        if hparams.cache_targets and size > hparams.cache_limit_gb:
            logger.info("the teacher's distributions would take %.1f GB: they are computed anew in each step", size)
        teacher = teacher_logits(model, rows) if report.targets_cached else None
    with tally.timed("distil"):
        peft_model = add_adapter(model, hparams)
        answers = [(row.closed, row.completion) for row in rows if row.weight is None]
        begin_in_contrast(
            peft_model, tokenizer, answers, requests, hparams, preservation=preservation, count=tally.tokens
        )
        losses, report.story_share = run_distillation(
            peft_model, tokenizer, rows, teacher, len(requests), hparams,
            preservation=preservation, progress=call.progress, count=tally.tokens,
            subjects=[request.subject for request in requests],
        )  # fmt: skip
    report.losses.update(losses.named("distil"))
    preserved = preserved_questions(preservation)
    report.trained_prompts = list(dict.fromkeys([*(t.prompt for t in targets), *neighbours, *preserved]))
    edited = deliver(peft_model, model, tokenizer, edits, hparams, call)
    remember(call.sequence, hparams, requests, _own_rows(tokenizer, questions, targets, hparams))
    return edited


def _own_rows(
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Sequence[Question]],
    targets: Sequence[Target],
    hparams: StoryDistillHyperParams,
) -> list[list[TrainedRow]]:
    """Each edit's questions of one hop with the answers that were learnt, without the story."""
    found = []
    for number, of_edit in enumerate(questions):
        own = {asked(question, hparams) for question in of_edit if not question.multi_hop}
        pairs = [(target.prompt, target.text) for target in targets if target.edit == number and target.prompt in own]
        found.append(rows_of_pairs(pairs, completion_rows(tokenizer, pairs)))
    return found


def _questions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    hparams: StoryDistillHyperParams,
    call: Call,
) -> list[list[Question]]:
    """Each edit's questions."""
    pool = QuestionPool(hparams, requests, single_hop=hparams.single_hop_questions)
    found: list[list[Question]] = []
    call.progress.start("questions", len(requests))
    composed: list[list[Composition]] = [[] for _ in requests]
    if hparams.composed_questions:
        most = hparams.composed_questions
        composed = compose(model, tokenizer, requests, onward=most, leading=most, count=call.report.tally.tokens)
    for i, request in enumerate(requests):
        written: list[str] = []
        dropped: Counter[str] | None = None
        before = call.report.tally.tokens.generated
        if hparams.writes_questions:
            written, dropped = pool.write(
                model, tokenizer, request, contexts[i], same_subject(requests, i), count=call.report.tally.tokens
            )
        questions, report = pool.of(request, written, dropped, composed=composed[i][: hparams.composed_questions])
        call.report.questions.append(report)
        found.append(questions)
        call.progress.advance(tokens=call.report.tally.tokens.generated - before)
    call.progress.finish()
    return found


def _targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    contexts: Sequence[str],
    asked_of: Sequence[Sequence[Question]],
    hparams: StoryDistillHyperParams,
    call: Call,
) -> list[Target]:
    """The answers to all edits' questions."""
    targets: list[Target] = []
    call.progress.start("teacher's answers", len(requests))
    for i, (request, questions) in enumerate(zip(requests, asked_of, strict=True)):
        before = call.report.tally.tokens.generated
        if hparams.target_source == "given":
            found, report = written_targets(i, request, questions, hparams)
        else:
            found, report = sampled_targets(
                model, tokenizer, i, request, questions, contexts[i], hparams, count=call.report.tally.tokens
            )
        targets += found
        call.report.targets.append(report)
        call.progress.advance(tokens=call.report.tally.tokens.generated - before)
    call.progress.finish()
    return targets


def _conservative_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: Sequence[EditRequest],
    hparams: StoryDistillHyperParams,
    call: Call,
) -> dict[str, Row]:
    """Neighbouring questions with the unedited model's own answers, by question (the paper's conservative samples)."""
    if not hparams.conservative_questions or not hparams.conservative_weight:
        return {}
    bank, rng = RelationBank.bundled(), random.Random(hparams.seed)
    left_out = never_held(requests, bank)
    questions = [
        question
        for request in requests
        for question in neighbour_questions(request, hparams.conservative_questions, bank=bank, rng=rng, batch=requests)
        if normalise(question) not in left_out
    ]
    questions = list(dict.fromkeys(questions))
    prompts = [tokenizer(render(tokenizer, user(q)), add_special_tokens=False)["input_ids"] for q in questions]
    answers = greedy_answers(
        model, tokenizer, prompts,
        max_new_tokens=hparams.preserve_max_new_tokens, top_k=1, count=call.report.tally.tokens,
    )  # fmt: skip
    return {
        question: Row(prompt, prompt, answer.tokens, hparams.conservative_weight)
        for question, prompt, answer in zip(questions, prompts, answers, strict=True)
        if answer.tokens
    }


apply_story_distill_to_model = host_call(METHOD)
