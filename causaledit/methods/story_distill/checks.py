"""What is refused before any compute is spent."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from causaledit.errors import RequestError
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import normalise
from causaledit.methods.shared.checks import check_training
from causaledit.methods.shared.questions import QuestionPool, same_subject
from causaledit.methods.shared.window import check_length
from causaledit.methods.story_distill import prompts as P
from causaledit.methods.story_distill.targets import asked, story_reason
from causaledit.models.chat import render
from causaledit.narratives.resolve import load_narratives

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.story_distill.hparams import StoryDistillHyperParams


def check_before_compute(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Sequence[EditRequest],
    hparams: StoryDistillHyperParams,
    *,
    merged: bool,
) -> None:
    """Refuse what this model, these edits and these hyper-parameters cannot do together.

    Args:
        tokenizer: As from `prepare_tokenizer`.
        merged: Whether the adapter will be merged into the weights.

    Raises:
        HparamsError: A file of the hyper-parameters cannot be read.
        ModelError: The adapter does not fit the model, or DeepSpeed's ZeRO stage 3 is configured.
        RequestError: An edit has no story, no question or no entry in a file; two edits contradict each other; or a
            story with a question and its answer does not fit into the model's context window.
    """
    check_training(model, hparams, merged=merged)
    refuse_conflicts(edits)
    edits = _with_stories(edits, hparams)
    pool = QuestionPool(hparams, edits, single_hop=hparams.single_hop_questions)
    for number, edit in enumerate(edits):
        questions, found = pool.of(edit, warn=False)  # the model may still write some
        if not questions:
            raise RequestError(
                f"No question for {edit.subject!r} is left (dropped: {found.rejected}): give it a `learning_prompt`, "
                "or reword its question so that it does not hold the new answer."
            )
        if hparams.target_source == "given" and not any(question.answer for question in questions):
            raise RequestError(
                f"`target_source: given` writes the answers, and none of the questions for {edit.subject!r} comes with "
                "one: give them as {question, answer}, or set `target_source: sampled`."
            )
        others = same_subject(edits, number)
        context = P.teacher_context(
            dataclasses.replace(edit, ground_truth=edit.ground_truth or "…"),
            state_answer=hparams.state_answer,
            others=others,
        )
        longest = max((asked(question, hparams) for question in questions), key=len)
        prompt = render(tokenizer, P.teacher_messages(longest, context))
        answer = hparams.answer_max_new_tokens if hparams.target_source != "given" else 64
        tokens = len(tokenizer(prompt, add_special_tokens=False)["input_ids"]) + answer
        check_length(model, tokens, f"The story of {edit.subject!r} with a question and its answer")
        pool.check_writing(model, tokenizer, edit, context, others)


def _with_stories(edits: Sequence[EditRequest], hparams: StoryDistillHyperParams) -> list[EditRequest]:
    """The edits with the stories that are given for them, checked."""
    if hparams.context == "fact":
        return [dataclasses.replace(edit, narrative=None) for edit in edits]
    known = load_narratives(hparams.narrative_file) if hparams.narrative_file else {}
    found = []
    for edit in edits:
        story = edit.narrative or known.get((normalise(edit.subject), normalise(edit.target_new)))
        if story is None and hparams.story_source == "given":
            raise RequestError(
                f"`story_source` is 'given', and the request about {edit.subject!r} has no `narrative` (nor has "
                f"`narrative_file`: {hparams.narrative_file!r}): give one, or set `story_source: auto`."
            )
        edit = dataclasses.replace(edit, narrative=story)
        written = hparams.mode == "reasoning" and hparams.target_source == "given"
        if written and story is not None and not story_reason(edit):
            raise RequestError(
                f"`mode: reasoning` with `target_source: given` needs a sentence of the story that names the new "
                f"answer, and that of {edit.subject!r} has none for {edit.target_new!r}: set `target_source: sampled`."
            )
        found.append(edit)
    return found


def refuse_conflicts(edits: Sequence[EditRequest]) -> None:
    """Refuse two edits that give one subject's relation two new answers.

    Raises:
        RequestError: Two of them do, in different words (the same words are refused for every method).
    """
    relations = RelationBank.bundled()
    seen: dict[tuple[str, str], tuple[int, EditRequest]] = {}
    for number, edit in enumerate(edits, start=1):
        relation = relations.relation_of(edit)
        if relation is None:
            continue
        earlier, other = seen.setdefault((normalise(edit.subject), relation.name), (number, edit))
        if normalise(other.target_new) != normalise(edit.target_new):
            raise RequestError(
                f"Requests {earlier} and {number} give the {relation.name} of {edit.subject!r} two new answers "
                f"(`target_new` {other.target_new!r} and {edit.target_new!r}): keep one."
            )
