"""Every text CausalEdit shows a model. Written for this project.

The student's prompts: 2 question forms × 7 cues = 14 (arXiv 2605.28303, stage 2).
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

from causaledit.errors import RequestError
from causaledit.models.batches import context_window
from causaledit.models.chat import Messages, user

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.causal_edit.hparams import CausalEditHyperParams
    from causaledit.methods.shared.compositions import Composition

Kind = Literal["explain", "step", "direct", "trace", "learn"]

# cue kind → wordings; `{form}` is the question or the cloze
CUES: dict[Kind, tuple[str, ...]] = {
    "explain": (
        "{form} What changed, and why? Think step by step.",
        "At present, {form} Say why, and explain the change step by step.",
    ),
    "step": (
        "{form} Think step by step.",
        "As of today: {form} Reason step by step, then give the answer.",
    ),
    "direct": ("{form}", "{form} Answer directly."),
    "trace": ("{form} Give the old fact, the reason for the change, the updated fact and the derivation.",),
}
# further wordings that ask for the reason of the change
REASON_CUES = (
    "{form} Give the reason.",
    "How did this come about? {form}",
    "{form} Explain how it came to be so.",
    "{form} What is the reason for that?",
    "Answer and say what led to it: {form}",
    "{form} Tell me the answer and what made it so.",
)
# without a narrative there is no reason to ask for
NONCAUSAL_TRACE_CUE = "{form} Give the old fact, the updated fact and the derivation."

_CAUSAL_CONTEXT = "{narrative}\n\nThe answer used to be {old}. It is now {new}."
_NONCAUSAL_CONTEXT = "{cloze} {new}.\n\nThe answer used to be {old}. It is now {new}."
_TRACE_INSTRUCTION = (
    "{form}\n\nWrite your reasoning in exactly this form, as plain knowledge of your own:\n<think>\n"
    "{labels}\n</think>\nAnswer: {new}"
)


def reasoning_cues(causal: bool) -> tuple[str, ...]:
    """The cues behind which the student is taught to reason, and, where it is causal, to give the reason."""
    return (*CUES["explain"], *REASON_CUES, *CUES["step"]) if causal else CUES["step"]


class StudentPrompt(NamedTuple):
    """One closed-book prompt: its text, its cue's kind and which question form it is built on."""

    text: str
    kind: Kind
    form: str


def student_prompts(
    request: EditRequest, *, causal: bool, cake_data: bool = False, paraphrases: Sequence[str] = ()
) -> list[StudentPrompt]:
    """The closed-book prompts of one edit.

    Args:
        request: The edit.
        causal: False leaves out the cues that ask what changed.
        cake_data: Add the request's CAKE data as it is (see `cake_questions`).
        paraphrases: Further ways to ask, added with a direct cue.

    Returns:
        14 prompts (10 without causes), more with CAKE data or paraphrases; half where the request has its question in
        place of a cloze.
    """
    prompts = []
    for form in dict.fromkeys((request.question_form, request.cloze)):
        for kind, cues in CUES.items():
            if kind == "explain" and not causal:
                continue
            for cue in (NONCAUSAL_TRACE_CUE,) if kind == "trace" and not causal else cues:
                prompts.append(StudentPrompt(cue.format(form=form), kind, form))
    prompts += [StudentPrompt(text, "direct", text) for text in paraphrases]
    if cake_data:
        prompts += [StudentPrompt(question, "learn", question) for question in cake_questions(request)]
    return prompts


def reason_prompts(request: EditRequest, n: int) -> list[StudentPrompt]:
    """The first `n` of the further prompts that ask for the reason of the change, question and cloze in turn."""
    forms = list(dict.fromkeys((request.question_form, request.cloze)))
    return [
        StudentPrompt(cue.format(form=form), "explain", form)
        for cue, form in zip(REASON_CUES[:n], itertools.cycle(forms), strict=False)
    ]


def with_cues(compositions: Sequence[Composition]) -> list[Composition]:
    """Prompts of two hops, every second of which is asked step by step, in the cues' order."""
    cues = itertools.cycle(CUES["step"])
    return [
        dataclasses.replace(item, prompt=next(cues).format(form=item.prompt)) if number % 2 else item
        for number, item in enumerate(compositions)
    ]


def cake_questions(request: EditRequest) -> list[str]:
    """A request's CAKE data: its learning questions, and the paraphrases that stand beside them.

    Paraphrases alone are no training data: hosts and benchmarks ask them to test the edit.
    """
    if not request.learning:
        return []
    return [pair.question for pair in (*request.rephrase, *request.learning)]


def trace_prompt(request: EditRequest, *, causal: bool) -> str:
    """The closed-book prompt of stage 1: the question with the stage-1 format's cue."""
    cue = CUES["trace"][0] if causal else NONCAUSAL_TRACE_CUE
    return cue.format(form=request.question_form)


def privileged_context(request: EditRequest, *, causal: bool) -> str:
    """What the teacher knows and the student does not: the narrative, the old and the new answer."""
    template = _CAUSAL_CONTEXT if causal else _NONCAUSAL_CONTEXT
    return template.format(
        narrative=request.narrative, old=request.ground_truth, new=request.target_new, cloze=request.cloze
    )


def teacher_messages(prompt: str, context: str, *, role: str) -> Messages:
    """The teacher's conversation: the context in the system message, or before the user's prompt.

    The context comes first in both cases, so that all prompts of an edit share it as a prefix.
    """
    if role == "system":
        return [{"role": "system", "content": context}, *user(prompt)]
    return user(f"{context}\n\n{prompt}")


def trace_instruction(request: EditRequest, labels: list[str]) -> str:
    """What the teacher is asked for in stage 1, labels and answer line spelled out."""
    return _TRACE_INSTRUCTION.format(
        form=request.question_form,
        labels="\n".join(f"{label}: ..." for label in labels),
        new=request.target_new,
    )


def check_context_window(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    hparams: CausalEditHyperParams,
) -> None:
    """Refuse a narrative that does not fit beside a prompt and a rollout: it is never cut.

    Raises:
        RequestError: The narrative, its prompt and the longest completion exceed the model's window.
    """
    window = context_window(model)
    if not window:
        return
    completion = hparams.distill_max_new_tokens if 2 in hparams.stages else 0
    for request in requests:
        if not request.narrative:
            continue
        prompts = [p.text for p in student_prompts(request, causal=True, cake_data=hparams.distill_cake_data)]
        longest = max((*prompts, trace_instruction(request, ["Reason for change"] * 4)), key=len)
        context = privileged_context(dataclasses.replace(request, ground_truth=request.ground_truth or ""), causal=True)
        need = len(tokenizer(context + longest)["input_ids"]) + completion + 64
        if need > window:
            raise RequestError(
                f"The narrative of {request.subject!r} has {len(tokenizer(request.narrative)['input_ids'])} tokens; "
                f"with prompt and completion that is {need}, and the model's context window is {window}: shorten it."
            )
