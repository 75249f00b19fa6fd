"""Where an edit's narrative and old answer come from.

Data flow: request → **narrative** → bootstrap → … A narrative is taken from the request, else from the file named in
the hyper-parameters, else written by the model itself and checked, else built from templates (the last two through the
scaffold's stages); the source is reported.
"""

from __future__ import annotations

import dataclasses
import logging
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from causaledit.errors import RequestError
from causaledit.facts.answers import mentions
from causaledit.facts.rewrites import NARRATIVE_KEYS, first_of, log_narrative_keys, read_rewrite, rewrites_in
from causaledit.facts.text import bare_sentence, normalise, sentences
from causaledit.models.chat import render, user
from causaledit.models.generation import generate_texts
from causaledit.narratives.cases import ScaffoldEdit
from causaledit.narratives.generate import LocalWriter, local_generate, produce
from causaledit.narratives.templates import TemplateBank
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from causaledit.facts.requests import EditRequest
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
    """Read a JSON file of narratives: whole MQuAKE cases, rewrites, requests, or `{subject, target_new, narrative}`.

    Entries without a narrative are skipped. The narrative may also be called `article` or `fact_new_uns`.

    Returns:
        Narratives by (subject, new answer), both normalised.

    Raises:
        RequestError: The file cannot be read, holds no narrative, or has an entry whose narrative belongs to no edit;
            the message names the file and the entry, counted from 1 over all edits.
    """
    what = f"`narrative_file` ({path!r})"
    data = load_json(path, "`narrative_file`")
    try:
        entries = rewrites_in(data)
    except RequestError as error:
        raise RequestError(f"{what}: {error}") from None
    found: dict[tuple[str, str], str] = {}
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, Mapping):
            raise RequestError(f"{what}, entry {number}: must be an object, got {entry!r}.")
        narrative = first_of(entry, NARRATIVE_KEYS)
        if narrative is None:
            continue
        read = read_rewrite(entry)
        if not read.narrative:
            raise RequestError(f"{what}, entry {number}: the narrative must be a text, got {narrative!r}.")
        for field in ("subject", "target_new"):
            if not getattr(read, field):
                raise RequestError(
                    f"{what}, entry {number}: `{field}` is missing or not a text ({entry.get(field)!r}): a narrative "
                    "is looked up by its edit's `subject` and `target_new`."
                )
        found[normalise(read.subject), normalise(read.target_new)] = read.narrative
    if not found:
        raise RequestError(f"{what} holds no narrative ({', '.join(f'`{key}`' for key in NARRATIVE_KEYS)}).")
    log_narrative_keys(entries, path)
    return found


def with_narratives(
    requests: Sequence[EditRequest], known: Mapping[tuple[str, str], str]
) -> list[tuple[EditRequest, NarrativeSource]]:
    """The requests with their own narratives or, where they have none, those of a file (`load_narratives`)."""
    found: list[tuple[EditRequest, NarrativeSource]] = []
    for request in requests:
        narrative = request.narrative or known.get((normalise(request.subject), normalise(request.target_new)))
        source: NarrativeSource = "request" if request.narrative else "file" if narrative else "none"
        found.append((dataclasses.replace(request, narrative=narrative), source))
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
    for request, given in with_narratives(requests, known):
        narrative, source = request.narrative, given
        if not causal:
            narrative, source = None, "none"
        elif narrative is None:
            if known:
                logger.warning("`narrative_file` has no narrative for %r, %r", request.subject, request.target_new)
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
        logger.info("old answer for %r, as given by the model: %r", requests[i].subject, filled[i].ground_truth)
    return filled


def _answer_request(request: EditRequest) -> Messages:
    """Ask for the old answer, closed-book, where the request does not state it."""
    return user(f"{request.question_form} Reply with the answer only.")


# how a sentence states an answer, in the languages in which small models answer without an English word around it
_STATEMENTS = tuple(
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r".*\b(?:is|was|are|were)\b(.*)",
        r".*是(.+)",
        r".*?は、?(.+?)(?:です|である|でした|だ)",
        r".*?[은는이가]\s(.+?)(?:입니다|이다|이에요|예요)",
        r".*คือ(.+)",
        r".*\s(?:هي|هو|היא|הוא)\s(.+)",
    )
)


def short_answer(reply: str, request: EditRequest) -> str:
    """The answer inside a reply: what follows the cloze or the last " is ", up to the sentence's end.

    "是", "は … です" and the like serve as " is "; a reply of another form is the answer as a whole.
    """
    first = bare_sentence(next(iter(sentences(reply)), ""))
    cloze = re.search(re.escape(request.cloze), first, re.IGNORECASE)
    stated = next((m.group(1) for pattern in _STATEMENTS if (m := pattern.fullmatch(first))), first)
    return bare_sentence((first[cloze.end() :] if cloze else stated).strip(" :,：，、"))


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
