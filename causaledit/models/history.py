"""The edits that were made on a saved model, oldest first, as its card keeps them.

One file holds them: `causaledit.json` is the card of the last edit, and its `earlier` are the cards of those before it,
as they were. An edit is one call, with all the requests that it applied together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from causaledit.errors import ModelError, RequestError
from causaledit.facts.requests import request_from_dict
from causaledit.facts.same_fact import same_fact
from causaledit.facts.text import normalise
from causaledit.models.embedded import EMBEDDED_MODELS
from causaledit.models.origin import hub_file, is_hub_name
from causaledit.support.files import read_object
from causaledit.support.paths import exists, expanded, is_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from causaledit.facts.requests import EditRequest

CARD_NAME = "causaledit.json"
EARLIER = "earlier"  # the card's key for the cards of the edits before

Card = dict[str, Any]


def read_card(model: str | Path, *, fetch: bool = False) -> Card | None:
    """The card of a saved model; None for one that was not edited here.

    Args:
        model: A folder, or a model's name on the Hub.
        fetch: Ask the Hub, where the cache on this machine does not have the card.
    """
    card = read_object(file) if (file := card_file(model, fetch=fetch)) is not None else {}
    return card if isinstance(card.get("requests"), list) and "method" in card else None


def card_file(model: str | Path, *, fetch: bool = False) -> Path | None:
    """Where the card of a saved model is, or would be; None for what is neither a folder nor on the Hub.

    Args:
        model, fetch: As in `read_card`.
    """
    place = expanded(model)
    if is_folder(place):
        return place / CARD_NAME
    if str(model) in EMBEDDED_MODELS or exists(place) or not is_hub_name(str(model)):
        return None
    return hub_file(str(model), CARD_NAME, fetch=fetch)


def cards_of(card: Mapping[str, Any] | None) -> list[Card]:
    """The cards of all edits in a card, oldest first, each without those before it."""
    if card is None:
        return []
    earlier = card.get(EARLIER)
    own = {key: value for key, value in card.items() if key != EARLIER}
    return [*(entry for entry in earlier or [] if isinstance(entry, dict)), own]


def as_card(cards: Sequence[Card]) -> Card:
    """The one card that holds several: the inverse of `cards_of`.

    Args:
        cards: Oldest first; at least one.
    """
    return {**cards[-1], EARLIER: list(cards[:-1])}


@dataclass(frozen=True)
class MadeEdit:
    """One request of one edit in a model's history.

    Attributes:
        number: Of the edit, counted from 1.
        method: What made it.
        created: When, in ISO form.
        request: Its fact and answers.
        narrative_from: Where its narrative came from; empty where the method uses none.
    """

    number: int
    method: str
    created: str
    request: EditRequest
    narrative_from: str


def made_edits(cards: Sequence[Card]) -> list[MadeEdit]:
    """Every request of every edit, oldest first.

    Raises:
        ModelError: A card holds something that is no request.
    """
    found = []
    for number, card in enumerate(cards, start=1):
        sources = card.get("narrative_source") or []
        for place, data in enumerate(card.get("requests") or []):
            try:
                request = request_from_dict(_written(data), needs_subject=False)
            except RequestError as error:
                raise ModelError(f"The model's history is damaged: edit {number} in {CARD_NAME}: {error}") from None
            source = str(sources[place]) if place < len(sources) else ""
            found.append(
                MadeEdit(number, str(card.get("method", "")), str(card.get("created", "")), request, source)
            )  # fmt: skip
    return found


def _written(data: Any) -> Any:
    """A request as `EditRequest.to_dict` writes it, in the form in which requests are read."""
    if not isinstance(data, dict):
        return data
    aliases = {"target_new": "target_aliases", "ground_truth": "ground_truth_aliases"}
    answers = {key: [data[key], *data.get(more, [])] for key, more in aliases.items() if data.get(key)}
    return {**{key: data.get(key) for key in ("subject", "prompt", "question", "narrative")}, **answers}


@dataclass(frozen=True)
class Contradiction:
    """A new request that gives a fact another answer than the model was last given for it."""

    new: EditRequest
    earlier: MadeEdit


def contradictions(made: Iterable[MadeEdit], edits: Iterable[EditRequest]) -> list[Contradiction]:
    """Where new edits contradict earlier ones: the same fact (`same_fact`), and another answer.

    Of several earlier edits of one fact the last counts: it is what the model answers.
    """
    known = list(made)
    found = []
    for edit in edits:
        last = next((one for one in reversed(known) if same_fact(one.request, edit)), None)
        if last is not None and not _same_answer(last.request, edit):
            found.append(Contradiction(edit, last))
    return found


def with_earlier_answers(edits: Iterable[EditRequest], found: Iterable[Contradiction]) -> list[EditRequest]:
    """The edits; one that names no old answer and contradicts an earlier edit has that one's answer as its old one."""
    earlier = {id(one.new): one.earlier.request.target_new for one in found}
    return [replace(edit, ground_truth=edit.ground_truth or earlier.get(id(edit))) for edit in edits]


def _same_answer(a: EditRequest, b: EditRequest) -> bool:
    names = [{normalise(name) for name in (edit.target_new, *edit.target_aliases)} for edit in (a, b)]
    return not names[0].isdisjoint(names[1])
