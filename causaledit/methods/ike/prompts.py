"""The text of an in-context edit: demonstrations, then the new facts."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from causaledit.errors import RequestError
from causaledit.facts.requests import requests_from_data
from causaledit.support.files import load_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.ike.hparams import IKEHyperParams

FACT = "New fact: {cloze} {new}."
EXAMPLE = "{fact}\nPrompt: {prompt}\nAnswer: {answer}\n"


def fact_of(edit: EditRequest) -> str:
    """One new fact as a sentence."""
    return FACT.format(cloze=edit.cloze, new=edit.target_new)


def context_text(edits: Sequence[EditRequest], examples: Sequence[str], *, include_narrative: bool) -> str:
    """Everything that goes before a prompt."""
    facts = []
    for edit in edits:
        facts.append(fact_of(edit))
        if include_narrative and edit.narrative:
            facts.append(edit.narrative)
    return "\n".join([*examples, *facts])


def read_examples(hparams: IKEHyperParams, edits: Sequence[EditRequest]) -> list[str]:
    """Draw demonstrations: of copying a fact, of using it in a paraphrase, and of leaving others alone.

    The three kinds of arXiv 2305.12740, section 3.2, taking turns as far as a request has material for them;
    requests about an edited subject are left out. The draw depends on `seed` alone.

    Raises:
        RequestError: The file cannot be read, or holds too few usable requests.
    """
    if not hparams.demonstrations:
        return []
    subjects = {edit.subject for edit in edits}
    data = load_json(hparams.demonstration_file or "", "`demonstration_file`")
    pool = [request for request in requests_from_data(data) if request.subject not in subjects]
    if len(pool) < hparams.demonstrations:
        raise RequestError(
            f"`demonstration_file` holds {len(pool)} requests about other subjects, but `demonstrations` asks for "
            f"{hparams.demonstrations}: give a larger file or ask for fewer."
        )
    drawn = random.Random(hparams.seed).sample(pool, hparams.demonstrations)
    return [_example(request, number) for number, request in enumerate(drawn)]


def _example(request: EditRequest, number: int) -> str:
    kinds = [(request.cloze, request.target_new)]
    if request.rephrase:
        kinds.append((request.rephrase[0].question, request.rephrase[0].answer))
    if request.locality:
        kinds.append((request.locality[0].question, request.locality[0].answer))
    prompt, answer = kinds[number % len(kinds)]
    return EXAMPLE.format(fact=fact_of(request), prompt=prompt, answer=answer)
