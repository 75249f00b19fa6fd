"""Rehearsal: what the earlier edits of a sequence were trained on, which a later one preserves as anything else.

Not in the paper. Adapters that are trained one after another overwrite each other (docs/lifelong.md). With
`rehearse_edits` an edit's own prompts, in the forms in which it was trained, and its new answers are kept in the
`EditSequence`; the next edits hold the model before them, which says these answers, to them by the preservation term.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from causaledit.facts.same_fact import fact_keys
from causaledit.models.batches import context_and_completion

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from causaledit.facts.requests import EditRequest
    from causaledit.methods.method import EditSequence
    from causaledit.methods.shared.hparams import PreservationHyperParams

Item = TypeVar("Item")

# Of the rows that an edit was trained on, so many are kept.
ROWS_PER_EDIT = 12


class TrainedRow(NamedTuple):
    """A prompt that an edit was trained on.

    Attributes:
        text: What was asked, without a template.
        prompt: Its tokens, in the form in which it was trained.
        answer: The tokens of the answer that was learnt.
    """

    text: str
    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True)
class _KeptEdit:
    """An edit of a sequence: what names its fact, and its rows."""

    keys: frozenset[str]
    rows: tuple[TrainedRow, ...]


class Rehearsal:
    """The edits that a sequence of one method holds so far, oldest first (a `StoredMemory`)."""

    def __init__(self) -> None:
        self._edits: list[_KeptEdit] = []

    def __len__(self) -> int:
        return len(self._edits)

    def drawn(self, requests: Sequence[EditRequest], n: int, seed: int) -> list[TrainedRow]:
        """The rows of up to `n` earlier edits, evenly from the whole sequence, but none that these edits contradict.

        Args:
            requests: The edits that are about to be made.
            n: How many earlier edits.
            seed: Of the draw, which is another one for each edit of the sequence.
        """
        rng = random.Random(f"{seed}/{len(self._edits)}")
        return [row for edit in evenly(self._without(requests), n, rng) for row in edit.rows]

    def remember(self, requests: Sequence[EditRequest], rows: Sequence[Sequence[TrainedRow]], seed: int) -> None:
        """Add edits that were made, each with what it was trained on; earlier ones that they contradict are dropped."""
        rng = random.Random(f"{seed}/rows/{len(self._edits)}")
        self._edits = self._without(requests)
        for request, trained in zip(requests, rows, strict=True):
            distinct = {(tuple(row.prompt), tuple(row.answer)): row for row in trained}.values()
            if distinct:
                kept = evenly(list(distinct), ROWS_PER_EDIT, rng)
                self._edits.append(_KeptEdit(fact_keys(request), tuple(kept)))

    def _without(self, requests: Iterable[EditRequest]) -> list[_KeptEdit]:
        keys = frozenset[str]().union(*(fact_keys(request) for request in requests))
        return [edit for edit in self._edits if edit.keys.isdisjoint(keys)]

    def constants(self) -> dict[str, Any]:
        """See `StoredMemory`: there are none."""
        return {}

    def state(self) -> dict[str, Any]:
        """See `StoredMemory`."""
        return {"edits": [(sorted(edit.keys), [tuple(row) for row in edit.rows]) for edit in self._edits]}

    def load(self, constants: dict[str, Any], state: dict[str, Any]) -> None:
        """See `StoredMemory`."""
        self._edits = [
            _KeptEdit(frozenset(keys), tuple(TrainedRow(*row) for row in rows)) for keys, rows in state["edits"]
        ]


def evenly(items: Sequence[Item], n: int, rng: random.Random) -> list[Item]:
    """Up to `n` items in their order: one drawn from each of `n` equal stretches."""
    if len(items) <= n:
        return list(items)
    ends = [len(items) * i // n for i in range(n + 1)]
    return [items[rng.randrange(begin, end)] for begin, end in itertools.pairwise(ends)]


def rows_of_pairs(pairs: Sequence[tuple[str, str]], rows: Sequence[dict[str, Any]]) -> list[TrainedRow]:
    """(prompt, completion) pairs and the trainer's rows that were made of them, as rows to rehearse."""
    return [TrainedRow(text, *context_and_completion(row)) for (text, _), row in zip(pairs, rows, strict=True)]


def rehearsal_of(sequence: EditSequence | None, hparams: PreservationHyperParams) -> Rehearsal | None:
    """What a method's edits of a sequence rehearse; None for an independent edit, or where it is switched off."""
    if sequence is None or not hparams.rehearse_edits:
        return None
    return sequence.memory(hparams.alg_name, Rehearsal)


def remember(
    sequence: EditSequence | None,
    hparams: PreservationHyperParams,
    requests: Sequence[EditRequest],
    rows: Sequence[Sequence[TrainedRow]],
) -> None:
    """Note edits that have been made, for the sequence's later ones to rehearse; see `Rehearsal.remember`."""
    if (rehearsal := rehearsal_of(sequence, hparams)) is not None:
        rehearsal.remember(requests, rows, hparams.seed)
