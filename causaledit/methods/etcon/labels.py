"""What stage 1 learns: reasoning that ends on the new answer (EtCon's chain-of-thought labels).

The publication takes the model's own answer to the fact's question and replaces its final answer, so that the label
keeps the model's style. `label_source: self` does that; `stated` writes a few sentences from the request, for models
that write no usable reasoning of their own.
"""

from __future__ import annotations

import itertools
import logging
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from causaledit.errors import EditFailedError
from causaledit.facts.relations import RelationBank
from causaledit.facts.text import word_count
from causaledit.methods.etcon import prompts as P
from causaledit.methods.shared.claims import commits, ends_on_old_answer
from causaledit.models.chat import render, user
from causaledit.models.generation import sample_continuations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.etcon.hparams import EtConHyperParams
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

MIN_WORDS = 5  # a shorter text before the answer is no reasoning
MAX_ANSWER_WORDS = 12  # a longer answer is a sentence, and cannot be replaced by a name

_STATED = (
    "The answer used to be {old}, but that is no longer so. {fact}",
    "{fact} Before that it was {old}, which is out of date.",
)
_STATED_WITHOUT_OLD = ("{fact}", "As things stand today, this is the case: {fact}")


@dataclass
class LabelReport:
    """How an edit's labels came about.

    Attributes:
        source: `self` or `stated`.
        sampled: Answers sampled.
        kept: Labels trained on.
        rejected: Why answers were not used → how many.
    """

    source: str
    sampled: int = 0
    kept: int = 0
    rejected: dict[str, int] = field(default_factory=dict)


def training_pairs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    hparams: EtConHyperParams,
    *,
    count: TokenCount,
) -> tuple[list[tuple[str, str]], LabelReport]:
    """(prompt, completion) pairs of one edit: every reasoning prompt with a label, every direct one with the fact.

    Args:
        model: Before the edit, without an adapter.
        count: Receives generated tokens.

    Returns:
        The pairs, and how the labels came about. With several labels each reasoning prompt stands once for each.

    Raises:
        EditFailedError: No label could be written; the message counts the reasons.
    """
    report = LabelReport(hparams.label_source)
    asked = P.reasoning_prompts(request, hparams)
    if hparams.label_source == "stated":
        written = stated_labels(request, hparams.answer_format)
        pairs = list(zip(asked, itertools.cycle(written)))
    else:
        written = own_labels(model, tokenizer, request, asked[0], hparams, report, count=count)
        pairs = [(prompt, label) for label in written for prompt in asked]
    stated = RelationBank.bundled().stated(request)
    report.kept = len({label for _, label in pairs})  # of two written ones, a single prompt takes the first
    return [*pairs, *((prompt, stated) for prompt in P.direct_prompts(request, hparams))], report


def stated_labels(request: EditRequest, answer_format: str) -> list[str]:
    """Labels from the request alone: the fact, what it replaces, and the answer in the format."""
    wordings = _STATED if request.ground_truth else _STATED_WITHOUT_OLD
    closing, fact = P.closing(request.target_new, answer_format), RelationBank.bundled().stated(request)
    return [f"{text.format(fact=fact, old=request.ground_truth)}\n{closing}" for text in wordings]


def own_labels(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    request: EditRequest,
    prompt: str,
    hparams: EtConHyperParams,
    report: LabelReport,
    *,
    count: TokenCount,
) -> list[str]:
    """The model's own answers to a prompt, rewritten for the new answer; the first `labels` that are usable.

    Raises:
        EditFailedError: None is.
    """
    found: list[str] = []
    responses = sample_continuations(
        model,
        tokenizer,
        render(tokenizer, user(prompt)),
        hparams.label_candidates,
        max_new_tokens=hparams.label_max_new_tokens,
        temperature=hparams.label_temperature,
        top_p=hparams.label_top_p,
        count=count,
    )
    report.sampled = len(responses)
    for response in responses:
        label, reason = rewritten(response, request, hparams.answer_format)
        if label is not None and label not in found:
            found.append(label)
        elif label is None:
            report.rejected[reason] = report.rejected.get(reason, 0) + 1
    if not found:
        reasons = ", ".join(f"{reason}: {n}" for reason, n in sorted(report.rejected.items()))
        raise EditFailedError(
            f"No reasoning target could be written for {request.subject!r}: none of {report.sampled} answers is usable "
            f"({reasons}). Raise `label_candidates` or `label_max_new_tokens`, choose another `answer_format`, or set "
            "`label_source: stated`. The model is as it was."
        )
    return found[: hparams.labels]


def rewritten(response: str, request: EditRequest, answer_format: str) -> tuple[str | None, str]:
    """A response with the new answer in the place of its own and of the old one.

    What follows its answer is cut off.

    Returns:
        The label, or None and why there is none: `"no answer in the format"`, `"an answer that is no name"`,
        `"no reasoning"`, or `"another conclusion"`, where the text still argues for something else.
    """
    parts = P.read_closing(response, answer_format)
    if parts is None:
        return None, "no answer in the format"
    reasoning, answer, _ = parts
    answer = answer.strip(" .\"'")
    if not answer or word_count(answer) > MAX_ANSWER_WORDS:
        return None, "an answer that is no name"
    reasoning = _with_new_answer(
        reasoning, [answer, request.ground_truth or "", *request.ground_truth_aliases], request
    )
    if word_count(reasoning) < MIN_WORDS:
        return None, "no reasoning"
    if ends_on_old_answer(reasoning, request) or not commits(f"{reasoning}\nAnswer: {request.target_new}", request):
        return None, "another conclusion"
    return f"{reasoning}\n{P.closing(request.target_new, answer_format)}", ""


def _with_new_answer(text: str, names: Sequence[str], request: EditRequest) -> str:
    """A text with the new answer wherever one of some names stands by itself.

    In one pass, longest first: the subject ("Cairo Tower") and the new answer ("New Delhi") keep a name they contain.
    """
    own = [name for name in (request.subject, request.target_new, *request.target_aliases) if name]
    found = sorted({*own, *filter(None, names)}, key=len, reverse=True)
    kept = {name.casefold() for name in own}
    return re.sub(
        rf"(?<!\w)(?:{'|'.join(map(re.escape, found))})(?!\w)",
        lambda match: match[0] if match[0].casefold() in kept else request.target_new,
        text,
        flags=re.IGNORECASE,
    ).strip()
