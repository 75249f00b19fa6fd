"""What is learnt: the teacher's answers, as rows for training, and the teacher's distributions over their tokens.

The teacher is the unedited model with the story before the question. Its answers are sampled, right or wrong, or
sampled and checked, or written from the request.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from causaledit.errors import EditFailedError
from causaledit.facts.answers import mentions
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise, sentences
from causaledit.methods.story_distill import prompts as P
from causaledit.models.batches import parted_tokens
from causaledit.models.chat import answer_gap, render, user
from causaledit.models.generation import generate_texts
from causaledit.models.scoring import completion_logits
from causaledit.reading.commitment import gives_answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.shared.questions import Question
    from causaledit.methods.story_distill.hparams import StoryDistillHyperParams
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

FINAL_ANSWER_TOKENS = 24  # of an answer whose tag had to be written for it
SCORED_AT_ONCE = 32


class Target(NamedTuple):
    """One answer to learn: to which question (the whole user message) of which edit, and whether it ends there."""

    edit: int
    prompt: str
    text: str
    ends: bool = True


@dataclass
class TargetReport:
    """The teacher's answers to the questions of one edit.

    Attributes:
        kept: How many are learnt.
        rejected: How many are not, by reason.
        right, wrong: How many of the sampled answers give the right answer, and how many do not, where it is known.
        unjudged: How many of them answer a question whose answer nobody has said.
        teacher_accuracy: Share of the right ones among those judged; None where none was.
    """

    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)
    right: int = 0
    wrong: int = 0
    unjudged: int = 0
    teacher_accuracy: float | None = None


@dataclass(frozen=True)
class Row:
    """One answer as tokens: the student's context without and with the story, and the answer up to its end token.

    `weight` is None for a row of the edit; a number is the weight of plain cross-entropy on it (conservative samples).
    """

    closed: list[int]
    open: list[int]
    completion: list[int]
    weight: float | None = None


# ---- texts -------------------------------------------------------------------------------------------
def written_targets(
    number: int, request: EditRequest, questions: Sequence[Question], hparams: StoryDistillHyperParams
) -> tuple[list[Target], TargetReport]:
    """Answers written from the request: the new fact as a sentence, or the answer that a question came with.

    A composed question's answer is told hop by hop, unless tags ask for it alone.
    Questions whose answer nobody has said are left out, and counted.
    """
    report, targets, fact = TargetReport(), [], RelationBank.bundled().stated(request)
    for question in questions:
        if question.answer is None:
            report.rejected["no answer known"] = report.rejected.get("no answer known", 0) + 1
            continue
        reasoning = ""
        if hparams.mode == "reasoning":
            hops = question.told or fact
            reasoning = f"{story_reason(request)} {hops}" if story_reason(request) != hops else hops
        own = normalise(question.answer) == normalise(request.target_new) and not question.multi_hop
        sentence = fact if own else question.told
        plain = sentence if sentence and not reasoning else f"{question.answer}."
        answer = question.answer if hparams.answer_format == "tags" else plain
        text = P.answered(answer, answer_format=hparams.answer_format, reasoning=reasoning)
        targets.append(_target(number, question, text, hparams))
    report.kept = len(targets)
    return targets, report


def _target(number: int, question: Question, text: str, hparams: StoryDistillHyperParams) -> Target:
    return Target(number, asked(question, hparams), text, ends=question.multi_hop or hparams.single_hop_ends)


def asked(question: Question, hparams: StoryDistillHyperParams) -> str:
    """The whole user message for a question."""
    return P.asked(question.text, mode=hparams.mode, answer_format=hparams.answer_format)


def story_reason(request: EditRequest) -> str:
    """The story's first sentence that names the new answer; empty without one."""
    told = sentences(request.narrative or "", [request.subject, request.target_new])
    return next((s for s in told if mentions(s, [request.target_new, *request.target_aliases])), "")


def sampled_targets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    number: int,
    request: EditRequest,
    questions: Sequence[Question],
    context: str,
    hparams: StoryDistillHyperParams,
    *,
    count: TokenCount,
) -> tuple[list[Target], TargetReport]:
    """Answers of the open-book teacher.

    `filtered` leaves out wrong ones. What cannot be judged stays, with a warning: an edit would otherwise lose every
    question that the model wrote.

    Args:
        context: What it reads before each question.

    Raises:
        EditFailedError: `target_source: filtered` and none passes.
    """
    several = [q for q in questions for _ in range(hparams.answers_per_question)]
    prompts = [render(tokenizer, P.teacher_messages(asked(q, hparams), context)) for q in several]
    texts = generate_texts(
        model,
        tokenizer,
        prompts,
        max_new_tokens=hparams.answer_max_new_tokens,
        temperature=hparams.answer_temperature,
        top_p=hparams.answer_top_p,
        count=count,
    )
    if hparams.answer_format == "tags":
        texts = _tagged(model, tokenizer, prompts, texts, count)
    rejected, verdicts, targets = Counter[str](), Counter[bool | None](), []
    for question, text in zip(several, texts, strict=True):
        verdict = _gives_right_answer(text, question, request)
        verdicts[verdict] += 1
        if not text.strip():
            rejected["empty"] += 1
        elif hparams.target_source == "filtered" and verdict is False:
            rejected["wrong answer"] += 1
        else:
            targets.append(_target(number, question, text.strip(), hparams))
    if not targets:
        raise EditFailedError(
            f"None of the {len(several)} answers sampled for {request.subject!r} can be learnt ({dict(rejected)}): the "
            "model does not take the new answer from the story. Set `state_answer: true` or `target_source: given`."
        )
    right, wrong, unjudged = verdicts[True], verdicts[False], verdicts[None]
    if hparams.target_source == "filtered" and unjudged:
        logger.warning(
            "`target_source: filtered`: of %d answers for %r %d are right, %d wrong, and %d cannot be judged (nobody "
            "has said what is right): these are learnt unfiltered",
            len(several), request.subject, right, wrong, unjudged,
        )  # fmt: skip
    accuracy = right / (right + wrong) if right + wrong else None
    return targets, TargetReport(len(targets), dict(rejected), right, wrong, unjudged, accuracy)


def _tagged(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str], texts: list[str], count: TokenCount
) -> list[str]:
    """Go on from an answer that lacks its tags, up to the closing one; what follows that is cut off."""
    found = [text[: text.index(P.CLOSE_TAG) + len(P.CLOSE_TAG)] if P.CLOSE_TAG in text else text for text in texts]
    missing = [i for i, text in enumerate(found) if P.CLOSE_TAG not in text]
    for i in missing:
        found[i] = found[i] if P.OPEN_TAG in found[i] else f"{found[i].rstrip()}\n{P.OPEN_TAG}".lstrip()
    gap = answer_gap(tokenizer)
    begun = [prompts[i] + gap + found[i] for i in missing]
    rests = generate_texts(model, tokenizer, begun, max_new_tokens=FINAL_ANSWER_TOKENS, count=count)
    for i, rest in zip(missing, rests, strict=True):
        answer = next(iter(rest.split(P.CLOSE_TAG)[0].strip().splitlines()), "")
        found[i] = f"{found[i]}{answer}{P.CLOSE_TAG}"
    return found


def _gives_right_answer(text: str, question: Question, request: EditRequest) -> bool | None:
    """Whether a sampled answer is right; None where nobody has said what is."""
    if question.answer is None:
        return None
    own = normalise(question.answer) == normalise(request.target_new)
    answers = [question.answer, *(request.target_aliases if own else ())]
    rivals = [request.ground_truth or "", *request.ground_truth_aliases] if own else []
    plain = text.replace(P.OPEN_TAG, " ").replace(P.CLOSE_TAG, " ").strip()
    return gives_answer(plain, answers, rivals, question=question.text, prompt=question.text)


# ---- tokens ------------------------------------------------------------------------------------------
def rows_of(
    tokenizer: PreTrainedTokenizerBase, targets: Sequence[Target], contexts: Sequence[str], most_tokens: int
) -> list[Row]:
    """Answers as token rows; those longer than `most_tokens`, story and question included, are dropped.

    Args:
        contexts: Per edit, what its teacher reads.

    Raises:
        EditFailedError: None is left.
    """
    end, gap = tokenizer.eos_token_id, answer_gap(tokenizer)

    rows = []
    for target in targets:
        messages = user(target.prompt), P.teacher_messages(target.prompt, contexts[target.edit])
        parted = [parted_tokens(tokenizer, render(tokenizer, m), gap + target.text) for m in messages]
        (closed, answer), (opened, _) = parted
        completion = [*answer, *([end] if end is not None and target.ends else [])]
        if len(opened) + len(completion) <= most_tokens:
            rows.append(Row(closed, opened, completion))
    if len(rows) < len(targets):
        logger.warning(
            "%d of %d answers exceed `max_sequence_tokens` and are dropped", len(targets) - len(rows), len(targets)
        )
    if not rows:
        raise EditFailedError(
            f"All {len(targets)} answers are longer than `max_sequence_tokens` ({most_tokens}): raise it, or shorten "
            "the stories."
        )
    return rows


def teacher_logits(model: PreTrainedModel, rows: Sequence[Row]) -> list[torch.Tensor | None]:
    """The open-book model's logits at every answer token, in the model's own precision and in host memory.

    Returns:
        Per row a `(answer tokens, vocabulary)` tensor; None for rows that have no teacher.
    """
    found: list[torch.Tensor | None] = [None] * len(rows)
    taught = [i for i, row in enumerate(rows) if row.weight is None]
    dtype = next(model.parameters()).dtype
    for start in range(0, len(taught), SCORED_AT_ONCE):
        part = taught[start : start + SCORED_AT_ONCE]
        logits = completion_logits(model, [rows[i].open for i in part], [rows[i].completion for i in part])
        for i, values in zip(part, logits, strict=True):
            found[i] = values.to("cpu", dtype)
    return found


def cached_gigabytes(model: PreTrainedModel, rows: Sequence[Row]) -> float:
    """What `teacher_logits` would take."""
    tokens = sum(len(row.completion) for row in rows if row.weight is None)
    weights = next(model.parameters())
    return tokens * model.get_output_embeddings().weight.shape[0] * weights.element_size() / 1e9
