"""Our requests as EasyEdit's methods read them, with the keys that some of them ask for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from causaledit.facts.relations import RelationBank
from causaledit.models.chat import prepare_tokenizer, render, user
from causaledit.models.generation import generate_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.facts.requests import EditRequest

_LONGEST_ANSWER = 12  # tokens of an own answer: it stands for a fact, not for a text


def their_requests(
    name: str,
    model: Any,
    tokenizer: Any,
    edits: Sequence[EditRequest],
    given: Any,
) -> list[dict[str, Any]]:
    """The requests of a call to a method of EasyEdit.

    Every key of a request that is no part of ours (`loc_prompt`, `target_neg`, …) goes on as it is. WISE gets a
    `loc_prompt` where there is none: the first of the request's locality probes, or a general question with the
    model's own answer. DPO gets a `target_neg`, KN a `ground_truth`: the old answer, or the model's own.

    Args:
        name: The `alg_name`.
        model, tokenizer: For own answers.
        edits: The requests as they were read.
        given: As the caller gave them.
    """
    raws = list(given) if isinstance(given, list | tuple) and len(given) == len(edits) else [{}] * len(edits)
    requests = [_their_request(edit, raw) for edit, raw in zip(edits, raws, strict=True)]
    ask = _Asker(model, tokenizer)
    for number, (request, edit) in enumerate(zip(requests, edits, strict=True)):
        if name == "WISE" and not request.get("loc_prompt"):
            request["loc_prompt"] = _unrelated(edit, number, ask)
        if name == "DPO" and not request.get("target_neg"):
            request["target_neg"] = edit.ground_truth or ask(edit.question_form)
        if name == "KN" and not request.get("ground_truth"):
            request["ground_truth"] = ask(edit.question_form)
    return requests


def _their_request(edit: EditRequest, raw: Any) -> dict[str, Any]:
    """A request as EasyEdit's methods read it: the prompt with its subject in place."""
    ours: dict[str, Any] = {
        "prompt": edit.cloze,
        "subject": edit.subject,
        "target_new": edit.target_new,
        "ground_truth": edit.ground_truth,
        "rephrase_prompt": edit.rephrase[0].question if edit.rephrase else edit.cloze,
        "portability": {},
        "locality": {},
    }
    further = raw if isinstance(raw, Mapping) else {}
    return {**{key: value for key, value in further.items() if key not in ours}, **ours}


def _unrelated(edit: EditRequest, number: int, ask: _Asker) -> str:
    """A text that the edit must leave alone: a question and its answer."""
    for probe in edit.locality:
        if probe.answer:
            return f"{probe.question} {probe.answer}"
    bank = RelationBank.bundled().general
    question = bank[number % len(bank)]
    return f"{question} {ask(question)}"


class _Asker:
    """The model's own short answers; the tokenizer is only prepared where there is a question."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.model, self.tokenizer = model, tokenizer

    def __call__(self, question: str) -> str:
        prepared = prepare_tokenizer(self.tokenizer)
        prompt = render(prepared, user(question))
        text = generate_texts(self.model, prepared, [prompt], max_new_tokens=_LONGEST_ANSWER)[0]
        first = text.strip().splitlines()[0].strip() if text.strip() else ""
        return first or "unknown"


def context_of(requests: Sequence[Mapping[str, Any]], examples: Sequence[str]) -> str:
    """What EasyEdit's metric puts before a prompt after IKE: the demonstrations, then the new facts."""
    facts = [f"New Fact: {request['prompt']} {request['target_new']}" for request in requests]
    return "".join(examples) + "\n".join(facts)
