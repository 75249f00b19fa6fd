"""The fields of one edit as files write them: EasyEdit's requests and MQuAKE's `requested_rewrite` entries.

The names of the fields are defined only here. `requests.request_from_dict` also checks an edit; the reader of
metrics files takes what there is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from causaledit.errors import RequestError
from causaledit.facts.request_texts import clean_text
from causaledit.facts.text import strip_html

logger = logging.getLogger(__name__)

# `article`: causal-enhanced MQuAKE; `fact_new_uns`: AKEW's MQuAKE files
NARRATIVE_KEYS = ("narrative", "article", "fact_new_uns")
OLD_ANSWER_KEYS = ("ground_truth", "target_true", "target_old")


class Rewrite(NamedTuple):
    """One edit, read without any check: texts are cleaned, and empty where the field is missing or not a text.

    Attributes:
        prompt: The cloze as it is written, with `{}` or with the subject.
        relation: Wikidata relation.
        narrative: Without HTML tags.
    """

    subject: str
    prompt: str
    question: str
    target_new: str
    target_old: str
    relation: str
    narrative: str


def read_rewrite(data: Any) -> Rewrite:
    """Read one entry; anything that is not an object is read as one without fields."""
    fields: Mapping[str, Any] = data if isinstance(data, Mapping) else {}
    narrative = first_of(fields, NARRATIVE_KEYS)
    return Rewrite(
        subject=text_in(fields.get("subject")),
        prompt=text_in(fields.get("prompt")),
        question=text_in(fields.get("question")),
        target_new=text_in(fields.get("target_new")),
        target_old=text_in(first_of(fields, OLD_ANSWER_KEYS)),
        relation=text_in(fields.get("relation_id")),
        narrative=strip_html(narrative) if isinstance(narrative, str) else "",
    )


def text_in(value: Any) -> str:
    """The text in an answer: a text, `{"str": …}` (MQuAKE) or lists that begin with one of them; else empty."""
    while isinstance(value, list):
        value = value[0] if value else None
    if isinstance(value, Mapping):
        value = value.get("str")
    return clean_text(value) if isinstance(value, str) else ""


def id_in(value: Any) -> str | None:
    """The Wikidata id in an answer `{"str": …, "id": …}`, or of a bare text; None where there is none."""
    if isinstance(value, Mapping):
        value = value.get("id")
    return value.strip() or None if isinstance(value, str) else None


def first_of(data: Mapping[str, Any], keys: Iterable[str]) -> Any:
    """The first of several fields that holds something, or None."""
    return next((data[key] for key in keys if data.get(key)), None)


def rewrites_in(data: Any) -> list[Any]:
    """The edits of a list of requests, of rewrites or of whole MQuAKE cases, in order; they may also be mixed.

    Raises:
        RequestError: The data is not of that form.
    """
    return [rewrite for _, rewrite in rewrites_with_places(data)]


def rewrites_with_places(data: Any) -> list[tuple[str, Any]]:
    """As `rewrites_in`, each after the words that say where in a case it is (empty for one outside a case).

    Raises:
        RequestError: The data is not of that form.
    """
    if isinstance(data, Mapping):
        data = [data]
    if not isinstance(data, Iterable) or isinstance(data, str):
        raise RequestError(f"Requests must be a list of objects, got {type(data).__name__}.")
    flat: list[tuple[str, Any]] = []
    for position, item in enumerate(data, start=1):
        if not isinstance(item, Mapping) or "requested_rewrite" not in item:
            flat.append(("", item))
            continue
        rewrites = item["requested_rewrite"]
        if isinstance(rewrites, Mapping):  # AKEW's CounterFact file has one edit per case
            rewrites = [rewrites]
        if not isinstance(rewrites, list):
            raise RequestError(f"`requested_rewrite` must be a list of edits, got {rewrites!r}.")
        flat += [(f" (edit {i} of case {position})", rewrite) for i, rewrite in enumerate(rewrites, start=1)]
    return flat


def log_narrative_keys(rewrites: Iterable[Any], where: str) -> None:
    """Log once per file under which name its narratives were found."""
    found: Counter[str] = Counter()
    for rewrite in rewrites:
        if isinstance(rewrite, Mapping):
            found.update([key for key in NARRATIVE_KEYS if rewrite.get(key)][:1])
    if found:
        logger.info("%s: narratives from %s", where, ", ".join(f"`{key}` ({found[key]})" for key in found))
