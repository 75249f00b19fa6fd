"""Where an edit's narrative and old answer come from.

Data flow: request → **narrative** → bootstrap → … A narrative is taken from the request, else from the
file named in the hyper-parameters, else written by the model itself and checked, else built from
templates (both by the scaffold's stages); which one it was is reported.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from causaledit.errors import RequestError
from causaledit.facts.answers import mentions, normalise
from causaledit.facts.requests import EditRequest, requests_from_data
from causaledit.models.chat import render, user
from causaledit.models.generation import generate_texts
from causaledit.narratives.cases import ScaffoldEdit
from causaledit.narratives.generate import LocalWriter, local_generate, produce
from causaledit.narratives.templates import TemplateBank
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.models.chat import Messages
    from causaledit.support.costs import TokenCount

logger = logging.getLogger(__name__)

NarrativeSource = Literal["request", "file", "model", "template", "none"]
OLD_ANSWER_TOKENS = 24


class ResolvedEdit(NamedTuple):
    """A request with old answer and narrative filled in, and where the narrative came from."""

    request: EditRequest
    narrative_source: NarrativeSource


def load_narratives(path: str) -> dict[tuple[str, str], str]:
    """Read narratives from a JSON file of requests, rewrites or whole MQuAKE cases.

    Returns:
        Narratives by (subject, new answer), both normalised.
    """
    requests = requests_from_data(load_json(path, "`narrative_file`"))
    found = {(normalise(r.subject), normalise(r.target_new)): r.narrative for r in requests if r.narrative}
    if not found:
        raise RequestError(f"`narrative_file` ({path!r}) holds no narrative (`article` or `narrative`).")
    return found


def resolve_edits(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    requests: list[EditRequest],
    *,
    causal: bool,
    narrative_file: str | None,
    max_new_tokens: int,
    count: TokenCount,
) -> list[ResolvedEdit]:
    """Fill in old answers and narratives.

    Args:
        model: The unedited model.
        tokenizer: As from `prepare_tokenizer`.
        causal: False fills in old answers only.
        narrative_file: Narratives for requests without one (see `load_narratives`).
        max_new_tokens: Longest narrative that the model itself writes.
        count: Gets the tokens generated.

    Raises:
        RequestError: The narrative file is unusable.
    """
    known = load_narratives(narrative_file) if causal and narrative_file else {}
    requests = _fill_old_answers(model, tokenizer, requests, count)
    resolved: list[ResolvedEdit] = []
    for request in requests:
        source: NarrativeSource = "request" if request.narrative else "file"
        narrative = request.narrative or known.get((normalise(request.subject), normalise(request.target_new)))
        if not causal:
            narrative, source = None, "none"
        elif narrative is None:
            narrative, source = _written(model, tokenizer, request, max_new_tokens, count)
        logger.info("narrative for %r: %s", request.subject, source)
        resolved.append(ResolvedEdit(dataclasses.replace(request, narrative=narrative), source))
    return resolved


def _fill_old_answers(model: Any, tokenizer: Any, requests: list[EditRequest], count: Any) -> list[EditRequest]:
    missing = [i for i, request in enumerate(requests) if request.ground_truth is None]
    if not missing:
        return requests
    prompts = [render(tokenizer, _answer_request(requests[i])) for i in missing]
    replies = generate_texts(model, tokenizer, prompts, max_new_tokens=OLD_ANSWER_TOKENS, count=count)
    filled = list(requests)
    for i, reply in zip(missing, replies, strict=True):
        old = short_answer(reply, requests[i])
        if mentions(old, [requests[i].target_new]):
            logger.warning("the model already answers %r for %r", requests[i].target_new, requests[i].subject)
            old = ""
        filled[i] = dataclasses.replace(requests[i], ground_truth=old or "something else")
        logger.info("old answer for %r, asked of the model: %r", requests[i].subject, filled[i].ground_truth)
    return filled


def _answer_request(request: EditRequest) -> Messages:
    """Ask for the old answer, closed-book, where the request does not state it."""
    return user(f"{request.question_form} Reply with the answer only.")


def short_answer(reply: str, request: EditRequest) -> str:
    """The answer inside a reply: what follows the cloze's words or the last " is ", up to the sentence's end."""
    first = re.split(r"(?<=[^A-Z][.!?])\s|\n", reply.strip(), maxsplit=1)[0].strip().rstrip(".!?")
    if request.cloze.casefold() in first.casefold():
        start = first.casefold().index(request.cloze.casefold()) + len(request.cloze)
        return first[start:].strip(" :,")
    return re.split(r"\b(?:is|was|are|were)\b", first)[-1].strip(" :,")


def _written(
    model: Any, tokenizer: Any, request: EditRequest, max_new_tokens: int, count: Any
) -> tuple[str, NarrativeSource]:
    """A narrative through the scaffold's stages: by the model itself where that passes the rules, else a template."""
    edit = ScaffoldEdit.from_request(request)
    writer = LocalWriter(
        "the model itself",
        local_generate(model, tokenizer, count=count),
        max_new_tokens=max_new_tokens,
    )
    [written] = produce([edit], writer, max_attempts=1)
    if written.check.passed:
        return written.text, "model"
    logger.info("the model's own narrative for %r is not used: %s", request.subject, written.check.reason)
    return TemplateBank.bundled().narrative(edit), "template"
