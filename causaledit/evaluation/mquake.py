"""MQuAKE cases: read, checked, chosen and grouped.

All published forms are read: plain, -v2 and -T files, and the causal-enhanced ones (`article`,
`rephrase_prompt`, `learning_prompt`, …). `target_new` may be a text or `{"str", "id"}`. Keys that only some
files have are optional, and what is not needed here stays in `data` as it was.

Source: Zhong et al., MQuAKE (arXiv 2305.14795); the selection is that of the published CODE runs.
"""

from __future__ import annotations

import copy
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any

from causaledit.errors import DatasetError, RequestError
from causaledit.requests import EditRequest, answer_text, load_json, request_from_dict

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

SHUFFLE_SEED = 70  # that of the published runs
_SHOWN = 5


# ---- the schema ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Hop:
    """One link of a case's chain of facts."""

    question: str
    cloze: str
    answer: str
    answer_alias: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseEdit:
    """One edit of a case.

    Attributes:
        request: The edit request (old answer always known).
        relation: Wikidata relation, or the cloze where the file names none.
        data: The `requested_rewrite` entry as it is in the file.
    """

    request: EditRequest
    relation: str
    data: Mapping[str, Any]

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes two edits the same: subject, relation, new answer."""
        return (self.request.subject, self.relation, self.request.target_new)

    @property
    def fact(self) -> tuple[str, str]:
        """The fact that is changed: two edits of one fact contradict each other."""
        return (self.request.subject, self.relation)

    def to_request(self, case_id: int | str) -> dict[str, Any]:
        """The request as a method's `apply` gets it: everything the file says, answers and narrative as texts."""
        request = self.request
        return {
            **copy.deepcopy(dict(self.data)),  # whatever a method does to it
            "case_id": case_id,
            "subject": request.subject,
            "prompt": request.prompt,
            "question": request.question,
            "target_new": request.target_new,
            "ground_truth": request.ground_truth,
            "narrative": request.narrative,
            "relation_id": self.relation,
        }


@dataclass(frozen=True)
class Case:
    """One MQuAKE case.

    Attributes:
        case_id: As in the file.
        edits: Applied together before the case is probed.
        questions: Multi-hop questions.
        answer: Their answer before the edits, with `answer_alias`.
        new_answer: Their answer after the edits, with `new_answer_alias`.
        hops: The new chain (`new_single_hops`).
        old_hops: The old chain (`single_hops`), where the file has it.
        data: The case as it is in the file.
    """

    case_id: int | str
    edits: tuple[CaseEdit, ...]
    questions: tuple[str, ...]
    answer: str
    answer_alias: tuple[str, ...]
    new_answer: str
    new_answer_alias: tuple[str, ...]
    hops: tuple[Hop, ...]
    old_hops: tuple[Hop, ...]
    data: Mapping[str, Any]

    def edit_of_hop(self, hop: int) -> int | None:
        """Index of the edit that made a hop of the new chain, or None where the hop is as before."""
        for index, edit in enumerate(self.edits):
            request = edit.request
            asked = self.hops[hop]
            if asked.answer == request.target_new and (
                asked.question == request.question or asked.cloze.casefold() == request.cloze.casefold()
            ):
                return index
        return None


# ---- checking --------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Problem:
    """Something wrong in a file.

    Attributes:
        case: Which case: its `case_id`, or its place in the file where it has none.
        field: Path of the field in the case, such as `requested_rewrite[0].prompt`; empty for the whole case.
        message: What is wrong with it.
        index: Place of the case in the file, from 0; None for the file as a whole.
    """

    case: str
    field: str
    message: str
    index: int | None = None

    def __str__(self) -> str:
        return ": ".join(part for part in (self.case, self.field, self.message) if part)


def check_cases(data: Any) -> list[Problem]:
    """Everything that is wrong in the content of an MQuAKE file, by case and field."""
    if not isinstance(data, list):
        return [Problem("the file", "", f"must hold a list of cases, got {type(data).__name__}")]
    if not data:
        return [Problem("the file", "", "holds no case")]
    repeated = Counter(repr(case["case_id"]) for case in data if isinstance(case, Mapping) and "case_id" in case)
    problems: list[Problem] = []
    for index, case in enumerate(data):
        if not isinstance(case, Mapping):
            problems.append(Problem(f"entry {index + 1}", "", f"must be an object, got {type(case).__name__}", index))
            continue
        known = "case_id" in case
        name = f"case {case['case_id']}" if known else f"entry {index + 1}"
        found = list(_case_problems(case))
        if known and repeated[repr(case["case_id"])] > 1:
            found.insert(0, ("case_id", f"{case['case_id']!r} occurs {repeated[repr(case['case_id'])]} times"))
        problems += [Problem(name, field, message, index) for field, message in found]
    return problems


_Found = tuple[str, str]


def _case_problems(case: Mapping[str, Any]) -> Iterator[_Found]:
    case_id = case.get("case_id")
    if not isinstance(case_id, int | str) or isinstance(case_id, bool) or case_id == "":
        yield "case_id", f"must be a number or a text, got {case_id!r}"
    yield from _edit_problems(case.get("requested_rewrite"))
    questions = case.get("questions")
    if not isinstance(questions, list) or not questions:
        yield "questions", f"must be a list of multi-hop questions, got {questions!r}"
    else:
        for i, question in enumerate(questions):
            yield from _text(question, f"questions[{i}]")
    for side in ("answer", "new_answer"):
        yield from _text(case.get(side), side)
        yield from _aliases(case, f"{side}_alias", f"{side}_alias")
    yield from _hop_problems(case, "new_single_hops", needed=True)
    yield from _hop_problems(case, "single_hops", needed=False)


def _text(value: Any, field: str) -> Iterator[_Found]:
    if not isinstance(value, str):
        yield field, "is missing" if value is None else f"must be a text, got {value!r}"
    elif not value.strip():
        yield field, "is empty"


def _aliases(holder: Mapping[str, Any], key: str, field: str) -> Iterator[_Found]:
    aliases = holder.get(key, [])
    if not isinstance(aliases, list):
        yield field, f"must be a list of texts, got {aliases!r}"
        return
    for i, alias in enumerate(aliases):
        yield from _text(alias, f"{field}[{i}]")


def _hop_problems(case: Mapping[str, Any], key: str, *, needed: bool) -> Iterator[_Found]:
    hops = case.get(key)
    if hops is None and not needed:
        return
    if not isinstance(hops, list) or (needed and not hops):
        yield key, "has no hop" if hops in (None, []) else f"must be a list of hops, got {hops!r}"
        return
    for i, hop in enumerate(hops):
        field = f"{key}[{i}]"
        if not isinstance(hop, Mapping):
            yield field, f"must be an object, got {hop!r}"
            continue
        for part in ("question", "cloze", "answer"):
            yield from _text(hop.get(part), f"{field}.{part}")
        yield from _aliases(hop, "answer_alias", f"{field}.answer_alias")


def _edit_problems(rewrites: Any) -> Iterator[_Found]:
    if not isinstance(rewrites, list) or not rewrites:
        yield (
            "requested_rewrite",
            "has no edit" if rewrites in (None, []) else f"must be a list of edits, got {rewrites!r}",
        )
        return
    facts: set[tuple[Any, Any]] = set()
    for i, rewrite in enumerate(rewrites):
        field = f"requested_rewrite[{i}]"
        if not isinstance(rewrite, Mapping):
            yield field, f"must be an object, got {rewrite!r}"
            continue
        found = list(_rewrite_problems(rewrite, field))
        yield from found
        if found:
            continue
        try:
            request_from_dict(rewrite)
        except RequestError as error:  # whatever else the schema of requests refuses
            yield field, str(error).rstrip(".")
        fact = (rewrite["subject"], rewrite.get("relation_id", rewrite["prompt"]))
        if fact in facts:
            yield field, f"changes a fact that another edit of the case changes (subject {fact[0]!r})"
        facts.add(fact)


def _rewrite_problems(rewrite: Mapping[str, Any], field: str) -> Iterator[_Found]:
    yield from _text(rewrite.get("subject"), f"{field}.subject")
    prompt = rewrite.get("prompt")
    yield from _text(prompt, f"{field}.prompt")
    if isinstance(prompt, str) and prompt.strip() and prompt.count("{}") != 1:
        yield f"{field}.prompt", f"must hold exactly one {{}} where the subject stands, got {prompt!r}"
    for key in ("target_new", "target_true"):
        try:
            yield from _text(answer_text(rewrite.get(key), key), f"{field}.{key}")
        except RequestError as error:
            yield f"{field}.{key}", str(error).rstrip(".")
    for key in ("question", "article", "narrative"):
        if rewrite.get(key) is not None:
            yield from _text(rewrite[key], f"{field}.{key}")


# ---- reading ---------------------------------------------------------------------------------------
def read_cases(path: str | Path, what: str = "--datatype") -> list[Mapping[str, Any]]:
    """The cases of a file as they are, unchecked but for the JSON.

    Raises:
        DatasetError: There is no such file, or it is not valid JSON (cut off, for example).
    """
    try:
        data = load_json(path, what)
    except RequestError as error:
        raise DatasetError(str(error)) from None
    if not isinstance(data, list) or not data:
        raise DatasetError(f"{what}: {str(path)!r}: {check_cases(data)[0]}.")
    return data


def parse_cases(data: Sequence[Mapping[str, Any]]) -> list[Case]:
    """Cases from checked data.

    Raises:
        DatasetError: There is a problem after all; the first few are named.
    """
    refuse(check_cases(list(data)), "the data")
    return [_case(case) for case in data]


def refuse(problems: Sequence[Problem], what: str) -> None:
    """Raise a `DatasetError` that lists the first problems, if there are any."""
    if problems:
        listed = "; ".join(str(problem) for problem in problems[:_SHOWN])
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise DatasetError(
            f"{what} cannot be used: {listed}{more}. `causaledit data check FILE` lists everything that is wrong."
        )


def _case(data: Mapping[str, Any]) -> Case:
    def edit(rewrite: Mapping[str, Any]) -> CaseEdit:
        request = request_from_dict(rewrite)
        return CaseEdit(request, str(rewrite.get("relation_id") or request.prompt), rewrite)

    def hops(key: str) -> tuple[Hop, ...]:
        return tuple(
            Hop(h["question"].strip(), h["cloze"].strip(), h["answer"].strip(), tuple(h.get("answer_alias", ())))
            for h in data.get(key) or ()
        )

    return Case(
        case_id=data["case_id"],
        edits=tuple(edit(rewrite) for rewrite in data["requested_rewrite"]),
        questions=tuple(question.strip() for question in data["questions"]),
        answer=data["answer"].strip(),
        answer_alias=tuple(data.get("answer_alias", ())),
        new_answer=data["new_answer"].strip(),
        new_answer_alias=tuple(data.get("new_answer_alias", ())),
        hops=hops("new_single_hops"),
        old_hops=hops("single_hops"),
        data=data,
    )


def describe_cases(data: Sequence[Mapping[str, Any]]) -> str:
    """A checked file in one line: cases by hops, edits, distinct edits, narratives."""
    cases = parse_cases(data)
    hops = Counter(len(case.hops) for case in cases)
    edits = [edit for case in cases for edit in case.edits]
    return (
        f"{len(cases)} cases ({', '.join(f'{hops[n]} of {n} hops' for n in sorted(hops))}), {len(edits)} edits, "
        f"{len({edit.key for edit in edits})} of them distinct, {sum(bool(e.request.narrative) for e in edits)} with a "
        "narrative"
    )


# ---- choosing --------------------------------------------------------------------------------------
def select_cases(
    data: Sequence[Any], *, hop: int | None = None, max_cases: int = 200, seed: int = SHUFFLE_SEED, skip_cases: int = 0
) -> list[int]:
    """Which cases a run takes: shuffled within each hop count, the hop counts taking turns.

    Taking turns spreads `max_cases` evenly over the hop counts, and makes a smaller run a part of a larger one.

    Args:
        data: The cases as they are in the file.
        hop: Only cases whose new chain has so many hops.
        max_cases: At most so many.
        seed: Of the shuffle.
        skip_cases: Leave out so many of the chosen order's first.

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
            raise DatasetError(f"--hop {hop}: no case has so many hops (there are {counts}).")
        by_hops = {hop: by_hops[hop]}
    for indices in by_hops.values():
        random.Random(seed).shuffle(indices)
    turns = zip_longest(*(by_hops[n] for n in sorted(by_hops)))
    order = [index for index in chain.from_iterable(turns) if index is not None]
    chosen = order[skip_cases : skip_cases + max_cases]
    if not chosen:
        raise DatasetError(f"--skip_cases {skip_cases} leaves nothing: there are {len(order)} cases to choose from.")
    return chosen


# ---- grouping --------------------------------------------------------------------------------------
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
            break  # what remains contradicts itself
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
