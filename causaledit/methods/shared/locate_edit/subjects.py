"""The token at which a fact is looked up: in the papers, the last token of the subject."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from causaledit.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from causaledit.facts.requests import EditRequest


class TokenRow(NamedTuple):
    """A tokenised text with the index of the token at which the fact is looked up."""

    ids: list[int]
    at: int


def refuse_unclear_subjects(requests: Iterable[Mapping[str, Any] | EditRequest]) -> None:
    """Refuse prompts that hold their subject twice with no `{}` to mark one: they do not say where to edit.

    A prompt with `{}` is edited at that place, however often the subject occurs elsewhere.

    Raises:
        RequestError: A prompt is of that kind.
    """
    for request in requests:
        rewrites = request.get("requested_rewrite", [request]) if isinstance(request, Mapping) else []
        for item in rewrites if isinstance(rewrites, list) else []:
            if not isinstance(item, Mapping):
                continue
            prompt, subject = item.get("prompt"), item.get("subject")
            if not isinstance(prompt, str) or not isinstance(subject, str) or not subject or "{}" in prompt:
                continue
            times = prompt.count(subject)
            if times > 1:
                raise RequestError(
                    f"`prompt` ({prompt!r}) holds the subject {subject!r} {times} times: write `{{}}` in place of the "
                    "one at which the fact is to be edited."
                )


def locate(tokenizer: Any, template: str, request: EditRequest, fact_token: str) -> TokenRow:
    """Tokenise a prompt in a context and find the token at which the fact is looked up.

    A subject of several tokens is looked up at its last one. A token that reaches beyond the subject's end still
    counts as the subject's.

    Args:
        tokenizer: Special tokens are added as it does by default.
        template: A context with `{}` where the prompt stands.
        request: Its prompt holds `{}` where the subject stands.
        fact_token: `subject_last`, `subject_first`, `subject_first_after_last`, or `last` (the prompt's last token).

    Raises:
        RequestError: No token covers the subject.
    """
    start = template.index("{}") + request.prompt.index("{}")
    end = start + len(request.subject)
    text = template.replace("{}", request.cloze, 1)
    return locate_span(tokenizer, text, start, end, fact_token)


def locate_span(tokenizer: Any, text: str, start: int, end: int, fact_token: str) -> TokenRow:
    """As `locate`, for the characters from `start` to `end` of a ready text."""
    if getattr(tokenizer, "is_fast", False):
        encoded = tokenizer(text, return_offsets_mapping=True)
        ids, spans = list(encoded["input_ids"]), encoded["offset_mapping"]
        inside = [i for i, (a, b) in enumerate(spans) if a < end and b > start and b > a]
    else:  # no offsets: count the tokens before the subject and up to its end
        ids = list(tokenizer(text)["input_ids"])
        first, last = len(tokenizer(text[:start].rstrip())["input_ids"]), len(tokenizer(text[:end])["input_ids"])
        inside = list(range(min(first, last - 1), last))
    if not inside:
        raise RequestError(f"The tokenizer produces no token for the subject {text[start:end]!r} in {text!r}.")
    if fact_token == "last":
        return TokenRow(ids, len(ids) - 1)
    at = {
        "subject_last": inside[-1],
        "subject_first": inside[0],
        "subject_first_after_last": min(inside[-1] + 1, len(ids) - 1),
    }[fact_token]
    return TokenRow(ids, at)


def target_tokens(tokenizer: Any, request: EditRequest) -> list[int]:
    """The new answer's tokens as they follow the prompt after one space."""
    head = list(tokenizer(request.cloze)["input_ids"])
    full = list(tokenizer(f"{request.cloze} {request.target_new}")["input_ids"])
    if len(full) > len(head) and full[: len(head)] == head:
        return full[len(head) :]
    return list(tokenizer(f" {request.target_new}", add_special_tokens=False)["input_ids"])
