"""Which cases are edited, and which of them are edited together."""

from __future__ import annotations

import logging
import random
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from causaledit.errors import DatasetError
from causaledit.mquake.checks import check_cases, refuse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from causaledit.mquake.cases import Case, CaseEdit
    from causaledit.mquake.datasets import LocatedDataset

logger = logging.getLogger(__name__)

SHUFFLE_SEED = 70  # the seed of the published runs


def select_cases(
    data: Sequence[Any], *, hop: int | None = None, max_cases: int = 200, seed: int = SHUFFLE_SEED, skip_cases: int = 0
) -> list[int]:
    """Which cases a run takes: shuffled within each hop count, the hop counts taking turns.

    Taking turns spreads `max_cases` evenly over the hop counts, and makes a smaller run a part of a larger one.

    Args:
        data: The cases as they are in the file.
        hop: Only cases whose new chain has this number of hops.
        max_cases: Largest number of cases.
        seed: Seed of the shuffle.
        skip_cases: Number of cases to skip at the beginning of the order.

    Returns:
        Indices into `data`, in the order of the run.

    Raises:
        DatasetError: Nothing is left.
    """
    by_hops: dict[int, list[int]] = {}
    for index, case in enumerate(data):
        hops = case.get("new_single_hops") if isinstance(case, Mapping) else None
        by_hops.setdefault(len(hops) if isinstance(hops, list) else 0, []).append(index)
    if hop is not None:
        if hop not in by_hops:
            counts = ", ".join(f"{n} hops: {len(by_hops[n])}" for n in sorted(by_hops))
            raise DatasetError(f"--hop {hop}: no case has that number of hops (cases in the file: {counts}).")
        by_hops = {hop: by_hops[hop]}
    for indices in by_hops.values():
        random.Random(seed).shuffle(indices)
    turns = zip_longest(*(by_hops[n] for n in sorted(by_hops)))
    order = [index for index in chain.from_iterable(turns) if index is not None]
    chosen = order[skip_cases : skip_cases + max_cases]
    if not chosen:
        raise DatasetError(f"--skip_cases {skip_cases} leaves nothing: there are {len(order)} cases to choose from.")
    return chosen


@dataclass(frozen=True)
class Group:
    """Edits that are applied together, and the cases that are then probed (all of whose edits are among them)."""

    edits: tuple[CaseEdit, ...]
    cases: tuple[Case, ...]


def group_by_case(cases: Sequence[Case]) -> list[Group]:
    """Each case on its own."""
    return [Group(case.edits, (case,)) for case in cases]


def group_in_batches(cases: Sequence[Case], size: int) -> list[Group]:
    """Unique edits in full batches of `size`; what does not fill a batch is dropped, as in the published runs.

    Edits come in the order of their cases. Two edits that contradict each other never share a batch, and
    cases are kept whole where they fit: a case whose edits end up in different batches, or in the dropped
    tail, is in no group.

    Raises:
        DatasetError: There are fewer unique edits than `size`, or a case is left in no batch.
    """
    unplaced = {edit.key: edit for case in cases for edit in case.edits}
    total = len(unplaced)
    groups: list[Group] = []
    while len(unplaced) >= size:
        batch = _fill(cases, unplaced, size)
        if len(batch) < size:
            break  # the remaining edits contradict each other
        inside = [case for case in cases if all(edit.key in batch for edit in case.edits)]
        groups.append(Group(tuple(batch.values()), tuple(inside)))
        for key in batch:
            del unplaced[key]
    if not groups:
        raise DatasetError(f"--batch_edit {size}: the chosen cases have {total} unique edits, which fill no batch.")
    if not any(group.cases for group in groups):
        raise DatasetError(f"--batch_edit {size}: no case has all its edits in one batch: give a larger number.")
    return groups


_Key = tuple[str, str, str]


def _fill(cases: Sequence[Case], unplaced: Mapping[_Key, CaseEdit], size: int) -> dict[_Key, CaseEdit]:
    """One batch: whole cases as far as they fit, then single edits."""
    batch: dict[_Key, CaseEdit] = {}
    facts: set[tuple[str, str]] = set()

    def take(edits: Mapping[_Key, CaseEdit]) -> None:
        wanted = {edit.fact for edit in edits.values()}
        if len(batch) + len(edits) <= size and len(wanted) == len(edits) and not wanted & facts:
            batch.update(edits)
            facts.update(wanted)

    for case in cases:
        if len(batch) == size:
            return batch
        if all(edit.key in unplaced for edit in case.edits):
            take({edit.key: edit for edit in case.edits if edit.key not in batch})
    for key, edit in unplaced.items():
        if len(batch) < size and key not in batch:
            take({key: edit})
    return batch


def refuse_bad_cases(data: Sequence[Any], chosen: set[int], dataset: LocatedDataset) -> None:
    """Refuse a run for problems in the chosen cases and for repeated ids; warn of problems in the other cases.

    Raises:
        DatasetError: A chosen case has a problem; the first few are named.
    """
    problems = check_cases(list(data))
    fatal = [p for p in problems if p.index is None or p.index in chosen or p.field == "case_id"]
    refuse(fatal, f"--datatype {dataset.name!r}")
    if problems:
        logger.warning("%s: %d problem(s) in cases that are not chosen", dataset.name, len(problems))
